"""A training job as far as wandb is concerned: python job.py '{"folder": …, "mode": …}' [anything].

It logs points of 20 figures, a summary and a model, and prints what it came to as JSON. With `freeze` its wandb
service is stopped (SIGSTOP) before the first point, which is how a wandb that hangs looks from inside.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from hpcft.tracking.wandb import Tracker


def figures(step: int) -> dict[str, float]:
    """20 figures of a step."""
    return {"train/loss": 1 / step, "epoch": step / 10, **{f"train/f{n}": step + n / 7 for n in range(18)}}


def service() -> psutil.Process | None:
    """The wandb service that this process has started."""
    return next((c for c in psutil.Process().children() if c.name().startswith("wandb-core")), None)


def main() -> None:
    """Play the job."""
    os.umask(0o077)
    options: dict[str, Any] = {"first": 1, "points": 40, "pause": 0.01, "freeze": False, "model": None}
    options |= {"exit_code": 0, "init_timeout_s": 30.0, "timeout_s": 10.0, **json.loads(sys.argv[1])}
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = {
        "project": "project",
        "entity": "lab",
        "id": "r7",
        "name": "QLoRA_pairs_run_r7",
        "job_type": "training",
        "config": {"model_variant": "QLoRA", "training.max_steps": 40},
        "tags": ["night"],
        "notes": "a note",
    }
    log = logging.getLogger("job")
    tracker = Tracker(Path(options["folder"]), options["mode"], settings, log, options["init_timeout_s"])
    core = None
    while options["freeze"] and core is None:
        time.sleep(0.05)
        core = service()
    if core is not None:
        time.sleep(1.0)
        core.send_signal(signal.SIGSTOP)
    microseconds = []
    for step in range(options["first"], options["first"] + options["points"]):
        values = figures(step)
        begin = time.perf_counter_ns()
        tracker.log(values, step)
        microseconds.append((time.perf_counter_ns() - begin) / 1000)
        if options["pause"]:
            print(step, flush=True)
            time.sleep(options["pause"])
    tracker.summary({"final/validation_f1_score": 0.5})
    if options["model"]:
        tracker.artifact(Path(options["model"]), "model-lora-ptq", {"model_variant": "LoRA+PTQ"})
    begin = time.monotonic()
    report = tracker.finish(options["timeout_s"], options["exit_code"])
    finish_s = time.monotonic() - begin
    print(json.dumps({"report": asdict(report), "us": microseconds, "finish_s": finish_s, "end": time.time()}))


if __name__ == "__main__":
    main()

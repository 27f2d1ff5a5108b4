"""A job with a run directory, as the worker keeps it: python recorded.py RUN '{"first": 1, "last": 40, …}'

It records each step, prints the step when the event log has it (which is what acknowledged means), saves a checkpoint
now and then, and tells wandb what the recorder tells it. Options: `first`, `last`, `total`, `every` (steps between
two checkpoints), `mode`, `pause` (seconds a step), `die` (SIGKILL itself behind this step), `finish` (its exit code;
null: it ends without a word; 75: stopped with everything saved), `timeout_s` (that wandb has at the end).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hpcft.runs.create import begin_attempt
from hpcft.runs.files import write_json
from hpcft.runs.run import Run
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer
from hpcft.tracking.config import model_metadata, wandb_settings
from hpcft.tracking.wandb import Tracker
from hpcft.train.recorder import Recorder


def main() -> None:
    """Play the job."""
    os.umask(0o077)
    run = Run(Path(sys.argv[1]))
    options: dict[str, Any] = {"first": 1, "last": 40, "total": 40, "every": 10, "mode": "offline", "pause": 0.0}
    options |= {"die": None, "finish": 0, "timeout_s": 10.0, **json.loads(sys.argv[2])}
    job = build([yaml_layer(run.paths.config)]).job
    recorder = Recorder(run.paths, begin_attempt(run.paths), job.tracking.log_every)
    settings = wandb_settings(job, run.id or "", 1)
    recorder.tracker = Tracker(run.paths.wandb, options["mode"], settings, logging.getLogger("job"))
    recorder.event("start", attempt=recorder.attempt, resume_step=options["first"] - 1, world_size=1)
    for step in range(options["first"], options["last"] + 1):
        figures = {"loss": 1 / step if step != 7 else float("nan"), "learning_rate": 1e-3, "epoch": step / 10}
        recorder.step(step, options["total"], {**figures, "attempt": recorder.attempt})
        if step % options["every"] == 0:
            recorder.metrics("validation", step, {"validation/loss": 2 / step, "epoch": step / 10})
            recorder.event("checkpoint", step=step, folder=f"checkpoint-{step}")
        print(step, flush=True)
        time.sleep(options["pause"])
        if step == options["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
    if options["finish"] == 0:
        recorder.summary({"final/validation_f1_score": 0.5, "train/runtime_s": 3.5})
        recorder.event("end", step=options["last"])
        run.paths.final_model.mkdir(exist_ok=True)
        (run.paths.final_model / "adapter_model.safetensors").write_bytes(b"weights" * 100)
        write_json(run.paths.done, {"attempt": recorder.attempt})
        recorder.tracker.artifact(run.paths.final_model, *model_metadata(job, run.name))
    if options["finish"] == 75:
        recorder.status("stopped", message="stopped with everything saved")
    if options["finish"] is not None:
        report = recorder.tracker.finish(options["timeout_s"], options["finish"])
        recorder.event("tracking", **vars(report))
    recorder.close()


if __name__ == "__main__":
    main()

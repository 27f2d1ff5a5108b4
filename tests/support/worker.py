"""Small jobs through the real worker, in run directories of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hpcft.runs.create import make_run_directory, new_run_id
from hpcft.runs.events import EventLog
from hpcft.runs.run import Run

BASE: dict[str, Any] = {
    "data": {"dataset": "quickstart", "train_samples": 48, "eval_samples": 4, "max_length": 256},
    "lora": {"r": 4, "lora_dropout": 0.0, "target_module_group": "both"},
    "training": {
        "num_train_epochs": 2,
        "max_steps": None,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.005,
        "warmup_steps": 0,
    },
    "evaluation": {"max_new_tokens": 8},
    "resources": {"accelerator": "cpu"},
}


class Worker:
    """Makes run directories and runs the worker in them."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model = model
        self.folder = folder

    def make(self, name: str, variant: str, **changes: dict[str, Any]) -> Run:
        job: dict[str, Any] = {"variant": variant, "model": {"name": str(self.model)}}
        for section in BASE.keys() | changes.keys():
            job[section] = {**job.get(section, {}), **BASE.get(section, {}), **changes.get(section, {})}
        paths = make_run_directory(self.folder, name, name)
        paths.config.write_text(yaml.safe_dump(job))
        with EventLog(paths.client) as journal:
            journal.append("intent", run_id=new_run_id(), cluster="local", scheduler="local", internet=False)
        return Run(paths.root)

    def run(self, run: Run, *, until: Callable[[Run], bool] | None = None) -> int:
        """Run the worker; when `until` holds, ask it to stop with USR2. Its exit code."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"OMP_NUM_THREADS": "1"}
        with (run.paths.root / "job.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "hpcft.worker", str(run.paths.root)], stdout=log, stderr=log, env=environment
            )
        while until is not None and process.poll() is None:
            if until(run):
                process.send_signal(signal.SIGUSR2)
                break
            time.sleep(0.005)
        return process.wait(timeout=300)

    def finished(self, name: str, variant: str, **changes: dict[str, Any]) -> Run:
        run = self.make(name, variant, **changes)
        code = self.run(run)
        assert code == 0, run.paths.batch_log.read_text()[-3000:]
        return run

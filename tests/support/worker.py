"""Small jobs through the real worker, in run directories of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from support import forked

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
        return self._made(name, job)

    def distillations(self, teacher: Path, base: dict[str, dict[str, Any]]) -> Callable[..., Run]:
        """A function that makes run directories of variant distill, as `make` does, with a job's sections below what it
        is given."""

        def made(name: str, **changes: dict[str, Any]) -> Run:
            own = {
                section: base.get(section, {}) | changes.get(section, {}) for section in base.keys() | changes.keys()
            }
            own["distill"] = {"teacher": str(teacher)} | changes.get("distill", {})
            return self.make(name, "distill", **own)

        return made

    def _made(self, name: str, job: dict[str, Any]) -> Run:
        paths = make_run_directory(self.folder, name, name)
        paths.config.write_text(yaml.safe_dump(job))
        with EventLog(paths.client) as journal:
            journal.append("intent", run_id=new_run_id(), cluster="local", scheduler="local", internet=False)
        return Run(paths.root)

    def run(self, run: Run, *, until: Callable[[Run], bool] | None = None, pictures: bool = False) -> int:
        """Run the worker; when `until` holds, ask it to stop with USR2. Its exit code."""
        (process,) = forked.start(run, pictures=pictures)
        while until is not None and process.is_alive():
            if until(run):
                os.kill(process.pid, signal.SIGUSR2)
                break
            time.sleep(0.005)
        process.join(300)
        assert process.exitcode is not None, f"the job hangs\n{run.paths.batch_log.read_text()[-3000:]}"
        return int(process.exitcode)

    def stage(self, kind: str, of: Run, name: str, **changes: dict[str, Any]) -> Run:
        """A finished job that works on a run, as the command line makes it."""
        from hpcft.cli.subject import model_of, taken

        job = _tree(taken(of.config)) | {"kind": kind, "of": str(of.paths.root)}
        job["resources"] = BASE["resources"]
        if kind == "quantize":
            job["variant"] = "ptq"
        for section, values in changes.items():
            job[section] = {**job.get(section, {}), **values}
        job["model"]["name"] = model_of(of)
        return self.work(self._made(name, job))

    def work(self, run: Run) -> Run:
        """Do a run's job in this process, as the worker does it, without what its imports and pictures take."""
        import torch

        from hpcft.runs.create import begin_attempt
        from hpcft.spec.build import build
        from hpcft.spec.layers import yaml_layer
        from hpcft.train.context import Context
        from hpcft.train.ranks import Rank
        from hpcft.train.recorder import Recorder
        from hpcft.train.stop import StopRequest
        from hpcft.worker import KINDS

        job = build([yaml_layer(run.paths.config)]).job
        attempt = begin_attempt(run.paths)
        recorder = Recorder(run.paths, attempt, job.tracking.log_every)
        context = Context(job, run.paths, Rank(0, 0, 1), torch.device("cpu"), attempt, recorder, StopRequest())
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with patch("hpcft.train.finish.draw"):
                getattr(import_module(KINDS[job.kind]), job.kind)(context)
        finally:
            torch.set_num_threads(threads)
            recorder.close()
        return run

    def finished(self, name: str, variant: str, *, pictures: bool = False, **changes: dict[str, Any]) -> Run:
        run = self.make(name, variant, **changes)
        code = self.run(run, pictures=pictures)
        assert code == 0, run.paths.batch_log.read_text()[-3000:]
        return run


def _tree(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, mark, inner = key.partition(".")
        if mark:
            tree.setdefault(section, {})[inner] = value
        else:
            tree[section] = value
    return tree

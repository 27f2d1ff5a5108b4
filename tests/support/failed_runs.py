"""Run directories of runs that ended badly, made from texts alone."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import yaml

from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.run import Run

# A process that is long gone: no scheduler has to be asked.
LOCAL_JOB = "1-1"
STAMP = "2026-11-21 07:31:06,%03d - %s - "


def said(level: str, words: str, ms: int = 0) -> str:
    """A line as the worker logs it."""
    return STAMP % (ms, level) + words


class FailedRun:
    """A run directory that is written piece by piece."""

    def __init__(self, root: Path, job_id: str = LOCAL_JOB, **config: Any) -> None:
        root.mkdir(parents=True)
        job: dict[str, Any] = {"kind": "train", "variant": "lora", "model": {"name": "org/base"}}
        job |= {"data": {"dataset": "pairs.csv"}, "resources": {"nodes": 1, "gpus_per_node": 1, "time": "01:00:00"}}
        for section, values in config.items():
            job[section] = {**job.get(section, {}), **values} if isinstance(values, dict) else values
        (root / "config.yaml").write_text(yaml.safe_dump(job))
        self.scheduler = "local" if "-" in job_id else "slurm"
        with EventLog(root / "client.jsonl") as journal:
            journal.append(
                "intent", run_id=root.name, scheduler=self.scheduler, host=socket.gethostname(),
                job_name=f"{root.name}.{root.name}", submission=1,
            )  # fmt: skip
            journal.append("submitted", job_id=job_id, submission=1)
        self.run = Run(root)
        self.paths = self.run.paths

    def log(self, *lines: str) -> FailedRun:
        """Append to job.log."""
        with self.paths.batch_log.open("a") as log:
            log.writelines(line.rstrip("\n") + "\n" for line in lines)
        return self

    def rank_log(self, rank: int, *lines: str, attempt: int = 1) -> FailedRun:
        """Append to a rank's log."""
        path = self.paths.rank_log(attempt, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.writelines(line + "\n" for line in lines)
        return self

    def events(self, *records: dict[str, Any], attempt: int = 1) -> FailedRun:
        """Append to an attempt's event log."""
        self.paths.attempt(attempt).mkdir(parents=True, exist_ok=True)
        with EventLog(self.paths.events(attempt)) as log:
            for record in records:
                log.append(**record)
        return self

    def status(self, state: str, **fields: Any) -> FailedRun:
        """The heartbeat."""
        beat = {"state": state, "attempt": 1, "step": 0, "total_steps": 0, "loss": None, "message": ""}
        write_json(self.paths.status, beat | {"time": time.time()} | fields)
        return self

    def done(self) -> FailedRun:
        """The end marker."""
        self.paths.done.write_text(json.dumps({"step": 20}))
        return self

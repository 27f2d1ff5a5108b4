"""Runs whose job waits or runs, for tests of what is done to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hpcft.runs.events import read_log
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths

Call = Callable[..., Any]
TRAINING = {"state": "training", "step": 3, "total_steps": 9, "loss": 0.5}
STOPPED = {"state": "stopped", "step": 5, "total_steps": 9, "message": "saved at step 5"}


def begin(paths: RunPaths, fake_slurm: Any, job_id: int = 1, **status: Any) -> None:
    """Let the job of a run run, with a heartbeat."""
    fake_slurm.set_state(job_id, "RUNNING")
    write_json(paths.status, {"attempt": 1, "time": time.time(), **TRAINING, **status})


def until(condition: Callable[[], Any], timeout_s: float = 15) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def noted(paths: RunPaths) -> list[str]:
    """What its journal says was done."""
    return [r["kind"] for r in read_log(paths.client).records if r["kind"] in ("cancelled", "requeued", "submitted")]

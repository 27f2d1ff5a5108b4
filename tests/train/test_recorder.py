"""What rank 0 tells of a job while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcft.runs.create import begin_attempt, make_run_directory
from hpcft.runs.events import read_log
from hpcft.spec.job import Job
from hpcft.train.recorder import Recorder


class Told:
    """Stands for wandb: keeps what it is told."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.points.append({**metrics, "step": step})


def test_e9_wandb_is_told_every_twenty_steps_and_of_the_last_and_the_event_log_of_each(tmp_path: Path) -> None:
    paths = make_run_directory(tmp_path, "told", "told")
    recorder, told = Recorder(paths, begin_attempt(paths), Job().tracking.log_every), Told()
    recorder.tracker = told  # type: ignore[assignment]
    for step in range(1, 46):
        figures = {"loss": 1 / step, "learning_rate": 1e-4, "epoch": step / 45, "seconds": 0.5, "tokens": 64}
        recorder.step(step, 45, figures)
    recorder.close()
    assert told.points == [
        {"train/loss": 1 / step, "train/learning_rate": 1e-4, "epoch": step / 45, "step": step} for step in (20, 40, 45)
    ]
    records = read_log(paths.events(1)).records
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, 46))

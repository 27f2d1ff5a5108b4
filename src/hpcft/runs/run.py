"""Reading a run directory: what was asked, how far it is, what came out. Reads only; never asks Slurm."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from hpcft.errors import DataError, UsageError
from hpcft.runs.events import read_log
from hpcft.runs.files import read_json
from hpcft.runs.paths import RunPaths


class RunState(enum.StrEnum):
    """State of a run, in the words of the task queue that this tool replaces."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


@dataclass(frozen=True)
class Status:
    """The heartbeat that rank 0 writes.

    Attributes:
        state: `starting`, `training`, `validating`, `working` (any other kind of job), `saving`,
            `finishing`, `stopped` (saved, to go on), `failed`.
        attempt: number of the attempt that wrote it.
        step, total_steps: optimizer steps done and planned.
        loss: training loss of the last step.
        message: what it is doing, or why it failed, in a sentence.
        time: seconds since the epoch.
    """

    state: str
    attempt: int
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    message: str = ""
    time: float = 0.0

    @property
    def age_s(self) -> float:
        """Seconds since it was written."""
        return max(0.0, time.time() - self.time)


class Run:
    """One run directory, read.

    Args:
        root: the directory.

    Raises:
        DataError: it is not a run directory.
    """

    def __init__(self, root: Path) -> None:
        self.paths = RunPaths(root.absolute())
        if not self.paths.config.is_file():
            raise DataError("is not a run directory: it has no config.yaml", where=str(root))

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.paths.root.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The job as it was submitted."""
        try:
            config = yaml.safe_load(self.paths.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"is damaged: {error}", where=str(self.paths.config)) from error
        if not isinstance(config, dict):
            raise DataError("is damaged: it holds no mapping", where=str(self.paths.config))
        return config

    def journal(self) -> list[dict[str, Any]]:
        """Records of the submitting side, in order."""
        return read_log(self.paths.client).records

    def _journal_field(self, field: str) -> str | None:
        return next((str(r[field]) for r in reversed(self.journal()) if field in r), None)

    @property
    def id(self) -> str | None:
        """The run's id; the same in wandb and in the job's name."""
        return self._journal_field("run_id")

    @property
    def job_id(self) -> str | None:
        """Slurm's or the local executor's id of the job, when one is known."""
        return self._journal_field("job_id")

    @property
    def cluster(self) -> str | None:
        """Name of the cluster profile that it was submitted with."""
        return self._journal_field("cluster")

    @property
    def status(self) -> Status | None:
        """The last heartbeat."""
        raw = read_json(self.paths.status)
        if not isinstance(raw, dict):
            return None
        known = {k: v for k, v in raw.items() if k in Status.__dataclass_fields__}
        return Status(**known)

    @property
    def end(self) -> dict[str, Any] | None:
        """The end marker, when the run succeeded."""
        end = read_json(self.paths.done)
        return end if isinstance(end, dict) else None

    @property
    def state(self) -> RunState:
        """State by the run directory alone; a job that died without a word still reads as STARTED here."""
        if self.paths.done.is_file():
            return RunState.SUCCESS
        status = self.status
        if status is None:
            return RunState.PENDING
        if status.state == "failed":
            return RunState.FAILURE
        return RunState.PENDING if status.state == "stopped" else RunState.STARTED

    def events(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Events of all attempts, oldest first. A step that a later attempt did again appears once, from the
        attempt that went on from there, so that the curve is the one of the weights that were kept."""
        per_attempt = [(n, read_log(self.paths.events(n)).records) for n in self.paths.attempt_numbers()]
        resumed = {n: int(r.get("resume_step", 0)) for n, rs in per_attempt for r in rs if r["kind"] == "start"}
        for index, (_, records) in enumerate(per_attempt):
            limit = min((resumed.get(n, 0) for n, _ in per_attempt[index + 1 :]), default=None)
            for record in records:
                kept = limit is None or "step" not in record or int(record["step"]) <= limit
                if kept and (kind is None or record["kind"] == kind):
                    yield record

    @property
    def metrics(self) -> dict[str, Any]:
        """Summary metrics, empty before the end."""
        metrics = read_json(self.paths.metrics)
        return metrics if isinstance(metrics, dict) else {}


def list_runs(results: Path) -> list[Run]:
    """All runs in a results folder, by name."""
    if not results.is_dir():
        return []
    return [Run(p) for p in sorted(results.iterdir()) if (p / "config.yaml").is_file()]


def find_run(text: str, results: Path) -> Run:
    """The run that a user means: a path, a directory name, a run id, a job id, or a unique beginning of one.

    Raises:
        UsageError: none or several fit; the message names them.
    """
    direct = Path(text)
    if os.path.isfile(direct / "config.yaml"):  # noqa: PTH113 (says no to a name that is too long, pathlib raises)
        return Run(direct)
    runs = list_runs(results)
    for exact in (True, False):
        found = [
            run
            for run in runs
            for word in (run.name, run.id, run.job_id)
            if word and (word == text if exact else word.startswith(text))
        ]
        found = list(dict.fromkeys(found))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(r.name for r in found[:5])
            raise UsageError(f"'{text}' fits {len(found)} runs: {names}", hint="write more of the name")
    hint = f"the newest in {results}: {runs[-1].name}" if runs else f"there is no run in {results} yet"
    raise UsageError(f"no run called '{text}'", where=str(results), hint=hint)

"""Reading a run directory: what was asked, how far it is, what came out. Reads only; never asks Slurm."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, UsageError
from hpcft.runs.events import read_log
from hpcft.runs.files import read_fields, read_json
from hpcft.runs.paths import RunPaths


class RunState(enum.StrEnum):
    """State of a run, in the words of the task queue that this tool replaces, and three of our own."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    # Everything is saved, and nothing goes on by itself.
    STOPPED = "STOPPED"
    CANCELLED = "CANCELLED"
    # Neither the run nor the scheduler tells now. It says nothing about the run.
    UNKNOWN = "UNKNOWN"

    @property
    def is_over(self) -> bool:
        """Nothing more happens by itself."""
        return self in (RunState.SUCCESS, RunState.FAILURE, RunState.STOPPED, RunState.CANCELLED)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, plain values only.

    Raises:
        OSError: it cannot be read. ValueError: it is no YAML, or no text.
    """
    # Runs of today are listed without it.
    import yaml

    # Written in C where PyYAML has it: ten times as fast, and a list of old runs reads many.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 (a safe loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


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
        peak_vram_gb: the most GPU memory that rank 0 has held; None without a GPU.
    """

    state: str
    attempt: int
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    message: str = ""
    time: float = 0.0
    peak_vram_gb: float | None = None

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
            config = read_yaml(self.paths.config)
        except ValueError as error:
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
        return read_fields(self.paths.status, Status)

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
            # One that was ended before it began to train has done no step again.
            limit = min((resumed[n] for n, _ in per_attempt[index + 1 :] if n in resumed), default=None)
            for record in records:
                kept = limit is None or "step" not in record or int(record["step"]) <= limit
                if kept and (kind is None or record["kind"] == kind):
                    yield record

    @property
    def metrics(self) -> dict[str, Any]:
        """Summary metrics, empty before the end."""
        metrics = read_json(self.paths.metrics)
        return metrics if isinstance(metrics, dict) else {}


def run_folders(results: Path) -> Iterator[Path]:
    """All run directories: `results/<run>/`, and those of pipelines and sweeps, `results/<group>/<run>/`; by name."""
    for folder in _folders(results):
        if os.path.isfile(folder / "config.yaml"):  # noqa: PTH113 (four times as fast, and there are many)
            yield folder
        else:
            yield from (inner for inner in _folders(folder) if os.path.isfile(inner / "config.yaml"))  # noqa: PTH113


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / name for name in sorted(e.name for e in entries if e.is_dir())]
    except OSError:
        # Not there, no folder, or somebody else's.
        return []


def list_runs(results: Path) -> list[Run]:
    """The runs that stand in a folder itself, by name."""
    return [Run(folder) for folder in _folders(results) if (folder / "config.yaml").is_file()]


def find_run(text: str, results: Path) -> Run:
    """The run that a user means: a path, a directory name (`run` or `group/run`), a run id, a job id, or a unique
    beginning of one.

    Raises:
        UsageError: none or several fit; the message names them.
    """
    for direct in (Path(text), results / text):
        if os.path.isfile(direct / "config.yaml"):  # noqa: PTH113 (says no to a too long name, pathlib raises)
            return Run(direct)
    words: dict[Path, set[str]] = {}
    for folder in run_folders(results):
        run = Run(folder)
        journal = run.journal()
        ids = {str(record[field]) for record in journal for field in ("run_id", "job_id") if field in record}
        words[folder] = {run.name, label(folder, results), *ids}
    for exact in (True, False):
        found = [f for f, own in words.items() if any(w == text if exact else w.startswith(text) for w in own)]
        if len(found) == 1:
            return Run(found[0])
        if found:
            names = ", ".join(label(folder, results) for folder in found[:5])
            raise UsageError(f"'{text}' fits {len(found)} runs: {names}", hint="write more of the name")
    there = [label(folder, results) for folder in words]
    hint = f"the last in {results}: {there[-1]}" if there else f"there is no run in {results} yet"
    raise UsageError(f"no run called '{text}'", where=str(results), hint=hint)


def find_runs(texts: Iterable[str], results: Path) -> list[Run]:
    """The runs that a user means, each as with `find_run`; a group's name or folder stands for all of its runs.

    Raises:
        UsageError: as with `find_run`.
    """
    found: dict[Path, Run] = {}
    for text in texts:
        group = group_folder(text, results)
        runs = [Run(folder) for folder in run_folders(group)] if group else [find_run(text, results)]
        found |= {run.paths.root: run for run in runs}
    return list(found.values())


def group_folder(text: str, results: Path) -> Path | None:
    """The folder of a pipeline's or a sweep's runs that a user means, if it is one."""
    for folder in (results / text, Path(text)):
        if folder.absolute() == results.absolute():
            # All there is was hardly meant.
            continue
        if not os.path.isfile(folder / "config.yaml") and os.path.isdir(folder):  # noqa: PTH112, PTH113
            has_runs = any(True for inner in run_folders(folder) if inner.parent == folder)
            if has_runs or (folder / "manifest.jsonl").is_file():
                return folder
    return None


def label(folder: Path, results: Path) -> str:
    """What a run is called here: `run`, `group/run`, or its whole path where it is elsewhere."""
    absolute, base = folder.absolute(), results.absolute()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(folder)

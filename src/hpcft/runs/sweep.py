"""A sweep's folder: `results/<sweep>/` with its manifest, and a run directory for each trial that has started.

Who writes what: the client that submits, `settings`, `job`, `manifest`, `archive` and the journal `client.jsonl`; the
controller of a search, while it runs, `manifest`, `study` and the words to trials; Slurm `logs`; each trial, from
its start on, its own run directory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, UsageError
from hpcft.runs.events import read_log
from hpcft.runs.files import FILE_MODE, explained, is_torn, read_fields, sync_folder, write_all
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run, RunState, group_folder
from hpcft.runs.submission import Submission, submissions

# Of a trial that ended early, on the controller's word.
PRUNED = "PRUNED"


@dataclass(frozen=True)
class SweepPaths:
    """The names of everything in a sweep's folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        """A JSON line for each trial: its number, and the keys in which it differs from the job."""
        return self.root / "manifest.jsonl"

    @property
    def settings(self) -> Path:
        """What the sweep is: id, method, metric, limits, cluster."""
        return self.root / "sweep.json"

    @property
    def job(self) -> Path:
        """The job of all trials, whole but for what they differ in."""
        return self.root / "job.yaml"

    @property
    def archive(self) -> Path:
        """Snapshot of the package for all trials; one file, which Python imports from."""
        return self.root / "code.zip"

    @property
    def logs(self) -> Path:
        """What the trials' batch scripts and ranks print, `<array>_<task>.log`."""
        return self.root / "logs"

    @property
    def study(self) -> Path:
        """The search's own record of its trials."""
        return self.root / "study.log"

    @property
    def controller_log(self) -> Path:
        """What the controller says."""
        return self.root / "controller.log"

    @property
    def controller_lock(self) -> Path:
        """Locked by the controller as long as it runs."""
        return self.root / "controller.lock"

    @property
    def as_run(self) -> RunPaths:
        """The files that a sweep's folder shares with a run's: journal, submissions, script, provenance."""
        return RunPaths(self.root)

    def trial(self, number: int) -> RunPaths:
        """Run directory of a trial."""
        return RunPaths(self.root / trial_name(number))


def trial_name(number: int) -> str:
    """Name of a trial's run directory.

    >>> trial_name(7), trial_name(12345)
    ('0007', '12345')
    """
    return f"{number:04d}"


@dataclass(frozen=True)
class Settings:
    """What a sweep is.

    Attributes:
        id: known to the cluster by it; 10 letters and digits.
        metric, goal: what is best, and whether less or more of it.
        keys: in which the trials differ.
        trials: number of trials; of a search, the most that it makes.
        concurrency: trials at a time; None: as many as the cluster starts.
        controlled: whether a controller proposes trials, ends them early, or runs them one after the other.
        cluster: name or path of the profile.
        spec: the sweep's parameters as the controller needs them; None when all trials are known.
    """

    id: str
    method: str
    metric: str
    goal: str
    keys: list[str]
    trials: int
    seed: int
    concurrency: int | None
    controlled: bool
    cluster: str
    scheduler: str
    spec: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For its file."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A line of the manifest."""

    number: int
    overrides: dict[str, Any]

    @property
    def line(self) -> str:
        """As it stands in the file."""
        return json.dumps({"number": self.number, "overrides": self.overrides}, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Chunk:
    """Trials that were submitted together: an array of Slurm's, or a local trial.

    Attributes:
        offset: number of the array's task 0.
        numbers: of its trials.
    """

    submission: Submission
    offset: int
    numbers: Sequence[int]


class SweepFolder:
    """One sweep, read.

    Raises:
        DataError: it is no sweep's folder.
    """

    def __init__(self, root: Path) -> None:
        self.paths = SweepPaths(root.absolute())
        settings = read_fields(self.paths.settings, Settings)
        if settings is None:
            raise DataError("is not a sweep's folder: it has no sweep.json", where=str(root))
        self.settings = settings

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.paths.root.name

    def trials(self) -> list[Trial]:
        """The trials of the manifest, in order. A line that a killed controller left half is no trial."""
        try:
            text = self.paths.manifest.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines():
            try:
                raw = json.loads(line)
            except ValueError:
                continue
            found.append(Trial(int(raw["number"]), dict(raw["overrides"])))
        return found

    def chunks(self) -> list[Chunk]:
        """What was submitted, oldest first; withdrawn and refused submissions are none."""
        facts = {int(r["submission"]): r for r in read_log(self.paths.as_run.client).records if r["kind"] == "intent"}
        return [
            Chunk(
                submission, int(facts[submission.number]["offset"]), parse_numbers(facts[submission.number]["trials"])
            )
            for submission in submissions(self.paths.as_run)
            if submission.kind not in ("refused", "withdrawn")
        ]

    def append(self, trials: Sequence[Trial]) -> None:
        """Add trials to the manifest, on disk when this returns."""
        with explained(self.paths.manifest, "write the manifest"):
            fd = os.open(self.paths.manifest, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
            try:
                write_all(fd, b"\n" * is_torn(fd) + "".join(t.line for t in trials).encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_folder(self.paths.root)


def parse_numbers(text: str) -> list[int]:
    """Numbers of an array, as sbatch takes them.

    >>> parse_numbers("0-3,7"), number_text([0, 1, 2, 3, 7, 9, 10])
    ([0, 1, 2, 3, 7], '0-3,7,9-10')
    """
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def number_text(numbers: Sequence[int]) -> str:
    """The shortest text of ascending numbers, as sbatch takes them."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def find_sweep(text: str, results: Path) -> SweepFolder:
    """The sweep that a user means: a folder, or its name in the results folder.

    Raises:
        UsageError: there is none of that name.
    """
    folder = group_folder(text, results)
    if folder is None or not SweepPaths(folder).settings.is_file():
        known = sorted(p.parent.name for p in results.glob("*/sweep.json"))
        hint = f"known here: {', '.join(known[:10])}" if known else f"there is no sweep in {results} yet"
        raise UsageError(f"no sweep called '{text[:60]}'", where=str(results), hint=hint)
    return SweepFolder(folder)


def sweep_rows(folder: Path) -> list[dict[str, Any]]:
    """A sweep's trials with how far each one is.

    Returns:
        For each trial: `number`, `run` (its directory's name), `overrides`, `state` (of `RunState`, or PRUNED), `step`,
        `total_steps`, `value` of the metric where it is known, and `message`.

    Raises:
        DataError: it is no sweep's folder.
    """
    sweep = SweepFolder(folder)
    return [_row(sweep, trial) for trial in sweep.trials()]


def _row(sweep: SweepFolder, trial: Trial) -> dict[str, Any]:
    paths = sweep.paths.trial(trial.number)
    row: dict[str, Any] = {"number": trial.number, "run": paths.root.name, "overrides": trial.overrides}
    row |= {"state": str(RunState.PENDING), "step": None, "total_steps": None, "value": None, "message": ""}
    if not paths.config.is_file():
        return row
    run = Run(paths.root)
    status = run.status
    row["state"] = trial_state(run)
    if status is not None:
        row |= {"step": status.step, "total_steps": status.total_steps or None, "message": status.message}
    row["value"] = final_value(run, sweep.settings.metric)
    return row


def trial_state(run: Run) -> str:
    """State of a trial: a run's, or PRUNED when it ended early on the controller's word."""
    status = run.status
    early = status is not None and status.step < status.total_steps and run.paths.end_early.is_file()
    return PRUNED if early and run.state is RunState.SUCCESS else str(run.state)


def final_value(run: Run, metric: str) -> float | None:
    """A finite metric of a finished run; a validation's figure is that of the model that was kept."""
    for name in (metric, metric.replace("validation/", "final/validation_", 1), metric.replace("/loss", "/final_loss")):
        value = run.metrics.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def reported(run: Run, metric: str) -> Iterator[tuple[int, float]]:
    """(1, 2, 3 …, value) of a metric over a run's validations, as far as it is."""
    name = metric.removeprefix("final/").replace("validation_", "validation/", 1)
    name = name if name.startswith("validation/") else f"validation/{name}"
    values = (e["metrics"].get(name) for e in run.events("validation") if int(e.get("step", 0)) > 0)
    yield from enumerate((float(v) for v in values if isinstance(v, int | float)), 1)


def best(rows: Sequence[dict[str, Any]], goal: str) -> dict[str, Any] | None:
    """The trial with the best value; one that ended early only where no other has one."""
    valued = [r for r in rows if r["value"] is not None]
    whole = [r for r in valued if r["state"] != PRUNED] or valued
    return (min if goal == "minimize" else max)(whole, key=lambda r: float(r["value"]), default=None)

"""What a run directory says of itself, read once and cheaply: for a list of many runs, and for the state of one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.runs.events import read_log
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run, Status, read_yaml
from hpcft.runs.submission import Submission, told_by

if TYPE_CHECKING:
    from hpcft.spec.job import Job

# What a list of runs is filtered by. It stands in the intent, since a hundred lines of YAML take a hundred times as
# long to read.
_ABOUT = ("job_kind", "variant", "model", "dataset")


def about(job: Job) -> dict[str, Any]:
    """What the journal's intent says of a job. A record's own kind is another matter."""
    from hpcft.spec.build import flat

    told = {"job_kind": job.kind, "variant": job.variant, "model": job.model.name, "dataset": job.data.dataset}
    return {**told, "config": settings(flat(job))}


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a job that differ from their defaults."""
    standard = _defaults()
    return {key: value for key, value in values.items() if key not in standard or standard[key] != value}


@cache
def _defaults() -> dict[str, Any]:
    # Who lists runs needs neither, and they take a tenth of a second.
    from hpcft.spec.build import flat
    from hpcft.spec.job import Job

    return flat(Job())


def job_of(run: Run) -> dict[str, Any]:
    """A run's job, whole: by its journal, which is read fast; by its config.yaml where the journal does not have it.

    Raises:
        DataError: the config.yaml is needed, and damaged.
    """
    told = Record(run.paths.root, run.journal()).intent.get("config")
    return nested(told) if isinstance(told, dict) else run.config


def nested(told: Mapping[str, Any]) -> dict[str, Any]:
    """A job by the keys of it that differ from their defaults."""
    job = {name: dict(value) if isinstance(value, dict) else value for name, value in _default_job().items()}
    return _put(job, told)


@cache
def _default_job() -> dict[str, Any]:
    return _put({}, _defaults())


def _put(job: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        section, mark, inner = key.partition(".")
        if mark:
            job.setdefault(section, {})[inner] = value
        else:
            job[key] = value
    return job


@dataclass(frozen=True)
class Record:
    """A run directory at one moment.

    Attributes:
        root: the directory.
        journal: records of the submitting side.
        done: the end marker is there.
        status: the last heartbeat.
        pulse: when its process last touched its pulse, in seconds since the epoch, while it lives.
    """

    root: Path
    journal: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    status: Status | None = None
    pulse: float | None = None

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.root.name

    @cached_property
    def _last(self) -> tuple[Submission | None, list[dict[str, Any]], dict[str, Any]]:
        """The last submission, the journal's records from it on, and its intent: found at once, as lists need all."""
        found = told_by(self.journal)
        if len(found) < 2:
            last = found[0] if found else None
        else:
            last = ([s for s in found if s.kind not in ("refused", "withdrawn")] or found)[-1]
        number = last.number if last else 1
        own = self.journal
        while own and own[0].get("submission", 1) != number:
            own = own[1:]
        own = own or self.journal
        for record in own:
            if record["kind"] == "intent":
                return last, own, record
        return last, own, {}

    @property
    def submission(self) -> Submission | None:
        """The last submission that was not refused or given up, if there is one; else the last."""
        return self._last[0]

    @property
    def _of_submission(self) -> list[dict[str, Any]]:
        """The journal's records from the last submission on."""
        return self._last[1]

    @property
    def intent(self) -> dict[str, Any]:
        """The record that the last submission began with; empty when there is none."""
        return self._last[2]

    @property
    def run_id(self) -> str | None:
        """The run's id."""
        return str(self.intent["run_id"]) if "run_id" in self.intent else None

    @property
    def key(self) -> str:
        """What the last submission's job is found by: its job's name ends with it."""
        return str(self.intent.get("job_name", "")).rpartition(".")[2]

    @property
    def job_id(self) -> str | None:
        """The last submission's job, when it is known."""
        return self.submission.job_id if self.submission else None

    @property
    def cluster(self) -> str | None:
        """Name of the cluster profile."""
        return str(self.intent["cluster"]) if "cluster" in self.intent else None

    @property
    def in_allocation(self) -> bool:
        """Its job is a script inside an allocation that somebody waits at."""
        return any("allocation" in r for r in self._of_submission)

    @property
    def is_process(self) -> bool:
        """Its job is a process of one machine: a local one, or one inside an allocation."""
        return self.in_allocation or (self.submission is not None and self.submission.scheduler == "local")

    @property
    def created(self) -> float:
        """When it was first submitted, in seconds since the epoch."""
        if self.journal:
            return float(self.journal[0]["t"])
        try:
            return (self.root / "config.yaml").stat().st_mtime
        except OSError:
            return 0.0

    @cached_property
    def cancelled(self) -> dict[str, Any] | None:
        """The journal's record that the last submission was cancelled, with `by` and `t`; None when it was not, or
        was queued again since."""
        steered = [r for r in self._of_submission if r["kind"] in ("cancelled", "requeued")]
        return steered[-1] if steered and steered[-1]["kind"] == "cancelled" else None

    @property
    def heartbeat(self) -> Status | None:
        """The heartbeat, unless it is of a submission before the last one."""
        status, earlier = self.status, self.intent.get("after_attempt")
        if status is None or earlier is None:
            return status
        # One that failed before it had a number has none.
        old = status.attempt <= int(earlier) if status.attempt else status.time < float(self.intent["t"])
        return None if old else status

    @property
    def alive_at(self) -> float | None:
        """The last sign of life."""
        signs = [self.pulse, self.heartbeat.time if self.heartbeat else None]
        return max((sign for sign in signs if sign), default=None)

    @cached_property
    def about(self) -> dict[str, str]:
        """`job_kind`, `variant`, `model` and `dataset` of its job, as far as they can be read."""
        told = self.intent
        if "variant" in told:
            return {name: str(told.get(name, "")) for name in _ABOUT}
        try:
            config = read_yaml(self.root / "config.yaml")
        except (OSError, ValueError):
            return {}
        if not isinstance(config, dict):
            return {}
        inner = {name: config.get(name) for name in ("model", "data")}
        model, data = (value if isinstance(value, dict) else {} for value in inner.values())
        found = {"job_kind": config.get("kind", "train"), "variant": config.get("variant")}
        found |= {"model": model.get("name"), "dataset": data.get("dataset")}
        return {name: str(value) for name, value in found.items() if value is not None}


def read_record(root: Path) -> Record:
    """Read a run directory. What is damaged counts as not there: a list goes on, `hpcft show` tells."""
    paths = RunPaths(root)
    # Before the marker: a run that finishes meanwhile is then seen as finished.
    try:
        journal = read_log(paths.client).records
    except OSError:
        # Somebody else's.
        journal = []
    status = _status(paths.status)
    done = os.path.isfile(paths.done)  # noqa: PTH113 (a list does it ten thousand times)
    pulse = None
    if status is not None and not done:
        try:
            pulse = os.stat(paths.pulse(status.attempt)).st_mtime  # noqa: PTH116
        except OSError:
            # It has ended by itself, or has none.
            pulse = None
    return Record(root, journal, done, status, pulse)


def _status(path: Path) -> Status | None:
    try:
        return parse_status(path.read_bytes())
    except OSError:
        return None


_OF_STATUS = frozenset(Status.__dataclass_fields__)


def parse_status(content: bytes) -> Status | None:
    """The heartbeat that a file holds; None where it is none."""
    try:
        return Status(**{k: v for k, v in json.loads(content.decode()).items() if k in _OF_STATUS})
    except (ValueError, TypeError, AttributeError):
        return None

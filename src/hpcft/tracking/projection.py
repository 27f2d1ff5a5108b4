"""What wandb should have of a run, by the run's own record: the same points and figures that the tracker was given
while it ran, of the attempts that were kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.runs.events import read_log
from hpcft.runs.run import Run
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import yaml_layer
from hpcft.tracking.config import model_metadata, wandb_settings
from hpcft.tracking.names import is_point, step_point
from hpcft.tracking.offline import find_offline_runs

# Event logs are JSON, which has no numbers for these.
_NOT_FINITE = {word: float(word) for word in ("nan", "inf", "-inf")}


@dataclass(frozen=True)
class Model:
    """A model folder, and the name and metadata of its artifact."""

    folder: Path
    name: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Projection:
    """What wandb should have of a run.

    Attributes:
        settings: arguments of `wandb.init`.
        began: when the run began, in seconds since the epoch.
        points: in their order, each with `step` and with wandb's own `_timestamp` and `_runtime`, in seconds.
        waiting: further points of a run that goes on; a next attempt may still do their steps again.
        summary: final values, and the last ones of what the points have.
        model: what becomes an artifact, when the run has succeeded.
        exit_code: None while the run can go on.
    """

    settings: dict[str, Any]
    began: float
    points: list[dict[str, Any]]
    waiting: int
    summary: dict[str, Any]
    model: Model | None
    exit_code: int | None


def wandb_id(run: Run) -> str:
    """The id that wandb knows a run by: its own, or the one that a W&B agent imposed on it."""
    recorded = list(find_offline_runs(run.paths.wandb))
    return recorded[-1] if len(recorded) == 1 else run.id or run.name


def project(run: Run, *, ended: bool) -> Projection:
    """Read a run's record.

    Args:
        run: the run.
        ended: whether no attempt can come any more. Of a run that can go on, the points behind its last checkpoint
            are left out: the next attempt would do their steps again, and wandb takes nothing back.

    Raises:
        ConfigError, DataError: the run's configuration is damaged.
    """
    job = build([yaml_layer(run.paths.config)]).job
    events = list(run.events())
    kept = max((int(e["step"]) for e in events if e["kind"] == "checkpoint"), default=0)
    began = min((float(e["t"]) for e in events), default=0.0)
    status = run.status
    total = 0 if status is None else status.total_steps
    points: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    waiting = 0
    for event in events:
        values = _values(event, job.tracking.log_every, total)
        if values is None:
            continue
        if event["kind"] == "summary":
            summary |= values
        elif not ended and int(event["step"]) > kept:
            waiting += 1
        else:
            values["step"] = int(event["step"])
            summary |= values
            points.append({**values, "_timestamp": float(event["t"]), "_runtime": round(float(event["t"]) - began, 3)})
    succeeded = run.end is not None
    world_size = next((int(e["world_size"]) for e in events if e["kind"] == "start"), job.world_size)
    return Projection(
        settings=wandb_settings(job, wandb_id(run), world_size),
        began=began,
        points=points,
        waiting=waiting,
        summary=summary,
        model=_model(run, job) if succeeded else None,
        exit_code=(0 if succeeded else _exit_code(events)) if ended else None,
    )


def identity(point: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
    """What tells a point from the others: its step, and what it has figures of."""
    return point.get("step"), frozenset(key for key in point if not key.startswith("_"))


def fingerprint(points: Sequence[Mapping[str, Any]]) -> str:
    """A checksum of points and their order."""
    said = json.dumps([(step, sorted(keys)) for step, keys in map(identity, points)])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they compare on both sides of a server: without wandb's own, and words for what is no number."""
    return {k: _word(v) for k, v in values.items() if not k.startswith("_") and v is not None}


def _word(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        value = str(value)
    if isinstance(value, str) and value.lower().replace("infinity", "inf") in _NOT_FINITE:
        return value.lower().replace("infinity", "inf")
    return [_word(v) for v in value] if isinstance(value, list | tuple) else value


def _exit_code(events: Iterable[Mapping[str, Any]]) -> int:
    """What the last failure said; wandb shows a run with another one than 0 as failed."""
    return [1, *(int(e.get("code") or 1) for e in events if e["kind"] == "failed")][-1]


def _values(event: Mapping[str, Any], log_every: int, total_steps: int) -> dict[str, Any] | None:
    """The figures of an event, by the names that wandb is told; None when wandb is told nothing of it."""
    if event["kind"] == "step":
        step = int(event["step"])
        return _numbers(step_point(event)) if is_point(step, log_every, total_steps) else None
    metrics = event.get("metrics")
    known = isinstance(metrics, dict) and (event["kind"] == "summary" or "step" in event)
    return _numbers(metrics) if known and isinstance(metrics, dict) else None


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _NOT_FINITE.get(v, v) if isinstance(v, str) else v for k, v in values.items() if v is not None}


def _model(run: Run, job: Job) -> Model | None:
    folder = run.paths.final_model
    if not job.tracking.log_model or not folder.is_dir():
        return None
    return Model(folder, *model_metadata(job, run.name))


def is_tracked(run: Run) -> bool:
    """Whether the run was to be in wandb at all."""
    told = list(run.events("tracking"))
    if told:
        return told[-1].get("mode") != "disabled"
    asked = run.config.get("tracking")
    return not (isinstance(asked, dict) and asked.get("mode") == "disabled")


def sends_itself(run: Run) -> bool:
    """Whether the run's newest attempt talks to wandb's server itself and has not said that it has ended."""
    recorded = find_offline_runs(run.paths.wandb)
    newest = max((path.parent for paths in recorded.values() for path in paths), key=_stamp, default=None)
    if newest is None or newest.name.startswith("offline-"):
        return False
    attempts = run.paths.attempt_numbers()
    return not any(e["kind"] == "tracking" for e in read_log(run.paths.events(attempts[-1])).records if attempts)


def _stamp(folder: Path) -> str:
    return folder.name.removeprefix("offline-")

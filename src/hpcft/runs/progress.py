"""How fast a run goes, and how its attempts went: from the beginnings and ends of its event logs, however long."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.runs.attempt import holder_of
from hpcft.runs.events import decode
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import Record

# Some dozens of records.
_TAIL_BYTES = 16 * 1024
_HEAD_BYTES = 64 * 1024
# Steps that the present rate is taken over.
_STEPS = 20
_ENDINGS = ("end", "stopped", "failed")


@dataclass(frozen=True)
class Progress:
    """What a run does now.

    Attributes:
        step, total_steps: optimizer steps done and planned, None before the first.
        loss: training loss of the last step.
        steps_per_s, tokens_per_s: over the last steps.
        left_s: seconds that the steps to come take at that rate.
        peak_vram_gb: the most GPU memory that rank 0 has held, None without a GPU.
    """

    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    steps_per_s: float | None = None
    tokens_per_s: float | None = None
    left_s: float | None = None
    peak_vram_gb: float | None = None


@dataclass(frozen=True)
class AttemptSummary:
    """How one attempt went.

    Attributes:
        number: 1 for the first.
        start, last: when its process began and of its last record, in seconds since the epoch; None without a record.
            Where the process does not say when it began, `start` is the time of the first record.
        resume_step: the step that it went on from.
        step: the last step that it did; None when it did none.
        ending: `end`, `stopped` or `failed`; empty while it runs, and of one that was killed.
        reason: the signal that stopped it, or why it failed.
    """

    number: int
    start: float | None = None
    last: float | None = None
    resume_step: int = 0
    step: int | None = None
    ending: str = ""
    reason: str = ""


def read_progress(record: Record) -> Progress:
    """What a run does now, as far as it says; empty before its first step."""
    status = record.heartbeat
    if status is None or not status.total_steps:
        return Progress(peak_vram_gb=status.peak_vram_gb if status else None)
    steps = [r for r in _tail(RunPaths(record.root).events(status.attempt)) if r["kind"] == "step"][-_STEPS:]
    seconds = sum(float(r.get("seconds", 0.0)) for r in steps)
    rate = len(steps) / seconds if seconds > 0 else None
    tokens = sum(float(r.get("tokens", 0.0)) for r in steps) / seconds if seconds > 0 else None
    left = (status.total_steps - status.step) / rate if rate else None
    return Progress(status.step, status.total_steps, status.loss, rate, tokens, left, status.peak_vram_gb)


def read_attempts(root: Path) -> list[AttemptSummary]:
    """The attempts of a run, oldest first."""
    paths = RunPaths(root)
    return [_summary(paths, number) for number in paths.attempt_numbers()]


def _summary(paths: RunPaths, number: int) -> AttemptSummary:
    first, last = _head(paths.events(number)), _tail(paths.events(number))
    if not first or not last:
        return AttemptSummary(number)
    holder = holder_of(paths, number)
    began: dict[str, Any] = next((r for r in first if r["kind"] == "start"), {})
    ended: dict[str, Any] = next((r for r in reversed(last) if r["kind"] in _ENDINGS), {})
    steps = [int(r["step"]) for r in last if r["kind"] in ("step", "checkpoint", "stopped", "end") and "step" in r]
    return AttemptSummary(
        number,
        # One that fails while it loads has written nothing before it says so.
        min(float(first[0]["t"]), holder.began if holder is not None else math.inf),
        float(last[-1]["t"]),
        int(began.get("resume_step", 0)),
        steps[-1] if steps else None,
        str(ended.get("kind", "")),
        str(ended.get("signal") or ended.get("reason") or ""),
    )


def _head(path: Path) -> list[dict[str, Any]]:
    return _records(path, 0, _HEAD_BYTES)


def _tail(path: Path) -> list[dict[str, Any]]:
    try:
        size = path.stat().st_size
    except OSError:
        return []
    return _records(path, max(0, size - _TAIL_BYTES), _TAIL_BYTES)


def _records(path: Path, offset: int, length: int) -> list[dict[str, Any]]:
    """The whole records in a part of a log; the first and the last line of it may be torn, and count not."""
    try:
        with path.open("rb") as file:
            file.seek(offset, os.SEEK_SET)
            lines = file.read(length).split(b"\n")
    except OSError:
        return []
    return [record for line in lines if (record := decode(line)) is not None]

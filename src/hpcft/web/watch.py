"""Looking at runs for those who follow them: one look a second at each run, however many streams show it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread

from hpcft.cli.follow import Lost
from hpcft.cli.view import facts, progress_facts, progress_of
from hpcft.cluster.poll import Poll
from hpcft.cluster.state import stand
from hpcft.report.curves import thin
from hpcft.runs.events import read_log
from hpcft.runs.logs import LogReader
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import read_record

_LOOK_S = 1.0
# What one who comes is told of the past.
_POINTS = 1000
_LINES = 200
# Events that a stream may be behind; its client then asks anew.
_BEHIND = 100
# Threads that look. They are not those that answer requests, which Slurm would hold up when it does not answer.
_THREADS = 4
# What changes with every look, and tells nothing by itself.
_CLOCKS = ("asked", "alive")

Point = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """What a stream tells.

    Attributes:
        kind: `state`, `points`, `log` or `end`.
        data: facts of the run; points of its curves; lines; the state at the end.
    """

    kind: str
    data: Any


class _Eye:
    """Reads what has come since the last look; a thread at a time."""

    def __init__(self, root: Path, results: Path) -> None:
        self._paths, self._results = RunPaths(root), results
        self._poll, self._lost = Poll(), Lost()
        self._logs = LogReader(self._paths, of_ranks=False)
        self._at: dict[int, int] = {}
        self._told: dict[str, Any] = {}
        self._has_looked = False

    def look(self) -> list[Event]:
        """What is new; the last event is `end` when the run is over."""
        # Before the rest, which is then whole when the run is over.
        standing = stand([read_record(self._paths.root)], self._poll)[0]
        is_over = standing.state.is_over or self._lost.sees(standing)
        told = facts(standing, self._results) | progress_facts(progress_of(standing))
        found = []
        if self._differs(told):
            found.append(Event("state", told))
        if points := shorter(self._points()):
            found.append(Event("points", points))
        if lines := self._lines(is_over):
            found.append(Event("log", lines))
        return [*found, Event("end", {"state": str(standing.state), "words": standing.words})] if is_over else found

    def _differs(self, told: dict[str, Any]) -> bool:
        before, self._told = self._told, told
        return any(before.get(key) != value for key, value in told.items() if key not in _CLOCKS) or not before

    def _points(self) -> list[Point]:
        points: list[Point] = []
        for number in self._paths.attempt_numbers():
            # An attempt is not written to any more when there is a later one.
            if number >= max(self._at, default=0):
                log = read_log(self._paths.events(number), self._at.get(number, 0))
                self._at[number] = log.end
                add(points, (point for record in log.records if (point := _point(record))))
        return points

    def _lines(self, is_over: bool) -> list[str]:
        if self._has_looked:
            lines = [line for _, new in self._logs.news() for line in new]
        else:
            lines, _ = self._logs.last(_LINES)
        self._has_looked = True
        return [*lines, *self._logs.rest()] if is_over else lines


def _point(record: dict[str, Any]) -> Point | None:
    """The figures of a step or a validation; None where a record is of something else."""
    if record["kind"] == "step":
        figures = {key: value for key, value in record.items() if key not in ("seq", "t", "kind")}
    elif record["kind"] == "validation":
        figures = {"step": record.get("step"), **record.get("metrics", {})}
    else:
        return None
    numbers: Point = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    if record["kind"] == "step":
        # One that is no number is a gap in the curve.
        numbers.setdefault("loss", None)
    return numbers if "step" in numbers else None


def add(points: list[Point], new: Iterable[Point]) -> None:
    """Add points to a curve. A step takes the place of all from there on: a later attempt does them again."""
    for point in new:
        while "loss" in point and points and points[-1]["step"] >= point["step"]:
            points.pop()
        points.append(point)


def shorter(points: list[Point], most: int = _POINTS) -> list[Point]:
    """So many points at the most, in which no spike of the loss is lost; validations stay as long as they are few."""
    if len(points) <= most:
        return points
    steps = [(float(i), float(point["loss"] or 0)) for i, point in enumerate(points) if "loss" in point]
    others = [i for i, point in enumerate(points) if "loss" not in point]
    kept = {int(i) for i, _ in thin(steps, most // 2)} | set(others[:: 1 + 2 * len(others) // most])
    return [points[i] for i in sorted(kept)]


@dataclass
class _Watch:
    """A run that somebody follows.

    Attributes:
        state, points, lines: what one who comes is told first.
        followers: those who wait for more; None in a queue ends it.
    """

    eye: _Eye
    limiter: CapacityLimiter
    state: Event | None = None
    points: list[Point] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    end: Event | None = None
    followers: set[asyncio.Queue[Event | None]] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    def join(self) -> asyncio.Queue[Event | None]:
        """One more follower, with the past."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_BEHIND)
        points = Event("points", list(shorter(self.points))) if self.points else None
        lines = Event("log", list(self.lines)) if self.lines else None
        for event in (self.state, points, lines, self.end):
            if event is not None:
                queue.put_nowait(event)
        self.followers.add(queue)
        if self.task is None:
            self.task = asyncio.create_task(self._run())
        elif self.task.done():
            queue.put_nowait(None)
        return queue

    async def _run(self) -> None:
        try:
            while self.end is None:
                for event in await to_thread.run_sync(self.eye.look, limiter=self.limiter):
                    self._keep(event)
                    for queue in list(self.followers):
                        self._tell(queue, event)
                if self.end is None:
                    await asyncio.sleep(_LOOK_S)
        finally:
            for queue in list(self.followers):
                self._tell(queue, None)

    def _keep(self, event: Event) -> None:
        match event.kind:
            case "state":
                self.state = event
            case "points":
                add(self.points, event.data)
                if len(self.points) > 2 * _POINTS:
                    self.points = shorter(self.points)
            case "log":
                self.lines.extend(event.data)
            case "end":
                self.end = event

    def _tell(self, queue: asyncio.Queue[Event | None], event: Event | None) -> None:
        try:
            queue.put_nowait(event)
        except asyncio.QueueFull:
            # Its client does not read; when it does, it asks anew.
            self.followers.discard(queue)
            queue.get_nowait()
            queue.put_nowait(None)


class Watches:
    """The runs that somebody follows.

    Args:
        results: folder of the run directories.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._of: dict[Path, _Watch] = {}
        self._limiter = CapacityLimiter(_THREADS)

    def __len__(self) -> int:
        return len(self._of)

    async def follow(self, root: Path) -> AsyncGenerator[Event, None]:
        """Everything that is known of a run, and what comes until it is over."""
        watch = self._of.get(root)
        if watch is None:
            watch = self._of[root] = _Watch(_Eye(root, self._results), self._limiter)
        queue = watch.join()
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            watch.followers.discard(queue)
            if not watch.followers and self._of.get(root) is watch:
                del self._of[root]
                if watch.task is not None:
                    watch.task.cancel()

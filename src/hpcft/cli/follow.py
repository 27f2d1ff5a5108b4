"""Following a run to its end: a progress bar on a terminal, lines elsewhere; Slurm is asked rarely."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpcft.cli.output import say, table
from hpcft.cluster.queue import JobState, QueueInfo
from hpcft.errors import HpcftError, TryAgainError
from hpcft.report.summary import file_rows, result_rows
from hpcft.runs.run import Run, RunState, Status

if TYPE_CHECKING:
    from rich.progress import Progress

_LOOK_S = 0.5
# Seconds between two questions to the scheduler: quick while a young job may be refused, then rare.
_ASK_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# A job that has left the queue may still be writing its last words.
_GRACE_S = 10.0
# A job that Slurm does not know any more and that says nothing itself is taken for lost after this.
_FORGOTTEN_S = 300.0


class _Screen(Protocol):
    def show(self, status: Status | None, queue: QueueInfo | None) -> None: ...


class _Bar:
    """A progress bar on stderr."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("waiting", total=None, loss="")

    def show(self, status: Status | None, queue: QueueInfo | None) -> None:
        text, loss = (
            _words(status, queue),
            "" if status is None or status.loss is None else f"loss {status.loss:.4f}",
        )
        total = status.total_steps or None if status else None
        done = status.step if status else 0
        self._progress.update(self._task, description=text[:60], total=total, completed=done, loss=loss)


class _Lines:
    """A line on stderr at each change, and every ten seconds of training."""

    def __init__(self) -> None:
        self._last = ""
        self._at = 0.0

    def show(self, status: Status | None, queue: QueueInfo | None) -> None:
        text = _words(status, queue)
        now = time.monotonic()
        if text == self._last and not (status and status.state == "training" and now - self._at >= 10):
            return
        self._last, self._at = text, now
        if status is not None and status.total_steps:
            text += f": step {status.step} of {status.total_steps}"
            text += "" if status.loss is None else f", loss {status.loss:.4f}"
        say(text)


def _words(status: Status | None, queue: QueueInfo | None) -> str:
    if status is None:
        if queue is None:
            return "waiting for the job to start"
        reason = f" ({queue.reason})" if queue.reason and queue.reason != "None" else ""
        return f"{queue.state.value.lower()}{reason}"
    again = f" (attempt {status.attempt})" if status.attempt > 1 else ""
    return f"{status.message if status.state == 'starting' and status.message else status.state}{again}"


@contextmanager
def _screen() -> Iterator[_Screen]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    with bar:
        yield _Bar(bar)


def follow(run: Run, ask: Callable[[], QueueInfo | None]) -> RunState:
    """Wait until a run has ended.

    Args:
        run: the run.
        ask: what the scheduler says of its job now; None when it does not know.

    Returns:
        SUCCESS when the end marker is there, FAILURE when the run failed or its job is gone without it.
    """
    turn, next_ask, gone_since, began = 0, 0.0, None, time.monotonic()
    queue: QueueInfo | None = None
    with _screen() as screen:
        while True:
            state = run.state
            status = run.status
            if state is RunState.SUCCESS:
                return state
            now = time.monotonic()
            if now >= next_ask or (state is RunState.FAILURE and gone_since is None):
                queue = ask()
                next_ask = now + _ASK_S[min(turn, len(_ASK_S) - 1)]
                turn += 1
            screen.show(status, queue)
            over = queue is not None and (queue.is_final or _forgotten(queue, status, now - began))
            gone_since = (gone_since or now) if over else None
            if over and (state is RunState.FAILURE or now - (gone_since or now) >= _GRACE_S):
                return RunState.SUCCESS if run.state is RunState.SUCCESS else RunState.FAILURE
            time.sleep(_LOOK_S)


def _forgotten(queue: QueueInfo, status: Status | None, waited_s: float) -> bool:
    """Neither squeue nor sacct knows the job, and its heartbeat has stopped as well."""
    silent = waited_s if status is None else min(status.age_s, waited_s)
    return queue.state is JobState.UNKNOWN and silent > _FORGOTTEN_S


def report(run: Run) -> None:
    """Print what a finished run came to."""
    table("scores and costs", result_rows(run))
    table("files", file_rows(run))


def failure(run: Run, queue: QueueInfo | None) -> HpcftError:
    """Why a run did not finish, in the words that are known, and where to read on."""
    status = run.status
    if status is not None and status.state == "stopped":
        again = f"{sys.executable} -m hpcft.worker {run.paths.root}"
        return TryAgainError(f"{run.name}: {status.message}", hint=f"go on here with: {again}")
    if status is not None and status.state == "failed" and status.message:
        reason = status.message
    elif queue is not None:
        reason = f"the job ended as {queue.state.value} without finishing the run"
    else:
        reason = "the job is gone without finishing the run"
    log = run.paths.batch_log
    tail = _tail(log)
    hint = f"log: {log}" + (f"\n  its last lines:\n{tail}" if tail else "")
    return HpcftError(f"{run.name} failed: {reason}", hint=hint)


def _tail(path: Path, lines: int = 5) -> str:
    try:
        text = path.read_bytes()[-4096:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])

"""Following a run to its end: a progress bar on a terminal, lines elsewhere; Slurm is asked rarely."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpcft.cli.output import say, table
from hpcft.cli.view import loss_text
from hpcft.cluster.poll import Poll
from hpcft.cluster.state import Standing, stand
from hpcft.errors import HpcftError, TryAgainError
from hpcft.report.summary import file_rows, result_rows
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, RunState, label

if TYPE_CHECKING:
    from rich.progress import Progress

_LOOK_S = 0.5
_LOST_S = 300.0


class Lost:
    """Whether a run's job has left the queue, and nobody has told of it for five minutes: accounting may be far
    behind."""

    def __init__(self) -> None:
        self._since: float | None = None

    def sees(self, standing: Standing) -> bool:
        """Whether it is lost, as of this look, one of several."""
        gone = standing.state is RunState.UNKNOWN and (standing.queue is None or standing.queue.answered)
        now = time.monotonic()
        self._since = (now if self._since is None else self._since) if gone else None
        return self._since is not None and now - self._since >= _LOST_S


class _Screen(Protocol):
    def show(self, standing: Standing) -> None: ...


class _Bar:
    """A progress bar on stderr."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("waiting", total=None, loss="")

    def show(self, standing: Standing) -> None:
        status = standing.record.heartbeat
        loss = f"loss {text}" if (text := loss_text(standing)) else ""
        total = status.total_steps or None if status else None
        done = status.step if status else 0
        self._progress.update(self._task, description=_words(standing)[:60], total=total, completed=done, loss=loss)


class _Lines:
    """A line on stderr at each change, and every ten seconds of training."""

    def __init__(self) -> None:
        self._last = ""
        self._at = 0.0

    def show(self, standing: Standing) -> None:
        text, status = _words(standing), standing.record.heartbeat
        now = time.monotonic()
        if text == self._last and not (status and status.state == "training" and now - self._at >= 10):
            return
        self._last, self._at = text, now
        if status is not None and status.total_steps:
            text += f": step {status.step} of {status.total_steps}"
            text += f", loss {loss}" if (loss := loss_text(standing)) else ""
        say(text)


def _words(standing: Standing) -> str:
    if standing.state is RunState.STARTED:
        return standing.words
    return f"{standing.state.lower()}: {standing.words}"


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


def follow(run: Run) -> Standing:
    """Wait until a run is over.

    Returns:
        Its state; UNKNOWN when its job has left the queue and nobody has told of it for five minutes.
    """
    poll, lost = Poll(), Lost()
    with _screen() as screen:
        while True:
            standing = stand([read_record(run.paths.root)], poll)[0]
            if standing.state.is_over or lost.sees(standing):
                return standing
            screen.show(standing)
            time.sleep(_LOOK_S)


def report(run: Run) -> None:
    """Print what a finished run came to."""
    table("scores and costs", result_rows(run))
    table("files", file_rows(run))


def failure(run: Run, standing: Standing) -> HpcftError:
    """Why a run did not finish, in the words that are known, and where to read on."""
    resume = f"go on with: hpcft resume {label(run.paths.root, Path('results'))}"
    if standing.state is RunState.STOPPED:
        return TryAgainError(f"{run.name}: {standing.words}", hint=resume)
    if standing.state is RunState.CANCELLED:
        return HpcftError(f"{run.name}: {standing.words}", hint=resume)
    from hpcft.cluster.explain import Cause, verdict_of

    verdict = verdict_of(run, standing.queue)
    log = run.paths.batch_log
    tail = _tail(log)
    hint = "" if verdict.cause is Cause.UNKNOWN else "\n  ".join([*verdict.lines(), ""])
    hint += f"log: {log}" + (f"\n  its last lines:\n{tail}" if tail else "")
    did = "failed" if standing.state is RunState.FAILURE else "is lost"
    return HpcftError(f"{run.name} {did}: {standing.words}", hint=hint)


def _tail(path: Path, lines: int = 5) -> str:
    try:
        text = path.read_bytes()[-4096:].decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])

"""`hpcft logs RUN`: what a run has printed, of all ranks or one, of this attempt or a past one, and what comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import say
from hpcft.cli.texts import ending
from hpcft.display.room import shown_in
from hpcft.errors import UsageError
from hpcft.runs.logs import LogReader
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, find_run

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_LOOK_S = 0.5


@app.command(
    epilog=ending(
        ["hpcft logs", "hpcft logs first -f", "hpcft logs first --rank 3 --attempt 1 -n 0"],
        {0: "printed; with -f: the run is over, or lost", 2: "no such run, attempt or rank", 130: "no longer followed"},
    )
)
def logs(
    run: str = typer.Argument(
        None,
        metavar="[RUN]",
        help="Directory, name, run id, job id, or a unique beginning of one; else the newest run.",
        autocompletion=runs,
    ),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on printing until the run is over."),
    rank: int | None = typer.Option(None, "--rank", min=0, help="The log of this rank alone."),
    all_ranks: bool = typer.Option(False, "--all-ranks", help="The logs of all ranks, each line with its rank."),
    attempt: int | None = typer.Option(None, "--attempt", min=1, help="Of this attempt; else of the newest."),
    lines: int = typer.Option(100, "--lines", "-n", min=0, help="So many last lines of each log, 0 for all."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
) -> None:
    """Print a run's output: what the batch script and its ranks said, or the logs of ranks."""
    if rank is not None and all_ranks:
        raise UsageError("--rank and --all-ranks exclude each other", where="--rank")
    if follow and attempt is not None:
        raise UsageError("-f and --attempt exclude each other: the newest attempt is followed", where="--attempt")
    found = find_run(run, results) if run is not None else _newest(results)
    reader = reader_of(found, attempt, rank, all_ranks=all_ranks)
    if not follow:
        check_rank(found, rank, reader)
    last, left_out = reader.last(lines)
    if left_out:
        say("earlier lines are left out; all of them: -n 0")
    _print(last)
    if follow:
        try:
            _follow(found, reader)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    elif not last:
        say(f"no output yet: {_state_words(found)}")


def reader_of(run: Run, attempt: int | None, rank: int | None, *, all_ranks: bool = False) -> LogReader:
    """The logs that are asked for: the job's own; with a rank, an attempt or all ranks those of ranks.

    Raises:
        UsageError: it has no such attempt.
    """
    if attempt is not None and not run.paths.attempt(attempt).is_dir():
        there = ", ".join(str(n) for n in run.paths.attempt_numbers()) or "none"
        raise UsageError(f"{run.name} has no attempt {attempt}", where="--attempt", hint=f"attempts: {there}")
    of_ranks = all_ranks or rank is not None or attempt is not None
    return LogReader(run.paths, attempt, rank if rank is not None or all_ranks else 0, of_ranks=of_ranks)


def check_rank(run: Run, rank: int | None, reader: LogReader) -> None:
    """Refuse a rank that has written nothing.

    Raises:
        UsageError: with those that have.
    """
    if rank is not None and not reader.files():
        raise UsageError(f"{run.name} has no log of rank {rank}", where="--rank", hint=_ranks(run))


def _newest(results: Path) -> Run:
    """The run that was submitted last."""
    from hpcft.runs.index.query import Index, Query

    with Index(results) as index:
        rows = index.find(Query(limit=1)).rows
    if not rows:
        raise UsageError(f"there is no run in {results} yet", where="RUN")
    say(f"the newest run: {rows[0]['run']}")
    return Run(results / rows[0]["run"])


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        # The boxes of a distillation, and what models say, are not for every terminal.
        print(shown_in(line, sys.stdout.encoding))
    sys.stdout.flush()


def _follow(run: Run, reader: LogReader) -> None:
    """Print what comes until the run is over or lost, and then what came last."""
    from hpcft.cli.follow import Lost
    from hpcft.cluster.poll import Poll
    from hpcft.cluster.state import stand

    poll, lost, said = Poll(), Lost(), ""
    while True:
        standing = stand([read_record(run.paths.root)], poll)[0]
        for path, lines in reader.news():
            if path is not None:
                say(f"--- {'log' if path == run.paths.batch_log else path.parent.name}: {path.name}")
            _print(lines)
        if standing.state.is_over or lost.sees(standing):
            _print(reader.rest())
            say(f"{run.name}: {standing.state}, {standing.words}")
            return
        if not reader.files() and standing.words != said:
            said = standing.words
            say(f"no output yet: {standing.state}, {said}")
        time.sleep(_LOOK_S)


def _ranks(run: Run) -> str:
    reader = LogReader(run.paths, None, None, of_ranks=True)
    there = ", ".join(path.stem.removeprefix("rank") for path in reader.files())
    return f"ranks: {there}" if there else "no rank has written yet"


def _state_words(run: Run) -> str:
    from hpcft.cli.view import look

    standing = look([run])[0]
    return f"{standing.state}, {standing.words}"

"""`hpcft logs RUN`: what a run has printed, of all ranks or one, of this attempt or a past one, and what comes."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import say
from hpcft.cli.texts import ending
from hpcft.display.room import shown_in
from hpcft.errors import UsageError
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, find_run

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_LOOK_S = 0.5
_BLOCK = 64 * 1024
_RANK = re.compile(r"rank(\d+)\.log")


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
    if attempt is not None and not found.paths.attempt(attempt).is_dir():
        there = ", ".join(str(n) for n in found.paths.attempt_numbers()) or "none"
        raise UsageError(f"{found.name} has no attempt {attempt}", where="--attempt", hint=f"attempts: {there}")
    of_ranks = all_ranks or rank is not None or attempt is not None
    reader = _Reader(found.paths, attempt, rank if rank is not None or all_ranks else 0, of_ranks)
    if rank is not None and not follow and not reader.files():
        raise UsageError(f"{found.name} has no log of rank {rank}", where="--rank", hint=_ranks(found))
    printed = reader.print_last(lines)
    if follow:
        try:
            _follow(found, reader)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    elif not printed:
        say(f"no output yet: {_state_words(found)}")


def _newest(results: Path) -> Run:
    """The run that was submitted last."""
    from hpcft.runs.index.query import Index, Query

    with Index(results) as index:
        rows = index.find(Query(limit=1)).rows
    if not rows:
        raise UsageError(f"there is no run in {results} yet", where="RUN")
    say(f"the newest run: {rows[0]['run']}")
    return Run(results / rows[0]["run"])


class _Reader:
    """The files that are asked for, and how far each has been printed.

    Args:
        attempt: None for the newest, which may change while it is followed.
        rank: None for all.
        of_ranks: logs of ranks; else the job's own log.
    """

    def __init__(self, paths: RunPaths, attempt: int | None, rank: int | None, of_ranks: bool) -> None:
        self._paths = paths
        self._attempt = attempt
        self._rank = rank
        self._of_ranks = of_ranks
        self._at: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}

    def files(self) -> list[Path]:
        """Those that are there now."""
        if not self._of_ranks:
            return [self._paths.batch_log] if self._paths.batch_log.exists() else []
        number = self._attempt or max(self._paths.attempt_numbers(), default=0)
        if self._rank is not None:
            path = self._paths.rank_log(number, self._rank)
            return [path] if path.is_file() else []
        folder = self._paths.attempt(number)
        ranks = [(int(m[1]), p) for p in folder.glob("rank*.log") if (m := _RANK.fullmatch(p.name))]
        return [path for _, path in sorted(ranks)]

    def print_last(self, lines: int) -> bool:
        """Print the ends of the files, those of several ranks in the order of their times; whether there was any."""
        chosen: list[tuple[str, str]] = []
        left_out = False
        for path in self.files():
            text, self._at[path], more = _end(path, lines)
            left_out |= more
            chosen += [(line, self._marked(path, line)) for line in text]
        if self._rank is None and self._of_ranks:
            # Each line begins with its time; one that does not belongs to the line before it.
            chosen = _by_time(chosen)
        if left_out:
            say("earlier lines are left out; all of them: -n 0")
        for _, shown in chosen:
            _print(shown)
        sys.stdout.flush()
        return bool(chosen)

    def print_new(self) -> None:
        """Print what has come since."""
        for path in self.files():
            if path not in self._at and self._at:
                say(f"--- {path.parent.name if self._of_ranks else 'log'}: {path.name}")
            for line in self._news(path):
                _print(self._marked(path, line))
        sys.stdout.flush()

    def print_rest(self) -> None:
        """Print last lines that were never ended."""
        for path, rest in self._rest.items():
            if rest:
                _print(self._marked(path, _text(rest)))
        sys.stdout.flush()

    def _news(self, path: Path) -> Iterator[str]:
        try:
            size = path.stat().st_size
            if size < self._at.get(path, 0):
                # Another file in its place, such as the log of a local job that was started again.
                self._at[path] = 0
            with path.open("rb") as file:
                file.seek(self._at.get(path, 0))
                new = file.read()
        except OSError:
            return
        self._at[path] = self._at.get(path, 0) + len(new)
        *whole, rest = (self._rest.get(path, b"") + new).split(b"\n")
        # Of a progress bar's line only the last state is printed, and it may be long.
        self._rest[path] = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :]
        yield from (_text(line) for line in whole)

    def _marked(self, path: Path, line: str) -> str:
        found = _RANK.fullmatch(path.name) if self._rank is None else None
        return f"[rank {found[1]}] {line}" if found else line


def _print(line: str) -> None:
    # The boxes of a distillation, and what models say, are not for every terminal.
    print(shown_in(line, sys.stdout.encoding))


def _follow(run: Run, reader: _Reader) -> None:
    """Print what comes until the run is over or lost, and then what came last."""
    from hpcft.cli.follow import Lost
    from hpcft.cluster.poll import Poll
    from hpcft.cluster.state import stand

    poll, lost, said = Poll(), Lost(), ""
    while True:
        standing = stand([read_record(run.paths.root)], poll)[0]
        reader.print_new()
        if standing.state.is_over or lost.sees(standing):
            reader.print_rest()
            say(f"{run.name}: {standing.state}, {standing.words}")
            return
        if not reader.files() and standing.words != said:
            said = standing.words
            say(f"no output yet: {standing.state}, {said}")
        time.sleep(_LOOK_S)


def _end(path: Path, lines: int) -> tuple[list[str], int, bool]:
    """The last lines of a file, its size, and whether there are lines before them. Read from behind: a log of days is
    long."""
    with path.open("rb") as file:
        size = at = file.seek(0, os.SEEK_END)
        blocks: list[bytes] = []
        ends = 0
        while at > 0 and (lines == 0 or ends <= lines):
            begin = max(0, at - _BLOCK)
            file.seek(begin)
            blocks.append(file.read(at - begin))
            ends += blocks[-1].count(b"\n")
            at = begin
    found = b"".join(reversed(blocks)).split(b"\n")
    if found and not found[-1]:
        found.pop()
    last = found[-lines:] if lines else found
    return [_text(line) for line in last], size, at > 0 or len(last) < len(found)


def _text(line: bytes) -> str:
    """A line as it may go to a terminal; a progress bar's last state counts."""
    text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)


def _by_time(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    stamp, keyed = "", []
    for line, shown in lines:
        if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line):
            stamp = line[:23]
        keyed.append((stamp, (line, shown)))
    return [pair for _, pair in sorted(keyed, key=lambda entry: entry[0])]


def _ranks(run: Run) -> str:
    reader = _Reader(run.paths, None, None, True)
    there = ", ".join(path.stem.removeprefix("rank") for path in reader.files())
    return f"ranks: {there}" if there else "no rank has written yet"


def _state_words(run: Run) -> str:
    from hpcft.cli.view import look

    standing = look([run])[0]
    return f"{standing.state}, {standing.words}"

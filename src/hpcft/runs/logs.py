"""What a run has printed: its job's own log or the logs of its ranks, their ends, and what comes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpcft.runs.paths import RunPaths

_BLOCK = 64 * 1024
_RANK = re.compile(r"rank(\d+)\.log")


class LogReader:
    """The files that are asked for, and how far each has been read.

    Args:
        attempt: None for the newest, which may change while it is followed.
        rank: None for all.
        of_ranks: logs of ranks; else the job's own log.
    """

    def __init__(self, paths: RunPaths, attempt: int | None = None, rank: int | None = 0, *, of_ranks: bool) -> None:
        self._paths = paths
        self._attempt = attempt
        self._rank = rank
        self._of_ranks = of_ranks
        self._at: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}

    def files(self) -> list[Path]:
        """Those that are there now. A local job's log is a link inside of the run; one that leads out is no log of
        it."""
        root = self._paths.root.resolve()
        return [path for path in self._named() if path.is_file() and path.resolve().is_relative_to(root)]

    def _named(self) -> list[Path]:
        if not self._of_ranks:
            return [self._paths.batch_log]
        number = self._attempt or max(self._paths.attempt_numbers(), default=0)
        if self._rank is not None:
            return [self._paths.rank_log(number, self._rank)]
        folder = self._paths.attempt(number)
        ranks = [(int(m[1]), p) for p in folder.glob("rank*.log") if (m := _RANK.fullmatch(p.name))]
        return [path for _, path in sorted(ranks)]

    def last(self, lines: int) -> tuple[list[str], bool]:
        """The ends of the files, those of several ranks in the order of their times, each line with its rank.

        Args:
            lines: so many of each file, 0 for all.

        Returns:
            The lines, and whether earlier ones are left out.
        """
        chosen: list[tuple[str, str]] = []
        left_out = False
        for path in self.files():
            text, self._at[path], more = _end(path, lines)
            left_out |= more
            chosen += [(line, self._marked(path, line)) for line in text]
        if self._rank is None and self._of_ranks:
            # Each line begins with its time; one that does not belongs to the line before it.
            chosen = _by_time(chosen)
        return [shown for _, shown in chosen], left_out

    def news(self) -> Iterator[tuple[Path | None, list[str]]]:
        """The lines that have come since in each file; with its path where it has come since itself."""
        for path in self.files():
            is_new = path not in self._at and bool(self._at)
            yield path if is_new else None, [self._marked(path, line) for line in self._news(path)]

    def rest(self) -> list[str]:
        """Last lines that were never ended."""
        return [self._marked(path, _text(rest)) for path, rest in self._rest.items() if rest]

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
        # Of a progress bar's line only the last state is shown, and it may be long.
        self._rest[path] = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :]
        yield from (_text(line) for line in whole)

    def _marked(self, path: Path, line: str) -> str:
        found = _RANK.fullmatch(path.name) if self._rank is None else None
        return f"[rank {found[1]}] {line}" if found else line


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

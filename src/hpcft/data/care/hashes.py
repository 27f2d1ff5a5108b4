"""Rows as 64-bit numbers, so that 10 million of them are 80 MB and are compared by sorting.

Two different rows of 10 million have one number with a chance of 3 in a million (n² / 2⁶⁵).
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def digest(text: str) -> int:
    """A text's number."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def numbers() -> array[int]:
    """An empty list of such numbers, 8 bytes each."""
    return array("Q")


def as_numpy(values: array[int]) -> np.ndarray:
    """The same numbers for sorting and sets; no copy."""
    import numpy as np

    return np.frombuffer(values, dtype=np.uint64) if len(values) else np.zeros(0, np.uint64)


def repeated(values: array[int]) -> np.ndarray:
    """The places, in order, of the values that stand further up already."""
    import numpy as np

    found = as_numpy(values)
    order = np.argsort(found, kind="stable")
    again = np.zeros(len(found), bool)
    again[order[1:]] = found[order[1:]] == found[order[:-1]]
    return np.flatnonzero(again)


def contradicted(inputs: array[int], answers: array[int]) -> np.ndarray:
    """The places, in order, of the rows whose input stands in another row with another answer."""
    import numpy as np

    asked, told = as_numpy(inputs), as_numpy(answers)
    if not len(asked):
        return np.zeros(0, np.int64)
    order = np.lexsort((told, asked))
    starts = np.flatnonzero(np.concatenate(([True], asked[order[1:]] != asked[order[:-1]])))
    sizes = np.diff(np.append(starts, len(order)))
    # Sorted by answer within an input: the first and the last differ where any two do.
    mixed = told[order[starts]] != told[order[starts + sizes - 1]]
    return np.sort(order[np.repeat(mixed, sizes)])


def common(first: array[int], second: array[int]) -> np.ndarray:
    """The places in `second` of the values that `first` has too."""
    import numpy as np

    return np.flatnonzero(np.isin(as_numpy(second), as_numpy(first)))


class Seen:
    """Numbers that were met before, at 8 bytes each but for the newest million."""

    def __init__(self, newest: int = 1 << 20) -> None:
        self._most = newest
        self._new: set[int] = set()
        self._old: list[np.ndarray] = []

    def add(self, number: int) -> bool:
        """Take a number; whether it is new."""
        if number in self._new or any(_holds(old, number) for old in self._old):
            return False
        self._new.add(number)
        if len(self._new) >= self._most:
            self._freeze()
        return True

    def _freeze(self) -> None:
        import numpy as np

        block = np.sort(np.fromiter(self._new, np.uint64, len(self._new)))
        self._new.clear()
        # Blocks of one size become one of twice the size, so there are never many to look into.
        while self._old and len(self._old[-1]) <= len(block):
            block = np.sort(np.concatenate((self._old.pop(), block)))
        self._old.append(block)


def _holds(block: np.ndarray, number: int) -> bool:
    import numpy as np

    value = np.uint64(number)
    at = int(np.searchsorted(block, value))
    return at < len(block) and bool(block[at] == value)

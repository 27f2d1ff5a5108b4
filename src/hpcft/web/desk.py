"""The index of a service that lives long: brought up to date now and then, not at each request."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hpcft.runs.index.query import Index

# An answer may be as old as this, and the looking for news takes at most a twentieth of the time.
_OLD_S = 1.0
_SHARE = 20
_KEPT = 8

T = TypeVar("T")


class Desk:
    """Opens the index of a results folder.

    Args:
        results: the folder.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._next = 0.0
        self._one = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[tuple[int, ...], Any]] = OrderedDict()

    def kept(self, key: Hashable, index: Index, make: Callable[[], T]) -> T:
        """What was made of the index for a key, made again when the index has changed; the last few are kept."""
        stamp = index.stamp
        found = self._kept.get(key)
        if found is None or found[0] != stamp:
            # Made of what is there now, or of what has come while it was made: then it is made once more.
            found = self._kept[key] = (stamp, make())
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                with suppress(KeyError):
                    self._kept.popitem(last=False)
        return found[1]

    def index(self) -> Index:
        """The index, at most a second behind, or twenty times as long as looking for news takes."""
        if time.monotonic() >= self._next and self._one.acquire(blocking=not self._next):
            try:
                began = time.monotonic()
                if began >= self._next:
                    found = Index(self._results)
                    ended = time.monotonic()
                    self._next = ended + max(_OLD_S, _SHARE * (ended - began))
                    return found
            finally:
                self._one.release()
        return Index(self._results, fresh=False)

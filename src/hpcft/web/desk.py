"""The index of a service that lives long: brought up to date now and then, not at each request."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from hpcft.runs.index.query import Index

# An answer may be as old as this, and the looking for news takes at most a twentieth of the time.
_OLD_S = 1.0
_SHARE = 20


class Desk:
    """Opens the index of a results folder.

    Args:
        results: the folder.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._next = 0.0
        self._one = threading.Lock()

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

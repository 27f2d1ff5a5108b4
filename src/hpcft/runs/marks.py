"""Tags and notes of runs: those of the job, as they were changed since by records of the client's journal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hpcft.errors import UsageError
from hpcft.runs.events import EventLog
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run

_LONGEST = 64


def mark(paths: RunPaths, *, added: Sequence[str] = (), removed: Sequence[str] = (), notes: str | None = None) -> None:
    """Change a run's tags, and its note where one is given.

    Raises:
        UsageError: a tag is empty or has more than 64 characters. NotAllowedError: the journal cannot be written.
    """
    for tag in added:
        if not tag.strip() or len(tag) > _LONGEST or not tag.isprintable():
            raise UsageError(f"'{tag[:80]}' is no tag: 1 to {_LONGEST} characters in one line", where="--add")
    facts: dict[str, Any] = {"added": list(added), "removed": list(removed)}
    if notes is not None:
        facts["notes"] = notes
    with EventLog(paths.client, sync_seconds=0) as journal:
        journal.append("marked", **facts)
    # An index looks at a finished run again when its folder and the one around it have changed, which an appended line
    # alone is not.
    for folder in (paths.root, paths.root.parent):
        with suppress(OSError):
            os.utime(folder)


def marks(journal: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> tuple[list[str], str]:
    """Tags and note by a journal and the settings `tracking.tags` and `tracking.notes` that a run began with."""
    tags = [str(tag) for tag in config.get("tracking.tags") or []]
    notes = str(config.get("tracking.notes") or "")
    for each in journal:
        if each["kind"] == "marked":
            gone = set(each.get("removed", ()))
            tags = [tag for tag in tags if tag not in gone]
            tags += [str(tag) for tag in each.get("added", ()) if tag not in tags]
            notes = str(each.get("notes", notes))
    return tags, notes


def marks_of(run: Run) -> tuple[list[str], str]:
    """A run's tags and its note."""
    tracking = run.config.get("tracking")
    inner = tracking if isinstance(tracking, dict) else {}
    return marks(run.journal(), {f"tracking.{key}": value for key, value in inner.items()})

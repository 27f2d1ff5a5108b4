"""The index's file: where it is, its tables, its one writer."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from hpcft.runs.files import make_private
from hpcft.runs.scratch import own_folder

# Of another number the file is made again.
_VERSION = 3
_PATIENCE_S = 5.0

_TABLES = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  root TEXT UNIQUE NOT NULL,      -- from the results folder
  folder_ns INTEGER, status_ns INTEGER, client_ns INTEGER,   -- when its files had changed last
  done INTEGER NOT NULL,
  name TEXT, grp TEXT, kind TEXT, variant TEXT, model TEXT, dataset TEXT,
  run_id TEXT, job_id TEXT, cluster TEXT,
  created REAL, state TEXT, step INTEGER, total_steps INTEGER, loss REAL, attempt INTEGER,
  tags TEXT, notes TEXT,
  cursor TEXT                     -- how far the event log of a run that goes on was read
);
CREATE INDEX runs_created ON runs (created);
CREATE INDEX runs_group ON runs (grp, done);
-- What is long stands apart: a look at all runs passes it by. JSON: the intent of the
-- last submission, whose `config` has the settings that differ from their defaults; figures.
CREATE TABLE told (run INTEGER PRIMARY KEY, job TEXT, metrics TEXT);
-- Folders of runs, the results folder itself with no name, and when the list of what is in them had changed last.
CREATE TABLE folders (name TEXT PRIMARY KEY, changed_ns INTEGER NOT NULL);
-- What comparisons need of a run beside its figures, until it changes (index.kept).
CREATE TABLE kept (
  run INTEGER PRIMARY KEY, place TEXT NOT NULL, kind TEXT, parent TEXT,
  variant TEXT, dataset TEXT, hardware TEXT, seed INTEGER, odd TEXT, trouble TEXT
);
-- The keys that anybody has asked for, each with its value in every run, NULL where it has none: a sort or a filter
-- reads no more than these.
CREATE TABLE keys (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, source TEXT NOT NULL);
CREATE TABLE facts (key INTEGER NOT NULL, run INTEGER NOT NULL, value, PRIMARY KEY (key, run)) WITHOUT ROWID;
CREATE INDEX facts_value ON facts (key, value);
"""
# A key's value in what is told of a run, by where it stands; ?2 is its path. A metric may be a word for what is no
# number.
FACT = {
    "config": "json_extract(job, ?2)",
    "metrics": "CASE json_type(metrics, ?2) WHEN 'integer' THEN json_extract(metrics, ?2) "
    "WHEN 'real' THEN json_extract(metrics, ?2) END",
}


def path_of(key: str, source: str) -> str:
    """Where a key stands in a text of `told`."""
    return f'$.config."{key}"' if source == "config" else f'$."{key}"'


def place(results: Path) -> Path:
    """The index's file of a results folder.

    Not in the results folder, which may be on NFS or Lustre, where SQLite's locks are not to be trusted: in the folder
    that HPCFT_INDEX names, else in the user's own on this machine's disk.
    """
    chosen = os.environ.get("HPCFT_INDEX")
    folder = make_private(Path(chosen)) if chosen else make_private(own_folder() / "index")
    return folder / f"{hashlib.sha256(os.fsencode(os.path.realpath(results))).hexdigest()[:16]}.sqlite"


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing.

    Raises:
        sqlite3.DatabaseError: there is none, or it is damaged, or of another version.
    """
    found = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_PATIENCE_S)
    if found.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        found.close()
        raise sqlite3.DatabaseError("of another version")
    return found


@contextmanager
def writer(path: Path) -> Iterator[sqlite3.Connection | None]:
    """The connection of the one that writes; None while another process does, after waiting a moment for it.

    A file that is damaged or of another version is made again.
    """
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(handle):
            yield None
            return
        with closing(_open(path)) as found:
            yield found
            found.commit()
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        except OSError:
            # A disk without locks: whoever writes at once makes the same rows.
            return True
        else:
            return True


def _open(path: Path) -> sqlite3.Connection:
    for _ in range(2):
        found = sqlite3.connect(path, timeout=_PATIENCE_S)
        with suppress(OSError):
            path.chmod(0o600)
        try:
            # A crash may cost the file, which is made again. What a scan writes fits into this memory.
            found.execute("PRAGMA cache_size = -65536")
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = OFF")
            version = found.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                found.executescript(_TABLES)
                version = _VERSION
            if version == _VERSION:
                return found
        except sqlite3.DatabaseError:
            pass
        found.close()
        remove(path)
    raise sqlite3.DatabaseError(f"{path} cannot be made")


def remove(path: Path) -> None:
    """Throw the index away."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)

"""Bringing the index up to what the run directories say; what has not changed is not opened.

There are thousands of them: what is done for each is done with plain strings, and as little as possible.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hpcft.runs.events import checked, parse, read_log
from hpcft.runs.index.store import FACT, path_of, place, writer
from hpcft.runs.marks import marks
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import Record, parse_status, settings
from hpcft.runs.run import read_yaml

_COLUMNS = (
    *(
        "id",
        "root",
        "folder_ns",
        "status_ns",
        "client_ns",
        "done",
        "name",
        "grp",
        "kind",
        "variant",
        "model",
        "dataset",
    ),
    *("run_id", "job_id", "cluster", "created", "state", "step", "total_steps", "loss", "attempt", "tags", "notes"),
    "cursor",
)
_BATCH = 500
# Of more the system would have to find fresh memory for each file.
_PART = 1 << 14
_UNSETTLED_NS = 2_000_000_000


@dataclass
class Refreshed:
    """What bringing the index up to date has done.

    Attributes:
        runs: how many there are. read, removed: of them opened anew, and gone.
        busy: another process was at it, and its state is what is there.
    """

    runs: int = 0
    read: int = 0
    removed: int = 0
    busy: bool = False


def refresh(results: Path, index: Path | None = None) -> Refreshed:
    """Bring the index of a results folder up to date.

    A folder whose list has not changed has the same runs, and of these the finished ones are as they were: only those
    that go on are looked at, and opened when their heartbeat or journal has changed. Their event logs are read on from
    where they were read to.

    Args:
        results: the folder.
        index: its index's file, where it is not the usual one.
    """
    with writer(index or place(results)) as store:
        if store is None:
            return Refreshed(busy=True)
        return _refresh(store, os.fspath(results))


# A run that was found: its name from the results folder, times of change, its number in the index if it is known.
_Found = tuple[str, tuple[int, int, int], int | None]
_KNOWN = "SELECT root, id, done, folder_ns, status_ns, client_ns FROM runs"


def _refresh(store: sqlite3.Connection, results: str) -> Refreshed:
    kept = dict(store.execute("SELECT name, changed_ns FROM folders"))
    before = {"": 0, **kept}
    after: dict[str, int] = {}
    changed: list[_Found] = []
    gone: list[int] = []
    # Those that are found on the way come behind.
    waiting = ["", *(name for name in before if name)]
    for name in waiting:
        folder_ns = _changed(f"{results}/{name}")
        if name and (not folder_ns or os.path.isfile(f"{results}/{name}/config.yaml")):  # noqa: PTH113 (there are many)
            # Gone, or a run whose directory had only just been made.
            gone += [row[0] for row in store.execute("SELECT id FROM runs WHERE grp = ?", (name,))]
            continue
        after[name] = folder_ns
        if folder_ns == before.get(name):
            open_ones = store.execute(f"{_KNOWN} WHERE grp IS ? AND done = 0", (name or None,))
            changed += _changed_of(results, open_ones.fetchall())
            continue
        known = {row[0]: row for row in store.execute(f"{_KNOWN} WHERE grp IS ?", (name or None,))}
        for root, entry_ns in _inner(results, name):
            row = known.pop(root, None)
            if row is not None:
                if not row[2] or row[3] != entry_ns:
                    changed += _changed_of(results, [row])
            elif os.path.isfile(f"{results}/{root}/config.yaml"):  # noqa: PTH113
                changed.append((root, (entry_ns, *_changed_inside(f"{results}/{root}")), None))
            elif not name and root not in before:
                waiting.append(root)
        gone += [row[1] for row in known.values()]
    _forget(store, gone)
    _read(store, results, changed)
    # What has changed just now may change again within the file system's unit of time: it is looked at once more.
    settled = time.time_ns() - _UNSETTLED_NS
    seen = {name: ns if ns < settled else 0 for name, ns in after.items()}
    if seen != kept:
        # Where nothing is new nothing is written, so that who keeps an answer knows it by the file.
        store.execute("DELETE FROM folders")
        store.executemany("INSERT INTO folders VALUES (?, ?)", list(seen.items()))
    runs = store.execute("SELECT count(*) FROM runs").fetchone()[0]
    return Refreshed(runs, len(changed), len(gone))


def _inner(results: str, name: str) -> Iterator[tuple[str, int]]:
    """(name from the results folder, time of its last change) of each folder in a folder."""
    lead = f"{name}/" if name else ""
    try:
        with os.scandir(f"{results}/{name}") as entries:
            for entry in entries:
                if entry.is_dir():
                    yield lead + entry.name, entry.stat().st_mtime_ns
    except OSError:
        # Not there, or somebody else's.
        return


def _changed_of(results: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[_Found]:
    """Those of some runs whose directory, heartbeat or journal is not as it was."""
    for root, number, _, *before in rows:
        path = f"{results}/{root}"
        stamp = (_changed(path), *_changed_inside(path))
        if stamp != tuple(before):
            yield root, stamp, number


def _changed_inside(path: str) -> tuple[int, int]:
    """When a run's heartbeat and journal were changed last."""
    return _changed(f"{path}/status.json"), _changed(f"{path}/client.jsonl")


def _forget(store: sqlite3.Connection, numbers: Iterable[int]) -> None:
    runs = [(number,) for number in numbers]
    for table, column in (("runs", "id"), ("told", "run")):
        store.executemany(f"DELETE FROM {table} WHERE {column} = ?", runs)  # noqa: S608
    _forget_derived(store, runs)


def _forget_derived(store: sqlite3.Connection, runs: list[tuple[int]]) -> None:
    store.executemany("DELETE FROM kept WHERE run = ?", runs)
    for (key,) in store.execute("SELECT id FROM keys").fetchall():
        store.executemany("DELETE FROM facts WHERE key = ? AND run = ?", [(key, number) for (number,) in runs])


def _changed(path: str) -> int:
    """When a file was changed last, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _read(store: sqlite3.Connection, results: str, changed: list[_Found]) -> None:
    numbers = count(store.execute("SELECT coalesce(max(id), 0) + 1 FROM runs").fetchone()[0])
    before = "SELECT cursor, metrics FROM runs JOIN told ON run = id WHERE id = ? AND done = 0"
    jobs = []
    for root, stamp, number in changed:
        known = None if number is None else store.execute(before, (number,)).fetchone()
        jobs.append((number or next(numbers), results, root, stamp, *(known or ("", "{}"))))
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    marks = ", ".join("?" * len(_COLUMNS))
    keys = store.execute("SELECT id, source, name FROM keys").fetchall()
    for rows, told in map(_rows, batches):
        numbers_read = [(row[0],) for row in rows]
        store.executemany(f"INSERT OR REPLACE INTO runs ({', '.join(_COLUMNS)}) VALUES ({marks})", rows)  # noqa: S608
        # Figures are a file's text, as it is.
        store.executemany("INSERT OR REPLACE INTO told VALUES (?1, ?2, CASE WHEN json_valid(?3) THEN ?3 END)", told)
        _forget_derived(store, numbers_read)
        for key, source, name in keys:
            store.executemany(
                f"INSERT INTO facts SELECT ?1, run, {FACT[source]} FROM told WHERE run = ?3",  # noqa: S608
                [(key, path_of(name, source), number) for (number,) in numbers_read],
            )


def _rows(jobs: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What the tables `runs` and `told` have of some runs."""
    rows, told = [], []
    for number, results, root, stamp, cursor, known in jobs:
        row, job, metrics = _row(f"{results}/{root}", root, cursor, known)
        rows.append((number, root, *stamp, *row))
        told.append((number, job, metrics))
    return rows, told


def _row(path: str, name: str, cursor: str, known: str) -> tuple[tuple[Any, ...], str, str]:
    """A run's columns, from `done` on; the JSON texts that have its settings and its figures.

    Args:
        cursor, known: how far its event log was read, and the figures that it gave.
    """
    texts: dict[int, tuple[str, dict[str, Any]]] = {}
    for line in _content(f"{path}/client.jsonl").splitlines():
        text = checked(line)
        if text is not None and (told := parse(text)) is not None:
            texts[id(told)] = text, told
    journal = [told for _, told in texts.values()]
    record = Record(Path(path), journal, status=parse_status(_content(f"{path}/status.json")))
    done = os.path.isfile(f"{path}/done.json")  # noqa: PTH113
    intent = record.intent
    config = intent.get("config")
    if isinstance(config, dict):
        job = texts[id(intent)][0]
    else:
        config = _config(record)
        job = _json({"config": config})
    if done:
        cursor, metrics = "", _content(f"{path}/metrics.json").decode("utf-8", "replace")
    else:
        cursor, newest = _events(RunPaths(Path(path)), cursor)
        metrics = _json(json.loads(known or "{}") | newest)
    group, _, short = name.rpartition("/")
    tags, notes = marks(journal, config)
    about, status = record.about, record.heartbeat
    row = (
        *(done, short, group or None),
        *(about.get("job_kind"), about.get("variant"), about.get("model"), about.get("dataset")),
        *(intent.get("run_id"), record.job_id, intent.get("cluster"), record.created, "SUCCESS" if done else ""),
        *((status.step, status.total_steps or None, _number(status.loss), status.attempt) if status else _NO_STATUS),
        *(_json(tags) if tags else "[]", notes, cursor),
    )
    return row, job, metrics


_NO_STATUS = (None, None, None, None)
# One for all: json.dumps with arguments makes a new one each time.
_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


def _content(path: str) -> bytes:
    # Half as many calls to the system as a file object makes.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # Not there, or somebody else's.
        return b""
    try:
        content = part = os.read(fd, _PART)
        while len(part) == _PART:
            content += (part := os.read(fd, _PART))
        return content
    except OSError:
        return b""
    finally:
        os.close(fd)


def _number(value: Any) -> float | None:
    """A loss may be the word for one that is no number."""
    return float(value) if isinstance(value, int | float) else None


def _config(record: Record) -> dict[str, Any]:
    """The keys of a run's job that differ from their defaults, where its journal does not have them."""
    try:
        config = read_yaml(record.root / "config.yaml")
    except (OSError, ValueError):
        # The run is listed all the same; hpcft show tells what is wrong with the file.
        return {}
    if not isinstance(config, dict):
        return {}
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {str(name): value}
    return settings(values)


def _events(paths: RunPaths, cursor: str) -> tuple[str, dict[str, float]]:
    """How far the event log of a run that has not finished is read now, and the newest figures in what is new of it."""
    numbers = paths.attempt_numbers()
    if not numbers:
        return "", {}
    attempt = max(numbers)
    before, _, offset = cursor.partition(":")
    try:
        log = read_log(paths.events(attempt), int(offset) if before == str(attempt) else 0)
    except OSError:
        return cursor, {}
    told: dict[str, float] = {}
    for event in log.records:
        if event["kind"] == "validation":
            told |= {str(k): v for k, v in event.get("metrics", {}).items() if isinstance(v, int | float)}
        elif event["kind"] == "step" and isinstance(event.get("loss"), int | float):
            told["train/loss"] = event["loss"]
    return f"{attempt}:{log.end}", told

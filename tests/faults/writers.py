"""Many processes that write run directories of one results folder at once, and a reader beside them.

    PYTHONPATH=tests:src python -m faults.writers [--writers 128] [--seconds 120] [--seed 1] [--folder DIR ...]

Each writer makes a run of a name that others want too, takes an attempt of a run that others take as well, appends to
its own event log, replaces its heartbeat, and marks a shared run; meanwhile the index is brought up to date again and
again. A record counts as acknowledged when the call that writes it has returned. Several folders are mounts of one
place, such as of one NFS export, and are shared out among the writers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults.report import save

from hpcft.cluster.folders import file_system
from hpcft.runs.create import begin_attempt, make_run_directory
from hpcft.runs.events import EventLog, read_log
from hpcft.runs.files import write_atomic, write_json
from hpcft.runs.index.query import Index, Query
from hpcft.runs.marks import mark, marks
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import parse_status

# Writers that want the same name, take attempts of the same run and mark it.
_TOGETHER = 16
BAD = ("lost", "torn", "twice", "names shared", "reader stumbled", "index wrong")


@dataclass(frozen=True)
class Written:
    """What a writer says that it has done.

    Attributes:
        root: of its run. shared: of the run that it marked; both as seen from the first folder.
        attempt: of the shared run, which it has taken.
        records, heartbeats: how many. tags: that it has put there.
    """

    root: str
    shared: str
    attempt: int
    records: int
    heartbeats: int
    tags: list[str]


# Set before the writers are forked.
_all_here: Any = None


def _write(folders: Sequence[Path], seconds: float, pause_s: float, seed: int, number: int) -> Written:
    rng = random.Random(f"{seed} {number}")
    results = folders[number % len(folders)]
    shared = RunPaths(results / f"shared{number // _TOGETHER}")
    _all_here.wait()
    attempt = begin_attempt(shared)
    paths = make_run_directory(results, f"same{number // _TOGETHER}", "run")
    write_atomic(paths.config, "variant: lora\n")
    until, records, heartbeats, tags = time.monotonic() + seconds, 0, 0, list[str]()
    next_beat = next_mark = 0.0
    with EventLog(paths.events(begin_attempt(paths)), sync_seconds=1.0) as log:
        while (now := time.monotonic()) < until or not tags:
            log.append("step", **_step(seed, number, records + 1))
            records += 1
            if now >= next_beat:
                _beat(paths, records)
                heartbeats, next_beat = heartbeats + 1, now + 1.0
            if now >= next_mark:
                tag = f"w{number}-{len(tags)}"
                mark(shared, added=[tag])
                tags.append(tag)
                next_mark = now + rng.uniform(1.0, 3.0)
            time.sleep(rng.uniform(0, 2 * pause_s))
    _beat(paths, records)
    first = folders[0]
    return Written(str(first / paths.root.name), str(first / shared.root.name), attempt, records, heartbeats + 1, tags)


def _step(seed: int, number: int, step: int) -> dict[str, Any]:
    """What a record holds: known again from its place alone."""
    rng = random.Random(f"{seed} {number} {step}")
    return {"step": step, "loss": rng.random(), "words": "größe" * rng.randrange(40)}


def _beat(paths: RunPaths, step: int) -> None:
    status = {"state": "training", "attempt": 1, "step": step, "total_steps": step + 1, "time": time.time()}
    write_json(paths.status, status, durable=False)


def _read(results: Path, index: Path, until: Any) -> Counter[str]:
    """Bring the index up to date, and read heartbeats and logs, until the writers have ended."""
    seen: Counter[str] = Counter()
    while not until.ready():
        with Index(results, path=index) as found:
            found.find(Query())
        seen["refreshes"] += 1
        for status in results.glob("*/status.json"):
            text = status.read_bytes()
            seen["heartbeats read"] += 1
            seen["stumbled"] += parse_status(text) is None
        for run in results.iterdir():
            # The last line may be in the making.
            seen["stumbled"] += len(read_log(RunPaths(run).client).damaged)
    return seen


def play(folders: Sequence[Path], writers: int, seconds: float, seed: int, pause_s: float = 0.05) -> dict[str, Any]:
    """Write, read, and compare what is there with what was acknowledged.

    Args:
        folders: empty ones, mounts of one place.
        pause_s: mean time between two records of a writer.
    """
    global _all_here
    results, index = folders[0], Path(tempfile.mkdtemp(prefix="hpcft-index-")) / "index.sqlite"
    for number in range(-(-writers // _TOGETHER)):
        shared = RunPaths(results / f"shared{number}")
        shared.root.mkdir()
        write_atomic(shared.config, "variant: lora\n")
    forking = multiprocessing.get_context("fork")
    _all_here = forking.Barrier(writers)
    try:
        with forking.Pool(writers) as pool:
            work = partial(_write, folders, seconds, pause_s, seed)
            answer = pool.map_async(work, range(writers), chunksize=1)
            seen = _read(results, index, answer)
            written = answer.get()
        return {
            "writers": writers,
            "mounts": len(folders),
            "file system": file_system(results)[1],
            "seconds": round(seconds),
            **_compared(written, seed, results, index),
            "reader stumbled": seen["stumbled"],
            "refreshes": seen["refreshes"],
            "heartbeats read": seen["heartbeats read"],
        }
    finally:
        shutil.rmtree(index.parent, ignore_errors=True)


def _compared(written: list[Written], seed: int, results: Path, index: Path) -> dict[str, int]:
    found: Counter[str] = Counter(dict.fromkeys(BAD, 0))
    for number, one in enumerate(written):
        log = read_log(RunPaths(Path(one.root)).events(1))
        found["torn"] += len(log.damaged) + (log.torn > 0)
        _count(found, [_step(seed, number, step) for step in range(1, one.records + 1)], log.records)
    for root in sorted({one.shared for one in written}):
        log = read_log(RunPaths(Path(root)).client)
        found["torn"] += len(log.damaged) + (log.torn > 0)
        _count(found, [{"tag": t} for one in written if one.shared == root for t in one.tags], _tags(log.records))
        found["lost"] += len(
            {t for one in written if one.shared == root for t in one.tags} - set(marks(log.records, {})[0])
        )
        found["twice"] += len(log.records) - len({record["seq"] for record in log.records})
    found["twice"] += len(written) - len({(one.shared, one.attempt) for one in written})
    found["names shared"] = len(written) - len({one.root for one in written})
    with Index(results, path=index) as of_index:
        told = {row["run"]: (row["step"], row["tags"]) for row in of_index.find(Query()).rows}
    for one in written:
        found["index wrong"] += told.get(Path(one.root).name, (None,))[0] != one.records
        tags = set(json.loads(told.get(Path(one.shared).name, (None, "[]"))[1] or "[]"))
        found["index wrong"] += not set(one.tags) <= tags
    totals = {
        "records": sum(one.records for one in written),
        "heartbeats": sum(one.heartbeats for one in written),
        "marks": sum(len(one.tags) for one in written),
    }
    return totals | dict(found)


def _tags(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"tag": tag} for record in records for tag in record.get("added", ())]


def _count(found: Counter[str], expected: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """Hold records against those that were acknowledged: each of them once, and no other."""
    keys = expected[0].keys()
    there = Counter(json.dumps({key: record.get(key) for key in keys}) for record in records)
    wanted = Counter(json.dumps(record) for record in expected)
    found["lost"] += (wanted - there).total()
    found["twice"] += (there - wanted).total()


def faults_in(result: dict[str, Any]) -> dict[str, int]:
    """The counts that have to be zero and are not."""
    return {name: result[name] for name in BAD if result[name]}


def main() -> int:
    """Play, print the counts, and fail when anything was lost."""
    parser = argparse.ArgumentParser(description="Many writers of one results folder.")
    parser.add_argument("--writers", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, nargs="+", help="mounts of one place; a new folder is made in it")
    parser.add_argument("--json", type=Path)
    given: Any = parser.parse_args()
    first = Path(tempfile.mkdtemp(prefix="hpcft-writers-", dir=given.folder[0] if given.folder else None))
    try:
        mounts = [mount / first.name for mount in given.folder] if given.folder else [first]
        result = play(mounts, given.writers, given.seconds, given.seed)
    finally:
        shutil.rmtree(first, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if given.json:
        save(given.json, "writers", {"seed": given.seed, "counts": result})
    return 1 if faults_in(result) else 0


if __name__ == "__main__":
    sys.exit(main())

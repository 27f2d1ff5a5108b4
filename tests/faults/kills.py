"""kill -9 at random moments: of the writer of an event log, and of one who saves checkpoints.

    PYTHONPATH=tests:src python -m faults.kills [--log-kills 200] [--save-kills 200] [--damages 300] [--seed 1]

A record counts as acknowledged when `append` has returned; a checkpoint when `commit` has. After each kill the files
are read as the next attempt reads them: nothing acknowledged may be missing, and nothing damaged taken for good.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faults.report import save

from hpcft.runs.events import EventLog, read_log
from hpcft.runs.paths import RunPaths
from hpcft.train.checkpoint import (
    Manifest,
    checkpoints,
    commit,
    contents,
    faults,
    make_durable,
    read_manifest,
    remove_older,
)  # fmt: skip

_COUNTER = struct.Struct("Q")


class Counter:
    """A number that a killed process has left in memory."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _COUNTER.size)

    @property
    def value(self) -> int:
        """The number."""
        return int(_COUNTER.unpack_from(self._memory)[0])

    @value.setter
    def value(self, number: int) -> None:
        _COUNTER.pack_into(self._memory, 0, number)


def killed(work: Callable[[Counter], None], after_s: float) -> int:
    """Do something in a process of its own, kill it, and give the last number that it has acknowledged."""
    counter = Counter()
    if not (pid := os.fork()):
        try:
            work(counter)
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return counter.value


def kill_writers(folder: Path, kills: int, seed: int, longest_s: float) -> dict[str, int]:
    """Kill writers of event logs; every second one goes on with the log of the one before."""
    rng = random.Random(seed)
    found = {"kills": kills, "acknowledged": 0, "lost": 0, "damaged lines": 0, "torn tails": 0, "numbers twice": 0}
    path, before, seen = folder / "0.jsonl", 0, 0
    for turn in range(kills):
        if turn % 2 == 0:
            path, before, seen = folder / f"{turn}.jsonl", 0, 0
        number = killed(partial(_write, path), rng.uniform(0, longest_s))
        log = read_log(path)
        records = [record["n"] for record in log.records[seen:]]
        found["acknowledged"] += number
        found["lost"] += len(set(range(1, number + 1)) - set(records)) + max(0, before - len(log.records))
        # A torn tail that the next writer has closed reads as a damaged line afterwards.
        found["damaged lines"] += len(log.damaged)
        found["torn tails"] += log.torn > 0
        found["numbers twice"] += len(log.records) - len({record["seq"] for record in log.records})
        before = seen = len(log.records)
        if turn % 2:
            path.unlink(missing_ok=True)  # both may be killed before there is one
    return found


def _write(path: Path, counter: Counter) -> None:
    log, number = EventLog(path, sync_seconds=0.01), 0
    while True:
        number += 1
        log.append("step", n=number, loss=1.5, words="größe" * (number % 7))
        counter.value = number


def kill_savers(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill processes that save one checkpoint after another; each goes on from the newest good one."""
    rng = random.Random(seed)
    paths = RunPaths(folder / "run")
    found = {"kills": kills, "saved": 0, "acknowledged and lost": 0, "cut off": 0, "loaded though damaged": 0}
    began = time.monotonic()
    _save(RunPaths(folder / "measured"), 1, 0, Counter(), saves=3)
    save_s = (time.monotonic() - began) / 3
    last = 0
    for turn in range(kills):
        attempt = turn + 1
        paths.attempt(attempt).mkdir(parents=True)
        start = last
        last = max(killed(partial(_save, paths, attempt, start), rng.uniform(0, 3 * save_s)), last)
        found["cut off"] += any(True for _ in paths.saving(attempt).glob("checkpoint-*"))
        found["saved"] += last - start
        good = [f for f in checkpoints(paths) if _is_good(f)]
        newest = int(good[0].name[11:]) if good else 0
        found["acknowledged and lost"] += newest < last
        found["loaded though damaged"] += sum(not _is_whole(f) for f in good)
        last = max(last, newest)
        shutil.rmtree(paths.saving(attempt), ignore_errors=True)
    return found


def _save(paths: RunPaths, attempt: int, step: int, counter: Counter, saves: int = 1_000_000) -> None:
    counter.value = step
    for _ in range(saves):
        step += 1
        aside = paths.saving(attempt) / f"checkpoint-{step}"
        aside.mkdir(parents=True)
        for part, size in enumerate((200_000, 10, 0, 3_000)):
            (aside / f"part{part}").write_bytes(_content(step, part, size))
        commit(paths, aside, Manifest(step, 1, None, attempt, {}, make_durable(aside, contents(aside))))
        counter.value = step
        remove_older(paths, None)


def _content(step: int, part: int, size: int) -> bytes:
    return random.Random(step * 10 + part).randbytes(size)


def _is_good(folder: Path) -> bool:
    """As the next attempt sees it."""
    manifest = read_manifest(folder)
    return manifest is not None and not faults(folder, manifest)


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint holds what was put into it, by its content and not by its manifest."""
    step = int(folder.name[11:])
    sizes = enumerate((200_000, 10, 0, 3_000))
    return all((folder / f"part{part}").read_bytes() == _content(step, part, size) for part, size in sizes)


def damage_checkpoints(folder: Path, damages: int, seed: int) -> dict[str, int]:
    """Damage a file of the newest of two checkpoints; it has to be noticed, and the older one taken."""
    rng = random.Random(seed)
    found = {"damaged": damages, "noticed": 0, "taken though damaged": 0, "good one refused": 0}
    for turn in range(damages):
        paths = RunPaths(folder / f"damaged{turn}")
        paths.attempt(1).mkdir(parents=True)
        for step in (1, 2):
            aside = paths.saving(1) / f"checkpoint-{step}"
            aside.mkdir(parents=True)
            for part, size in enumerate((2_000, 10, 0, 3_000)):
                (aside / f"part{part}").write_bytes(_content(step, part, size))
            commit(paths, aside, Manifest(step, 1, None, 1, {}, make_durable(aside, contents(aside))))
        newest, older = checkpoints(paths)
        _damage(rng.choice(sorted(newest.iterdir())), rng)
        found["noticed"] += not _is_good(newest)
        found["taken though damaged"] += _is_good(newest)
        found["good one refused"] += not _is_good(older)
        shutil.rmtree(paths.root)
    return found


def _damage(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    way = rng.choice(("flip", "truncate", "grow", "remove", "empty"))
    if way == "remove":
        file.unlink()
    elif way == "grow" or not content:
        file.write_bytes(bytes(content) + rng.randbytes(rng.randint(1, 50)))
    elif way == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    else:
        file.write_bytes(content[: rng.randrange(len(content)) if way == "truncate" else 0])


def play(log_kills: int, save_kills: int, damages: int, seed: int, longest_s: float) -> dict[str, dict[str, int]]:
    """All three, in a folder of their own."""
    folder = Path(tempfile.mkdtemp(prefix="hpcft-kills-"))
    try:
        return {
            "event log": kill_writers(folder, log_kills, seed, longest_s),
            "save": kill_savers(folder, save_kills, seed),
            "damage": damage_checkpoints(folder, damages, seed),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


BAD = ("lost", "numbers twice", "acknowledged and lost", "loaded though damaged", "taken though damaged",
       "good one refused")  # fmt: skip


def faults_in(result: dict[str, dict[str, int]]) -> dict[str, int]:
    """The counts that have to be zero and are not."""
    return {f"{part}: {name}": n for part, counts in result.items() for name, n in counts.items() if name in BAD and n}


def main() -> int:
    """Play, print the counts, and fail when anything acknowledged was lost."""
    parser = argparse.ArgumentParser(description="kill -9 at random moments.")
    parser.add_argument("--log-kills", type=int, default=200)
    parser.add_argument("--save-kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=300)
    parser.add_argument("--longest", type=float, default=0.04, help="life of a log's writer in seconds, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given: Any = parser.parse_args()
    result = play(given.log_kills, given.save_kills, given.damages, given.seed, given.longest)
    print(json.dumps(result, indent=2))
    if given.json:
        save(given.json, "kills", {"seed": given.seed, "counts": result})
    return 1 if faults_in(result) else 0


if __name__ == "__main__":
    sys.exit(main())

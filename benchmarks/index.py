"""The index of many runs: made, brought up to date, asked (G2, G24, G25).

    .venv/bin/python benchmarks/index.py [--runs 10000] [--rounds 5]

Makes run directories as jobs leave them (settings in the journal, 36 metrics in metrics.json, nine of ten finished) on
this disk, then: the index made anew; brought up to date with nothing new, and after one run in a hundred has changed;
a sort and a filter by any metric; the points of a comparison and the front of 2 to 6 measures; and `hpcft ls` beside a
bare Python, in turns, both with their bytecode. Beside the time stands the processor's, children included, since a
busy machine makes the time longer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hpcft.report.pareto import Measure, front
from hpcft.report.points import indexed_points
from hpcft.runs.events import encode
from hpcft.runs.index.query import Index, Query, condition
from hpcft.runs.index.scan import refresh

SEED = 0
HPCFT = Path(sys.executable).with_name("hpcft")


def make(results: Path, count: int) -> None:
    """Run directories, a tenth of which failed or go on."""
    rng = random.Random(SEED)
    start = time.time() - 30 * 86400
    for i in range(count):
        root = results / f"run_{i:06d}"
        root.mkdir(parents=True)
        variant, rank = rng.choice(["full", "lora", "qlora"]), rng.choice([4, 8, 16, 32])
        (root / "config.yaml").write_text(f"variant: {variant}\nlora: {{r: {rank}}}\n")
        facts = {"run_id": f"r{i:08d}xy", "submission": 1, "cluster": "slurm", "scheduler": "slurm", "ranks": 1}
        facts |= {"job_name": f"run_{i}.r{i:08d}xy", "host": "login", "job_kind": "train", "variant": variant}
        facts |= {"model": f"org/model-{i % 7}", "dataset": f"set{i % 5}.csv"}
        config = {"variant": variant, "lora.r": rank, "training.seed": i % 5, "training.learning_rate": rng.random()}
        config |= {f"training.key_{k}": rng.random() for k in range(6)}
        at = start + i * 60
        records = [
            {"seq": 1, "t": at, "kind": "intent", **facts, "config": config},
            {"seq": 2, "t": at, "kind": "submitted", "submission": 1, "job_id": str(i)},
        ]
        (root / "client.jsonl").write_bytes(b"".join(encode(record) for record in records))
        done = i % 10 != 0
        status = {"state": "finished" if done else "failed", "attempt": 1, "step": 100, "total_steps": 100, "loss": 1.5}
        (root / "status.json").write_text(json.dumps({**status, "message": "", "time": at}))
        if done:
            metrics = {f"train/metric_{k}": rng.random() for k in range(34)}
            metrics |= {"final/validation_f1_score": rng.random(), "train/runtime_s": rng.random() * 1e4}
            (root / "metrics.json").write_text(json.dumps(metrics))
            (root / "done.json").write_text("{}")


def timed(call: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median and largest of the rounds, and the median of the processor's time, in seconds."""
    taken, worked = [], []
    for _ in range(rounds):
        start, before = time.perf_counter(), _processor()
        call()
        taken.append(time.perf_counter() - start)
        worked.append(_processor() - before)
    return statistics.median(taken), max(taken), statistics.median(worked)


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def show(what: str, taken: tuple[float, float, float]) -> None:
    """A line."""
    print(f"{what:<58} {1e3 * taken[0]:9.1f} ms   largest {1e3 * taken[1]:.1f}   processor {1e3 * taken[2]:.1f}")


def compare(store: Index, rounds: int) -> None:
    """The points of all runs, and their front."""
    for count in (2, 3, 4, 6):
        measures = [Measure(f"train/metric_{i}", i % 2 == 0) for i in range(count)]
        keys = [measure.key for measure in measures]
        points, _ = indexed_points(store, keys)
        show(f"points of {count} measures", timed(partial(indexed_points, store, keys), rounds))
        members = len(front(points, measures).members)
        show(f"front of {count} measures, {members} members", timed(partial(front, points, measures), rounds))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {options.runs:,} runs, seed {SEED}")
    with tempfile.TemporaryDirectory() as folder:
        results, index = Path(folder) / "results", Path(folder) / "index.sqlite"
        make(results, options.runs)

        def anew() -> None:
            index.unlink(missing_ok=True)
            refresh(results, index)

        show("index made anew", timed(anew, options.rounds))
        print(f"{'its size':<58} {index.stat().st_size / 1e6:9.1f} MB")
        show("brought up to date, nothing new", timed(lambda: refresh(results, index), options.rounds))

        def touched() -> None:
            for i in range(0, options.runs, 100):
                os.utime(results / f"run_{i:06d}" / "status.json")
            refresh(results, index)

        show("brought up to date, one in a hundred changed", timed(touched, options.rounds))
        with Index(results, fresh=False, path=index) as store:
            f1 = "final/validation_f1_score"
            page = Query(sort=f1, limit=50, show=(f1, "train/metric_7", "lora.r"))
            show("sorted by a metric, 50 shown", timed(lambda: store.find(page), 4 * options.rounds))
            where = tuple(condition(text) for text in ("train/metric_3>0.5", "lora.r>=8", "variant=qlora"))
            chosen = Query(where=where, sort="train/metric_9", limit=50, show=(f1,))
            show("three conditions, sorted by another metric", timed(lambda: store.find(chosen), 4 * options.rounds))
            compare(store, 2 * options.rounds)
        environment = os.environ | {"HPCFT_INDEX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        bare = [sys.executable, "-c", "pass"]
        ls = [str(HPCFT), "ls", "--results", str(results)]

        def run(command: list[str]) -> float:
            start = time.perf_counter()
            subprocess.run(command, env=environment, capture_output=True, check=True)
            return time.perf_counter() - start

        run(ls)
        pairs = [(run(ls), run(bare), run(bare)) for _ in range(2 * options.rounds)]
        ratio = statistics.median(a / b for a, b, _ in pairs)
        control = statistics.median(c / b for _, b, c in pairs)
        print(f"hpcft ls / a bare Python: {ratio:.2f} (the bare one beside itself {control:.2f})")


if __name__ == "__main__":
    main()

"""The service over many runs: how long a page takes, and how heavy it is (G24).

    .venv/bin/python benchmarks/web.py [--runs 10000] [--requests 100]

Starts `hpcft serve` on a socket over run directories as benchmarks/index.py makes them, and asks for each kind of page
in turns, in a shuffled order, from one client that waits for each answer. The first request, which makes the index, is
not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from index import SEED, make

HPCFT = Path(sys.executable).with_name("hpcft")
_SHOW = "show=train/metric_3,lora.r"
PAGES = {
    "records, the newest": lambda dice: "/records",
    "records, a later page": lambda dice: f"/records?page={dice.randint(2, 200)}&sort=created&desc=true",
    "records, sorted by a metric": lambda dice: f"/records?sort=train/metric_{dice.randint(0, 9)}&desc=true&{_SHOW}",
    "records, filtered by a metric": lambda dice: f"/records?where=f1>{dice.random():.3f},lora.r>=8&{_SHOW}",
    "records, grouped": lambda dice: "/records?by=variant,lora.r&show=f1",
    "a run": lambda dice: f"/runs/run_{dice.randint(0, 9999):06d}",
    "pareto, 2 measures": lambda dice: "/pareto?measure=f1&other=train/runtime_s:min",
    "pareto, 4 measures": lambda dice: (
        "/pareto?measure=f1&other=train/runtime_s:min,train/metric_1:min,train/metric_2:max"
    ),
    "submit": lambda dice: "/submit",
    "experiments, as JSON": lambda dice: "/api/v1/experiments?limit=50",
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    print(f"{options.runs:,} runs, seed {SEED}, {options.requests} requests of each kind")
    with tempfile.TemporaryDirectory() as folder:
        results, socket = Path(folder) / "results", Path(folder) / "own/serve.sock"
        make(results, options.runs)
        environment = os.environ | {"HPCFT_INDEX": f"{folder}/index", "HOME": folder, "OMP_NUM_THREADS": "1"}
        command = [str(HPCFT), "serve", "--results", str(results), "--socket", str(socket), "--force"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as service:
            try:
                measure(socket, options.requests)
            finally:
                service.terminate()


def measure(socket: Path, requests: int) -> None:
    """Ask, and print a line for each kind of page."""
    dice = random.Random(SEED)
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost", timeout=300)
    while not socket.exists():
        time.sleep(0.05)
    for page in PAGES.values():
        client.get(page(dice)).raise_for_status()
    order = [name for name in PAGES for _ in range(requests)]
    dice.shuffle(order)
    taken: dict[str, list[float]] = {name: [] for name in PAGES}
    weight = dict.fromkeys(PAGES, 0)
    for name in order:
        address = PAGES[name](dice)
        began = time.perf_counter()
        answer = client.get(address)
        taken[name].append(1e3 * (time.perf_counter() - began))
        answer.raise_for_status()
        weight[name] = max(weight[name], int(answer.headers["content-length"]))
    print(f"{'page':<34}{'median':>10}{'p95':>10}{'kB':>8}")
    for name, times in taken.items():
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"{name:<34}{statistics.median(times):>7.1f} ms{p95:>7.1f} ms{weight[name] / 1e3:>8.1f}")


if __name__ == "__main__":
    main()

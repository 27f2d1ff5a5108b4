"""What a pass over a data set costs in time and memory, by its number of rows.

    .venv/bin/python benchmarks/data_check.py [--rows 100000 1000000] [--near 2000 10000]

Makes CSV files of short sentences with a label, one row in a hundred repeated, and checks each in a process of its own:
seconds and peak memory, less those of a pass over no more than 1,000 rows. Then near-duplicates among so many rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpcft.data.care.check import reader
from hpcft.data.care.near import near_pairs
from hpcft.data.care.survey import survey
from hpcft.spec.job import ChecksSection, DataSection

SEED, FEWEST = 0, 1_000
WORDS = (
    *("the", "film", "is", "a", "warm", "cold", "dull", "bright", "story", "of", "two", "men", "and", "one"),
    *("river", "in", "early", "summer", "told", "with", "care"),
)


def sentences(count: int) -> list[str]:
    """Sentences of 12 words and a number; every hundredth one stands twice."""
    rng = random.Random(SEED)
    return [f"{' '.join(rng.choices(WORDS, k=12))} {i - i % 100 if i % 100 == 1 else i}" for i in range(count)]


def make(path: Path, count: int) -> None:
    """Write them with a label each, without holding them."""
    rng = random.Random(SEED)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sentence", "label"))
        for i in range(count):
            text = f"{' '.join(rng.choices(WORDS, k=12))} {i}"
            writer.writerow((text, i % 2))
            if i % 100 == 0:
                writer.writerow((text, i % 2))


def one_pass(path: str) -> None:
    """Check a file, and print rows, seconds and the peak of this process in bytes."""
    data = DataSection(dataset=path)
    start = time.perf_counter()
    found = survey(reader(path, data), path, data, ChecksSection())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    repeated = found.issues["duplicate_entries"].count
    print(json.dumps({"rows": found.rows, "seconds": seconds, "peak": peak, "repeated": repeated}))


def measured(path: Path) -> dict[str, float]:
    """The same in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", str(path)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--near", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_pass(options.one)
        return
    print(f"{platform.platform()}, Python {platform.python_version()}, seed {SEED}")
    with tempfile.TemporaryDirectory() as folder:
        least = None
        for count in [FEWEST, *options.rows]:
            path = Path(folder) / "rows.csv"
            make(path, count)
            found = measured(path)
            least = least or found
            more = found["rows"] - least["rows"]
            each = f", {(found['peak'] - least['peak']) / more:.0f} bytes a row" if more else ""
            print(
                f"{found['rows']:,} rows: {found['seconds']:.2f} s, {found['rows'] / found['seconds']:,.0f} rows/s, "
                f"peak {found['peak'] / 1e6:.0f} MB{each}, {found['repeated']:,} repeated"
            )
    for count in options.near:
        texts = sentences(count)
        start = time.perf_counter()
        pairs = near_pairs(texts, 0.85)
        seconds = time.perf_counter() - start
        each = 1e3 * seconds / count
        print(f"near-duplicates among {count:,} rows: {seconds:.2f} s, {each:.2f} ms a row, {len(pairs)} found")


if __name__ == "__main__":
    main()

"""Start-up times side by side: `hpcft --help` against a bare Typer program, `submit --dry-run` against it too;
and how long a shell waits for its completions.

Both sides run in one call, in shuffled order, one thread each, after a warm-up; what is printed are medians of
paired ratios, with a control that pairs the bare program with itself.

    python benchmarks/startup.py [--rounds 15] [--seed 0]
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
from importlib.metadata import version
from pathlib import Path

from hpcft.cli.main import COMPLETE

HELLO = """
import typer

def main(name: str = "world"):
    print(f"Hello {name}")

typer.run(main)
"""


def seconds(command: list[str], cwd: str, environment: dict[str, str]) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print; exit 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hpcft = str(Path(sys.executable).with_name("hpcft"))
    submit = [hpcft, "submit", "--variant", "qlora", "--preset", "quickstart", "--cluster", "local", "--dry-run"]
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        bare = [sys.executable, str(hello)]
        commands = {
            "bare Typer, hello --help": [*bare, "--help"],
            "bare Typer, hello": bare,
            "bare Typer, hello (control)": bare,
            "hpcft --help": [hpcft, "--help"],
            "hpcft submit --dry-run": submit,
            "completion of a verb": ["env", f"{COMPLETE}=complete_bash", "COMP_WORDS=hpcft s", "COMP_CWORD=1", hpcft],
            "completion of a key": [
                *("env", f"{COMPLETE}=complete_bash", "COMP_WORDS=hpcft submit --set training.z", "COMP_CWORD=3"),
                hpcft,
            ],
        }
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times: dict[str, list[float]] = {name: [] for name in commands}
        order = list(commands)
        shuffle = random.Random(options.seed).shuffle
        for turn in range(options.rounds + 1):
            shuffle(order)
            for name in order:
                taken = seconds(commands[name], folder, environment)
                if turn:
                    times[name].append(taken)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"typer {version('typer')}, hpcft {version('hpcft')}, seed {options.seed}, {options.rounds} rounds")
    for name, values in times.items():
        print(f"  {name:<28} median {1000 * statistics.median(values):6.1f} ms  min {1000 * min(values):6.1f} ms")

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    bars = [
        ("hpcft --help", "bare Typer, hello --help", 1.3),
        ("hpcft submit --dry-run", "bare Typer, hello", 3.0),
    ]
    control = ratio("bare Typer, hello (control)", "bare Typer, hello")
    print(f"control (bare against itself): {control:.3f}")
    missed = False
    for one, other, bar in bars:
        value = ratio(one, other)
        missed |= value > bar
        print(f"{one} / {other}: {value:.2f} (bar {bar})")
    sys.exit(missed)


if __name__ == "__main__":
    main()

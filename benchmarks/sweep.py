"""A sweep's way to Slurm: calls of sbatch, seconds and inodes, beside submitit's map_array and beside a floor, which
is a manifest of JSON lines and one sbatch.

    eval "$(.venv/bin/python tests/slurm/cluster.py start)"
    .venv/bin/python benchmarks/sweep.py [--trials 1000] [--rounds 7] [--seed 0]

It takes the sbatch that it finds and says which; jobs are held, and cancelled after each submission. All sides run in
one process, in shuffled order, after a warm-up with ten trials; what is printed are medians of paired ratios, with a
control that pairs the floor with itself. Imports are not counted on any side.

Slurm's MaxJobCount (10,000) counts cancelled jobs for some minutes, and sbatch waits when it is reached: for many
trials take a fresh cluster and one round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from hpcft.cli.trials import make_sweep, plan_trials
from hpcft.cluster.array import submit_trials
from hpcft.spec.layers import mapping_layer
from hpcft.spec.sweep import short_sweep

HELD = "scheduler: slurm\nresources: {accelerator: cpu, time: 10, mem_gb: 1}\nsbatch: {hold: ''}\n"
SCRIPT = "#!/bin/sh\n#SBATCH --array=0-{last}\n#SBATCH --hold\n#SBATCH --time=10\n#SBATCH --output=/dev/null\ntrue\n"
FLOOR, CONTROL, OURS, SUBMITIT = "manifest and one sbatch", "the same (control)", "hpcft", "submitit map_array"


def double(number: int) -> int:
    """What submitit's jobs would do."""
    return 2 * number


def floor(folder: Path, trials: int) -> None:
    """The least that has to be done: what the trials are, on disk, and one array."""
    folder.mkdir()
    with (folder / "manifest.jsonl").open("w") as manifest:
        for number in range(trials):
            manifest.write(json.dumps({"number": number, "overrides": {"training.seed": number}}) + "\n")
        manifest.flush()
        os.fsync(manifest.fileno())
    (folder / "job.sh").write_text(SCRIPT.format(last=trials - 1))
    done = subprocess.run(["sbatch", str(folder / "job.sh")], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def ours(folder: Path, trials: int) -> Callable[[], None]:
    """Submission of a sweep whose trials have been checked."""
    wanted = {"results": str(folder), "model.name": "quickstart", "data.dataset": "quickstart", "name": "s"}
    layers = [mapping_layer(wanted, "benchmark")]
    began = time.perf_counter()
    plan = plan_trials(
        short_sweep([], trials, 0), layers, str(folder.parent / "held.yaml"), count=None, seed=0, concurrency=None
    )
    checks.setdefault(trials, []).append(time.perf_counter() - began)

    def submit() -> None:
        sweep = make_sweep(plan)
        numbers = [trial.number for trial in plan.trials]
        left = submit_trials(sweep, plan.base.resolved.job, plan.base.profile, numbers, print).left
        assert not left, left

    return submit


def submitit_array(folder: Path, trials: int) -> None:
    """The same number of jobs by submitit."""
    import submitit

    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=0)
    executor.update_parameters(time=10, array_parallelism=trials, additional_parameters={"hold": True})
    executor.map_array(double, list(range(trials)))


def inodes(folder: Path) -> int:
    """Files and folders that were made."""
    return 1 + sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def cpu_seconds() -> float:
    """What this process and those that it has waited for have computed: it says more where others are at work."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


# trials → seconds of each check of all their jobs; side → seconds of computing of each submission.
checks: dict[int, list[float]] = {}
computing: dict[str, list[float]] = {}


class Bench:
    """The sides, with a count of their sbatch calls.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        real = shutil.which("sbatch")
        if real is None:
            sys.exit("no sbatch here: start the tests' cluster, or go to a login node")
        (root / "bin").mkdir()
        # The same few milliseconds for every side.
        (root / "bin/sbatch").write_text(f'#!/bin/sh\necho >> "{self.calls}"\nexec "{real}" "$@"\n')
        (root / "bin/sbatch").chmod(0o700)
        os.environ["PATH"] = f"{root / 'bin'}:{os.environ['PATH']}"
        (root / "held.yaml").write_text(HELD)

    def once(self, side: str, trials: int) -> tuple[float, int, int, str]:
        """Seconds, sbatch calls and inodes of one submission, and what went wrong."""
        folder = self.root / "work"
        act: Callable[[], None] = {
            FLOOR: lambda: floor(folder, trials),
            CONTROL: lambda: floor(folder, trials),
            OURS: ours(folder, trials) if side == OURS else lambda: None,
            SUBMITIT: lambda: submitit_array(folder, trials),
        }[side]
        self.calls.write_text("")
        wrong = ""
        began, before = time.perf_counter(), cpu_seconds()
        try:
            act()
        except Exception as error:
            wrong = str(error).strip().rpartition("\n")[2]
        seconds = time.perf_counter() - began
        computing.setdefault(side, []).append(cpu_seconds() - before)
        found = seconds, len(self.calls.read_text()), inodes(folder), wrong
        subprocess.run(["scancel", "--me"], check=True)
        shutil.rmtree(folder)
        return found

    def rounds(self, trials: int, count: int, seed: int, sides: list[str]) -> dict[str, list[float]]:
        """Times of each side, printed with their other figures."""
        times: dict[str, list[float]] = {side: [] for side in sides}
        told: dict[str, tuple[int, int, str]] = {}
        shuffle, order = random.Random(seed).shuffle, list(sides)
        for side in sides:
            self.once(side, 10)
        for _ in range(count):
            shuffle(order)
            for side in order:
                seconds, *told_of = self.once(side, trials)
                told[side] = (told_of[0], told_of[1], told_of[2])
                times[side].append(seconds)
        for side, (calls, made, wrong) in told.items():
            wall, own = (1000 * statistics.median(values) for values in (times[side], computing[side][-count:]))
            figures = f"median {wall:6.0f} ms, {own:5.0f} ms of computing, {calls} sbatch, {made} inodes"
            print(f"  {side:<24} {figures}" + (f"; refused: {wrong}" if wrong else ""))
        print(f"  all jobs checked before it: {1000 * statistics.median(checks[trials]):.0f} ms")
        return times


def ratio(times: dict[str, list[float]], a: str, b: str) -> float:
    """Median of the paired ratios of two sides."""
    return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        kind = "the tests' fake sbatch" if "FAKE_SLURM_DIR" in os.environ else "sbatch"
        shown = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        print(f"machine: {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {kind}: {shown}")
        print(f"submitit {version('submitit')}, hpcft {version('hpcft')}, seed {given.seed}, {given.rounds} rounds")
        print(f"{given.trials:,} trials")
        times = bench.rounds(given.trials, given.rounds, given.seed, [FLOOR, CONTROL, OURS, SUBMITIT])
        noise = abs(ratio(times, CONTROL, FLOOR) - 1)
        print(f"  control: the floor against itself differs by {noise:.1%}")
        for other in (FLOOR, SUBMITIT):
            found = ratio(times, OURS, other)
            sure = (
                "" if noise <= abs(found - 1) / 2 else ", inconclusive: the control's noise is more than half of that"
            )
            print(f"  hpcft / {other}: {found:.2f}{sure}")


if __name__ == "__main__":
    main()

"""Submissions to a real Slurm while sbatch fails and clients are killed; then Slurm's jobs and the runs' journals are
compared as sets.

    PYTHONPATH=tests:src python -m faults.exactly_once [--submissions 500] [--faults 0.3] [--seed 1] [--json FILE]

On a cluster of our own, or the one that SLURM_CONF names. The jobs are held, so that none is forgotten before it is
counted, and cancelled at the end. A user is played who wants one job of each name: whoever gets an error, or is killed,
runs `hpcft doctor --repair` and submits again what is then free.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from faults.lab import BIN, own_cluster
from faults.report import save

from hpcft.cluster.lookup import parse_keys
from hpcft.cluster.repair import repair
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import submissions

PROFILE = {
    "scheduler": "slurm",
    "resources": {"accelerator": "cpu", "time": "00:05:00", "cpus_per_task": 1, "mem_gb": 1},
    "sbatch": {"hold": ""},
}
_FAULTS = (
    "accepts_and_times_out", "accepts_and_says_nothing", "accepts_and_dies", "accepts_and_talks_nonsense",
    "times_out", "dies", "is_slow", "refuses", "has_no_controller",
)  # fmt: skip
# One in so many faulty submissions waits for the client's own time limit of a minute.
_HANGS = 50
_PATIENCE_S = 120.0


@dataclass
class Result:
    """What the sets say.

    Attributes:
        lost: names without a job, or whose journal names a job that Slurm does not have.
        twice: names, or keys, of more than one job.
        strangers: jobs that no journal knows.
        open: runs of which it is still not known.
    """

    submissions: int
    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    clients: int = 0
    kills: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Nothing lost, nothing twice, nothing unknown."""
        return not (self.lost or self.twice or self.strangers or self.open)


class Drill:
    """The users and their folder.

    Args:
        folder: where the run directories go.
        count: names to submit. rate: share of submissions with a fault. seed: of which, and when.
        rounds: how often what is free is submitted again; the last time without faults.
    """

    def __init__(self, folder: Path, count: int, rate: float, seed: int, rounds: int) -> None:
        self.folder, self.rate, self.rounds = folder, rate, rounds
        self.results = folder / "results"
        self.names = [f"r{number:05d}" for number in range(count)]
        self.random = random.Random(seed)
        self.result = Result(count, seed)
        self.life_s = 1.0
        (folder / "hpc").mkdir()
        (folder / "hpc/held.yaml").write_text(yaml.safe_dump(PROFILE))
        self.environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "FAULT_SBATCH": shutil.which("sbatch") or "sbatch",
            "HOME": str(folder),
            "HPCFT_CACHE": str(folder / "cache"),
        }

    def run(self) -> Result:
        """Submit until each name has its job, then compare."""
        began = time.monotonic()
        # A client that is killed is killed at any time of its life, which is as long as the machine is busy.
        self.client(self.names[0], "", None)
        self.life_s = time.monotonic() - began
        for round_number in range(self.rounds):
            wanted = [name for name in self.names if self.is_free(name)]
            # In the last round nothing fails, as users try again until it works.
            rate = self.rate if round_number < self.rounds - 1 else 0.0
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda work: self.client(*work), [(name, *self.draw(rate)) for name in wanted]))
            self.settle()
        self.compare()
        self.result.seconds = time.monotonic() - began
        return self.result

    def settle(self) -> None:
        """Repair until nothing is open; a request has to be a minute old before it is given up."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            outcomes = [settled.outcome for settled in repair(self.results, lambda _: None)]
            self.result.repaired.update(outcome for outcome in outcomes if outcome != "left")
            if not self.open() or time.monotonic() > end:
                return
            time.sleep(3)

    def draw(self, rate: float) -> tuple[str, float | None]:
        """A fault of sbatch, and seconds until the client is killed."""
        if self.random.random() >= rate:
            return "", None
        if self.random.random() < 1 / _HANGS:
            return "accepts_and_hangs", None
        fault = self.random.choice(("", *_FAULTS))
        return fault, self.random.uniform(0, 1.2 * self.life_s) if fault == "" or self.random.random() < 0.5 else None

    def client(self, name: str, fault: str, dies_after_s: float | None) -> None:
        """Submit one name as a user does, or resume its run directory."""
        again = self.runs_of(name)
        words = ["resume", str(again[-1])] if again else self.words(name)
        command = [sys.executable, "-P", "-m", "hpcft.cli.main", *words]
        quiet = subprocess.DEVNULL
        environment = self.environment | ({"FAULT": fault} if fault else {})
        process = subprocess.Popen(
            command, env=environment, cwd=self.folder, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        self.result.clients += 1
        if fault:
            self.result.faults[fault] += 1
        try:
            process.wait(dies_after_s)
        except subprocess.TimeoutExpired:
            self.result.kills += 1
            # The client alone: an sbatch that it has started goes on.
            process.send_signal(signal.SIGKILL)
            process.wait()

    def words(self, name: str) -> list[str]:
        """The command line."""
        words = ["submit", "--cluster", "held", "--preset", "quickstart", "--model"]
        return [*words, "quickstart", "--variant", "lora", "--name", name, "--results", str(self.results)]

    def runs_of(self, name: str) -> list[Path]:
        """The run directories of a name that have a submission; a client that dies early leaves less than a run."""
        found = [path for path in self.results.glob(f"{name}*") if submissions(RunPaths(path))]
        return sorted(path for path in found if submissions(RunPaths(path))[-1].key)

    def is_free(self, name: str) -> bool:
        """Whether the user would submit it (again): it has no job, and that is certain."""
        last = [submissions(RunPaths(path))[-1] for path in self.runs_of(name)]
        return all(not s.is_open and not s.was_sent for s in last)

    def open(self) -> list[str]:
        """Runs of which it is not known whether they have a job."""
        known = [(path.parent.name, submissions(RunPaths(path.parent))) for path in self.results.glob("*/submission.1")]
        return [name for name, found in known if found and found[-1].is_open]

    def compare(self) -> None:
        """The journals against Slurm."""
        answer = subprocess.run(
            ["squeue", "--noheader", "--me", "--states=all", "--format=%F|%j|%k"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        jobs = {(job_id, key) for key, job_id in parse_keys(answer.stdout)}
        mine = {(job_id, key) for job_id, key in jobs if self.knows(key)}
        journals = {
            (s.job_id, s.key): path.name
            for path in self.results.iterdir()
            for s in submissions(RunPaths(path))
            if s.kind == "submitted"
        }
        result = self.result
        result.jobs = len(mine)
        result.open = self.open()
        result.strangers = [f"{job_id} {key}" for job_id, key in mine - journals.keys()]
        result.lost = [name for pair, name in journals.items() if pair not in mine]
        per_name = Counter(name[:6] for name in journals.values())
        result.lost += [name for name in self.names if not per_name[name]]
        per_key = Counter(key for _, key in mine)
        result.twice = [name for name, number in per_name.items() if number > 1]
        result.twice += [key for key, number in per_key.items() if number > 1]

    def knows(self, key: str) -> bool:
        """Whether a job's key is of this drill: other jobs may be in the queue."""
        if not hasattr(self, "_keys"):
            paths = [RunPaths(path) for path in self.results.iterdir()]
            self._keys = {s.key.partition("-")[0] for p in paths for s in submissions(p) if s.key}
        return key.partition("-")[0] in self._keys

    def clean_up(self) -> None:
        """Cancel the jobs."""
        ids = [s.job_id for path in self.results.iterdir() for s in submissions(RunPaths(path)) if s.job_id]
        for start in range(0, len(ids), 200):
            subprocess.run(["scancel", *ids[start : start + 200]], check=False)


def drill(count: int, rate: float, seed: int, rounds: int = 6) -> Result:
    """Run the drill in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hpcft-once-"))
    work = Drill(folder, count, rate, seed, rounds)
    try:
        return work.run()
    finally:
        work.clean_up()
        shutil.rmtree(folder, ignore_errors=True)


def document(result: Result) -> dict[str, Any]:
    """The result as JSON has it."""
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(result).items()}


def main() -> int:
    """Run it, print the sets, and fail when they differ."""
    parser = argparse.ArgumentParser(description="Exactly once, on a real Slurm.")
    parser.add_argument("--submissions", type=int, default=500)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with contextlib.nullcontext() if "SLURM_CONF" in os.environ else own_cluster():
        result = drill(given.submissions, given.faults, given.seed)
        if given.json:
            save(given.json, "exactly_once", document(result))
    print(json.dumps(document(result), indent=2))
    return 0 if result.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())

"""Jobs on a real Slurm, what befalls them, and what became of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from hpcft.cluster.queue import JobState, QueueInfo, ask
from hpcft.runs.events import read_log
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run

BIN = Path(__file__).parent / "bin"
SPEC: dict[str, Any] = {
    "variant": "lora",
    "data": {"dataset": "quickstart", "train_samples": 160, "eval_samples": 2, "max_length": 128},
    "lora": {"r": 4, "lora_dropout": 0.1, "target_module_group": "both"},
    "training": {
        "num_train_epochs": 2,
        "max_steps": None,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 5e-3,
        "warmup_steps": 0,
        # A rolling checkpoint about once a second: there is always one to lose and one to go on from.
        "save_minutes": 0.015,
    },
    "evaluation": {"max_new_tokens": 2, "bootstrap": 0},
    "tracking": {"mode": "disabled", "log_model": False},
}
PROFILE: dict[str, Any] = {
    "scheduler": "slurm",
    "resources": {"accelerator": "cpu", "time": "00:30:00", "cpus_per_task": 1, "mem_gb": 2, "account": "acme"},
    "env": {"OMP_NUM_THREADS": "1"},
}
# A case that takes longer hangs.
PATIENCE_S = 600.0


@contextlib.contextmanager
def own_cluster() -> Iterator[Any]:
    """A cluster that nobody else uses, with its variables set for this process."""
    from support.slurm import SlurmCluster

    cluster = SlurmCluster(Path(tempfile.mkdtemp(prefix="hpcft-")))
    try:
        cluster.start()
        with mock.patch.dict(os.environ, cluster.env()):
            yield cluster
    finally:
        cluster.stop()


class Skipped(Exception):
    """The case cannot be played here, or its moment did not come."""


@dataclass(frozen=True)
class Oracle:
    """What an undisturbed run comes to.

    Attributes:
        weights: SHA-256 over the kept model's tensors. steps: (step, loss) in order.
    """

    weights: str
    steps: tuple[tuple[int, float], ...]


def oracle_of(run: Run) -> Oracle:
    """What a finished run came to."""
    digest = hashlib.sha256()
    for file in sorted(run.paths.final_model.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return Oracle(digest.hexdigest(), tuple((int(e["step"]), float(e["loss"])) for e in run.events("step")))


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        fault, phase: what was done, and when.
        result: `finished, equal`, `stopped: CAUSE`, `not played`, or what is wrong: `finished, DIFFERENT`, `HANGING`.
        right: whether the fault may end so. seconds: from the submission on.
        lost_steps: optimizer steps that were done twice. starts: of the job.
    """

    fault: str
    phase: str
    ranks: int
    seed: int
    result: str
    right: bool
    starts: int = 0
    lost_steps: int = 0
    seconds: float = 0.0
    detail: str = ""


class Lab:
    """A cluster, a folder and the oracles.

    Args:
        cluster: started, and ours to hurt. folder: for everything, on a file system that the nodes see.
    """

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.results = folder / "results"
        self.model = folder / "model"
        self._oracles: dict[str, Oracle] = {}
        self._lock = threading.Lock()
        (folder / "hpc").mkdir(parents=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | {
            **cluster.env(),
            "HOME": str(folder),
            "HPCFT_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        make_model(self.model)

    def case(self, name: str, **options: Any) -> Case:
        """A job that is not submitted yet."""
        return Case(self, name, **options)

    def oracle(self, case: Case) -> Oracle:
        """The undisturbed run of a case's job; done once for each shape."""
        key = json.dumps([case.spec, case.ranks], sort_keys=True)
        with self._lock:
            if key not in self._oracles:
                calm = Case(self, f"calm{len(self._oracles)}", spec=case.own_spec, ranks=case.ranks, node=case.node)
                calm.submit()
                calm.wait_end()
                run = calm.run
                if run is None or not run.paths.done.is_file():
                    raise RuntimeError(f"the undisturbed run failed: {calm.paths.root}")
                self._oracles[key] = oracle_of(run)
            return self._oracles[key]

    def slurm(self, *command: str) -> str:
        """A command of Slurm."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip()


@dataclass
class Case:
    """One job and its life.

    Args:
        spec: sections that differ from `SPEC`. profile: keys that differ from `PROFILE`. node: to stay on.
        folder: for its run directory, when it is to be another one.
    """

    lab: Lab
    name: str
    ranks: int = 1
    spec: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    node: str = "node1"
    seed: int = 0
    folder: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.name} {self.seed}")
        self.own_spec = self.spec
        self.spec = {key: {**value, **self.spec.get(key, {})} if isinstance(value, dict) else self.spec.get(key, value)
                     for key, value in SPEC.items()}  # fmt: skip
        self.spec["model"] = {"name": str(self.lab.model), **self.own_spec.get("model", {})}
        self.results = self.folder or self.lab.results
        self.paths = RunPaths(self.results / self.name)

    def submit(self, fault: str = "") -> int:
        """Submit it by the command line; its exit code."""
        sbatch = {"nodelist": self.node, **self.profile.get("sbatch", {})}
        profile = {**PROFILE, **{k: v for k, v in self.profile.items() if k not in ("sbatch", "resources")}}
        profile["resources"] = PROFILE["resources"] | self.profile.get("resources", {})
        profile["sbatch"] = sbatch
        (self.lab.folder / f"hpc/{self.name}.yaml").write_text(yaml.safe_dump(profile))
        spec = self.spec | {"resources": {"gpus_per_node": self.ranks}}
        (self.lab.folder / f"{self.name}.yaml").write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-P", "-m", "hpcft.cli.main", "submit", f"{self.name}.yaml"]
        command += ["--cluster", self.name, "--name", self.name, "--results", str(self.results)]
        environment = self.lab.environment | self.environment
        if fault:
            environment |= {"FAULT": fault, "FAULT_SBATCH": shutil.which("sbatch") or "sbatch"}
            environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
        with (self.lab.folder / f"{self.name}.out").open("w") as out:
            done = subprocess.run(
                command, cwd=self.lab.folder, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                check=False,
            )  # fmt: skip
        return done.returncode

    # Looking

    @property
    def run(self) -> Run | None:
        """The run, once it has a directory."""
        return Run(self.paths.root) if self.paths.config.is_file() else None

    @property
    def job_id(self) -> str:
        """Slurm's id of its job."""
        found = self.run.job_id if self.run else None
        if found is None:
            raise Skipped("it has no job")
        return found

    def queue(self) -> QueueInfo:
        """What Slurm says of its job."""
        return ask([self.job_id])[self.job_id]

    def status(self) -> str:
        """State in its heartbeat."""
        status = self.run.status if self.run else None
        return status.state if status else ""

    def step(self) -> int:
        """Optimizer steps that the newest attempt has done."""
        numbers = self.paths.attempt_numbers()
        records = read_log(self.paths.events(numbers[-1])).records if numbers else []
        return max((int(r["step"]) for r in records if r["kind"] == "step"), default=0)

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        training, data = self.spec["training"], self.spec["data"]
        batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"] * self.ranks
        return int(training["num_train_epochs"]) * (int(data["train_samples"] * 0.8) // batch)

    def processes(self) -> list[int]:
        """Process ids of its ranks, rank 0 first."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"hpcft.worker" in words and str(self.paths.root).encode() in words and b"-m" in words:
                values = dict(v.split(b"=", 1) for v in variables if b"=" in v)
                if b"SLURM_PROCID" in values and Path(os.fsdecode(words[0])).name.startswith("python"):
                    found[int(process.name)] = int(values[b"SLURM_PROCID"])
        return sorted(found, key=lambda pid: found[pid])

    def newest_checkpoint(self) -> Path | None:
        """The folder of the newest checkpoint."""
        found = [f for f in self.paths.checkpoints.glob("checkpoint-*") if f.name[11:].isdecimal()]
        return max(found, key=lambda f: int(f.name[11:]), default=None)

    # Waiting

    def until(self, holds: Callable[[], Any], what: str, patience_s: float = 240.0, pause_s: float = 0.003) -> None:
        """Wait for a moment in its life."""
        end = time.monotonic() + patience_s
        while not holds():
            if self.paths.done.is_file() or time.monotonic() > end:
                raise Skipped(f"never seen: {what}")
            time.sleep(pause_s)

    def wait_for(self, phase: str) -> None:
        """Wait for a phase: queued, start, step, saving, requeue, finishing."""
        if phase == "queued":
            self.until(lambda: self.queue().state is JobState.PENDING, "the queue", pause_s=0.2)
        elif phase == "start":
            self.until(self.paths.attempt_numbers, "the first attempt")
            time.sleep(self.random.uniform(0, 2))
        elif phase == "finishing":
            self.until(lambda: self.status() == "finishing", "the end")
            time.sleep(self.random.uniform(0, 0.5))
        else:
            # Not before there is a checkpoint, and not so late that it is over before anything can be done.
            self.until(lambda: self.newest_checkpoint() is not None, "a checkpoint")
            step = self.random.randint(2, max(3, self.total_steps() - 12))
            self.until(lambda: self.step() >= step, f"step {step}")
            if phase == "saving":
                self.until(self.is_saving, "a save")
            elif phase == "requeue":
                self.lab.slurm("scontrol", "requeue", self.job_id)
                self.until(lambda: self.queue().state is JobState.PENDING, "the requeue", pause_s=0.2)

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written now."""
        return any(True for _ in self.paths.checkpoints.glob(".saving-*/checkpoint-*"))

    def wait_end(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until it has finished, or Slurm will not start it again. Whether that came."""
        end = time.monotonic() + patience_s
        over = forgotten = 0
        while time.monotonic() < end:
            if self.paths.done.is_file():
                return True
            queue = self.queue()
            # Several times: between two starts accounting may say that it has ended.
            over = over + 1 if queue.is_final else 0
            forgotten = forgotten + 1 if queue.answered and queue.state is JobState.UNKNOWN else 0
            if over > 4 or forgotten > 30:
                return True
            time.sleep(1.0)
        return False

    def cancel(self) -> None:
        """End what is left of it."""
        if self.run is not None and self.run.job_id:
            self.lab.slurm("scancel", self.run.job_id)

    # Doing

    def signal(self, number: signal.Signals, which: slice = slice(None)) -> None:
        """Signal its ranks."""
        pids = self.processes()[which]
        if not pids:
            raise Skipped("no process of it runs")
        for pid in pids:
            os.kill(pid, number)

    def judge(self, oracle: Oracle, allowed: tuple[str, ...]) -> tuple[str, bool, str]:
        """What it came to, whether that is right, and details."""
        run = self.run
        if run is None:
            return "no run directory", False, ""
        if run.paths.done.is_file():
            mine = oracle_of(run)
            if mine == oracle:
                return "finished, equal", "finished" in allowed, ""
            what = "weights" if mine.weights != oracle.weights else ""
            what += " steps" if mine.steps != oracle.steps else ""
            return "finished, DIFFERENT", False, f"{what} differ; {run.paths.root}"
        from hpcft.cluster.explain import verdict_of

        verdict = verdict_of(run)
        status = run.status
        right = verdict.cause.value in allowed
        detail = "" if right else f"{verdict.line()} / {status.message[:200] if status else 'no status'}"
        return f"stopped: {verdict.cause.value}", right, detail

    def repeated_steps(self) -> int:
        """Optimizer steps that were done more than once."""
        steps = [int(r["step"]) for r in self._all_events() if r["kind"] == "step"]
        return len(steps) - len(set(steps))

    def _all_events(self) -> Iterator[dict[str, Any]]:
        for number in self.paths.attempt_numbers():
            yield from read_log(self.paths.events(number)).records


def make_model(folder: Path) -> None:
    """A random model of next to no size."""
    from hpcft.models.quickstart import build_model

    folder.mkdir()
    build_model(folder, steps=0, hidden=64, layers=2, vocab=512)

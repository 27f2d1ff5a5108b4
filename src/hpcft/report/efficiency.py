"""What runs asked for and what they used of it, by their own records; and what to ask for next time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from hpcft.runs.events import read_log
from hpcft.runs.progress import AttemptSummary, read_attempts
from hpcft.runs.run import Run
from hpcft.spec.types import parse_time

# What is asked for next time has so much room above what was used.
_ROOM = 1.3
# Below these shares of what was asked, less would have done.
_IDLE_GPU, _IDLE = 40.0, 0.5


@dataclass(frozen=True)
class Usage:
    """One run.

    Attributes:
        name: of the run.
        gpus, cpus: asked for, over all nodes; cpus is None where the site's default was taken. gpus is 0 where none was
            asked for.
        nodes, mem_gb: nodes, and memory asked for on each.
        limit_s: the time limit.
        ran_s: seconds in which the job had its nodes, over all attempts.
        waited_s: seconds in the queue before the first attempt and between them; None where that is not told.
        trained_s: seconds in steps whose result was kept.
        redone_s: seconds in steps that a later attempt did again.
        attempts: their number.
        data_wait: share of the training that ranks waited for data.
        cpu_percent, memory_gb, gpu_percent, gpu_memory_gb, gpu_power_w: of the busiest rank; 100 per cent is one core.
    """

    name: str
    gpus: int
    cpus: int | None
    nodes: int
    mem_gb: float | None
    limit_s: float | None
    ran_s: float
    waited_s: float | None
    trained_s: float
    redone_s: float
    attempts: int
    ranks_per_node: int = 1
    data_wait: float | None = None
    cpu_percent: float | None = None
    memory_gb: float | None = None
    gpu_percent: float | None = None
    gpu_memory_gb: float | None = None
    gpu_power_w: float | None = None

    @property
    def asked_gpu_hours(self) -> float | None:
        """GPU-hours that the time limit reserved."""
        return None if self.limit_s is None else self.gpus * self.limit_s / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours for which the job had its cards."""
        return self.gpus * self.ran_s / 3600

    @property
    def cpu_hours(self) -> float | None:
        """Core-hours for which it had its cores."""
        return None if self.cpus is None else self.cpus * self.ran_s / 3600

    @property
    def trained(self) -> float | None:
        """Share of its time in steps that were kept: the rest is starting, validating, saving, finishing, redoing."""
        return self.trained_s / self.ran_s if self.ran_s > 0 else None


@dataclass
class Efficiency:
    """Several runs together.

    Attributes:
        advice: sentences with what to ask for next time.
    """

    runs: list[Usage]
    advice: list[str] = field(default_factory=list)

    @property
    def totals(self) -> dict[str, float]:
        """Sums over the runs, in hours: `gpu_hours`, `asked_gpu_hours`, `ran`, `waited`, `trained`, `redone`."""
        asked = [u.asked_gpu_hours for u in self.runs if u.asked_gpu_hours is not None]
        return {
            "gpu_hours": sum(u.gpu_hours for u in self.runs),
            "asked_gpu_hours": sum(asked),
            "ran_hours": sum(u.ran_s for u in self.runs) / 3600,
            "waited_hours": sum(u.waited_s or 0.0 for u in self.runs) / 3600,
            "trained_hours": sum(u.trained_s for u in self.runs) / 3600,
            "redone_hours": sum(u.redone_s for u in self.runs) / 3600,
        }

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {**asdict(u), "gpu_hours": u.gpu_hours, "cpu_hours": u.cpu_hours, "asked_gpu_hours": u.asked_gpu_hours}
            for u in self.runs
        ]
        return {"runs": rows, "totals": self.totals, "advice": self.advice}


def efficiency(runs: Sequence[Run]) -> Efficiency:
    """What runs asked for and used. Those that have not started are left out."""
    found = Efficiency([usage for run in runs if (usage := usage_of(run)) is not None])
    found.advice = advice(found.runs)
    return found


def usage_of(run: Run) -> Usage | None:
    """One run; None before it has started."""
    attempts = [a for a in read_attempts(run.paths.root) if a.start is not None and a.last is not None]
    if not attempts:
        return None
    resources = run.config.get("resources")
    asked: dict[str, Any] = resources if isinstance(resources, dict) else {}
    nodes, per_node = int(asked.get("nodes") or 1), int(asked.get("gpus_per_node") or 1)
    cores = asked.get("cpus_per_task")
    trained, redone = _steps(run)
    load = _load(run)
    wait = load.get("train/data_wait_frac")
    system = {name: load.get(f"system/{name}") for name in _SYSTEM}
    return Usage(
        name=run.name,
        gpus=0 if asked.get("accelerator") == "cpu" else nodes * per_node,
        cpus=None if cores is None else nodes * per_node * int(cores),
        nodes=nodes,
        mem_gb=asked.get("mem_gb"),
        limit_s=_limit(asked.get("time")),
        ran_s=sum(float(a.last or 0) - float(a.start or 0) for a in attempts),
        waited_s=_waited(run, attempts),
        trained_s=trained,
        redone_s=redone,
        attempts=len(attempts),
        ranks_per_node=per_node,
        data_wait=wait,
        **system,
    )


_SYSTEM = ("cpu_percent", "memory_gb", "gpu_percent", "gpu_memory_gb", "gpu_power_w")


def _limit(text: Any) -> float | None:
    try:
        return None if text is None else float(parse_time(text))
    except ValueError:
        return None


def _steps(run: Run) -> tuple[float, float]:
    """Seconds in steps that were kept, and in those that were done again."""
    kept = sum(float(event.get("seconds", 0.0)) for event in run.events("step"))
    every = 0.0
    for number in run.paths.attempt_numbers():
        records = read_log(run.paths.events(number)).records
        every += sum(float(r.get("seconds", 0.0)) for r in records if r["kind"] == "step")
    return kept, max(0.0, every - kept)


def _load(run: Run) -> dict[str, float]:
    """What the job used: of a finished one its summary, else the last that its epochs say."""
    found = {k: v for k, v in run.metrics.items() if isinstance(v, int | float)}
    if any(key.startswith("system/") for key in found):
        return found
    for event in run.events("epoch"):
        found |= {k: v for k, v in event.get("metrics", {}).items() if isinstance(v, int | float)}
    return found


def _waited(run: Run, attempts: Sequence[AttemptSummary]) -> float | None:
    submitted = [float(r["t"]) for r in run.journal() if r["kind"] == "submitted"]
    if not submitted:
        return None
    total = max(0.0, float(attempts[0].start or 0) - submitted[0])
    for before, after in pairwise(attempts):
        total += max(0.0, float(after.start or 0) - float(before.last or 0))
    return total


def advice(runs: Sequence[Usage]) -> list[str]:
    """What to ask for next time, by the run of these that needed most."""
    told: list[str] = []
    if not runs:
        return told
    limits = [(u.ran_s / u.attempts, u.limit_s) for u in runs if u.limit_s]
    if limits:
        longest, limit = max(ran for ran, _ in limits), max(limit for _, limit in limits)
        if longest < _IDLE * limit:
            minutes = max(5, math.ceil(_ROOM * longest / 60))
            told.append(
                f"time: the longest attempt took {longest / 60:.3g} of {limit / 60:.0f} minutes; "
                f"resources.time={minutes} would have done, and short jobs start sooner"
            )
    memory = [(u.memory_gb * u.ranks_per_node, u.mem_gb) for u in runs if u.memory_gb and u.mem_gb]
    if memory:
        most, asked = max(used for used, _ in memory), max(given for _, given in memory)
        if most < _IDLE * asked:
            needed = max(1, math.ceil(_ROOM * most))
            told.append(f"memory: at most {most:.3g} of {asked:g} GB a node; resources.mem_gb={needed} would have done")
    cores = [(u.cpu_percent / 100, u.cpus / (u.nodes * u.ranks_per_node)) for u in runs if u.cpu_percent and u.cpus]
    if cores:
        busy, given = max(used for used, _ in cores), max(asked for _, asked in cores)
        needed = max(1, math.ceil(busy))
        if needed < given:
            told.append(
                f"processor: a rank used {busy:.2g} of {given:g} cores; resources.cpus_per_task={needed} would do"
            )
    waits = [u.data_wait for u in runs if u.data_wait is not None]
    if waits and max(waits) > 0.1:
        told.append(
            f"data: a rank waited {100 * max(waits):.0f} % of its training for rows; more cores read them faster"
        )
    idle = [u for u in runs if u.gpu_percent is not None and u.gpu_percent < _IDLE_GPU]
    if idle:
        worst = min(idle, key=lambda u: u.gpu_percent or 0.0)
        told.append(
            f"GPU: busy {worst.gpu_percent:.0f} % of the time in {worst.name}; a larger "
            "training.per_device_train_batch_size or fewer GPUs use them better"
        )
    lost = sum(u.redone_s for u in runs) / max(1e-9, sum(u.ran_s for u in runs))
    if lost > 0.05:
        told.append(
            f"interruptions: {100 * lost:.0f} % of the time was done again; training.save_minutes=2 saves more often"
        )
    return told

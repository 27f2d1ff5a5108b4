"""`hpcft fit`: how much memory a job needs, part by part, whether it fits, and what would make it fit."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from hpcft.cli.job_options import Plan, Request, plan, takes_job
from hpcft.cli.output import as_json, grid, say, table
from hpcft.cli.start import of_training
from hpcft.cli.subject import with_teacher
from hpcft.cli.texts import ending

if TYPE_CHECKING:
    from hpcft.measure.advice import Change
    from hpcft.measure.calibration import Calibration
    from hpcft.measure.fit import Estimate, Part, Target, Verdict
    from hpcft.spec.job import Job

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@dataclass
class Room:
    """GB of 1024³ bytes, and how they are known."""

    gb: float | None
    how: str


@dataclass
class Fit:
    """The answer.

    Attributes:
        rank: of one GPU, or of one process where there is none. low, high: calibrated bytes.
        node: the parts of a node's own memory.
    """

    target: Target
    rank: Estimate
    low: float
    high: float
    node: list[Part]
    gpu: Room
    memory: Room
    calibration: Calibration | None
    verdict: Verdict
    change: Change | None


@app.command(
    epilog=ending(
        [
            "hpcft fit --preset quickstart --variant qlora",
            "hpcft fit --preset quickstart --variant full --batch-size 64 --json",
        ],
        {0: "it fits, or may; or the room is not known", 1: "it does not fit", 2: "", 65: "", 69: "", 78: ""},
    )
)
@takes_job
def fit(request: Request, json: bool = typer.Option(False, "--json", help="Print the result as JSON.")) -> None:
    """Tell how much memory a training job needs on each GPU and each node, and whether it fits, without loading its
    model."""
    planned = plan(of_training(request))
    say(planned.reason)
    found = answer(planned)
    if json:
        as_json(document(found))
    else:
        _show(found)
    if found.verdict == "does not fit":
        raise typer.Exit(1)


def answer(planned: Plan) -> Fit:
    """Estimate a plan's job, calibrated by the finished runs in its results folder.

    Raises:
        ConfigError, UnavailableError: the model's configuration cannot be had.
    """
    for name in ("torch.utils._pytree", "bitsandbytes"):
        # What they say while they are imported is nothing to a reader of this.
        logging.getLogger(name).setLevel(logging.ERROR)
    from hpcft.measure.advice import cheapest
    from hpcft.measure.calibration import calibrate
    from hpcft.measure.fit import GB, estimate, host, verdict, worst
    from hpcft.measure.twin_step import estimate_of, model_type, teacher_of, weights_of
    from hpcft.runs.run import list_runs

    job = with_teacher(planned.resolved.job)
    target = target_of(planned)
    gpu, memory = _gpu(planned, target), _memory(planned)
    calibration = calibrate(job, model_type(job), target, list_runs(Path(job.results)))

    def judge(other: Job) -> tuple[Verdict, Estimate, float, float, list[Part]]:
        rank = estimate_of(other, target)
        low, high = calibration.applied(rank, target.device) if calibration else (rank.low, rank.high)
        node = host(other, weights_of(other), rank, target)
        if calibration and target.device == "cpu":
            node = [_scaled(node[0], other, low, high), *node[1:]]
        room = None if memory.gb is None else memory.gb * GB
        verdicts = [verdict(sum(p.low for p in node), sum(p.high for p in node), room)]
        if target.device == "cuda":
            verdicts.append(verdict(low, high, None if gpu.gb is None else gpu.gb * GB))
        return worst(verdicts), rank, low, high, node

    def fits(other: Job) -> bool:
        # What is too much without its activations needs no look at them, which may take seconds.
        least = estimate(other, weights_of(other), target, None, teacher_of(other))
        if gpu.gb is not None and least.low > gpu.gb * GB:
            return False
        return judge(other)[0] == "fits"

    judged, rank, low, high, node = judge(job)
    change = cheapest(job, fits) if judged in ("does not fit", "tight") else None
    return Fit(target, rank, low, high, node, gpu, memory, calibration, judged, change)


def _scaled(part: Part, job: Job, low: float, high: float) -> Part:
    from dataclasses import replace

    ranks = job.resources.gpus_per_node
    return replace(part, low=ranks * low, high=ranks * high)


def target_of(planned: Plan) -> Target:
    """What the job's ranks will compute on."""
    from hpcft.measure.fit import Target

    job = planned.resolved.job
    accelerator = job.resources.accelerator
    device: Literal["cuda", "cpu"] = "cpu" if accelerator == "cpu" else "cuda"
    if accelerator == "auto" and planned.profile.scheduler == "local":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    fused = device == "cuda" and job.training.liger != "off" and find_spec("liger_kernel") is not None
    return Target(device, fused)


def _gpu(planned: Plan, target: Target) -> Room:
    from hpcft.cluster.gpus import gpu_memory

    if target.device == "cpu":
        return Room(None, "no GPU is asked for")
    if planned.profile.scheduler == "local":
        import torch

        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            return Room(
                total / 1024**3, f"this machine's {torch.cuda.get_device_name()}; free now {free / 1024**3:.0f}"
            )
    return Room(*gpu_memory(planned.profile, planned.resolved.job.resources.gpu_type))


def _memory(planned: Plan) -> Room:
    asked = planned.resolved.job.resources.mem_gb
    if asked is not None and planned.profile.scheduler == "slurm":
        return Room(asked, "resources.mem_gb")
    if planned.profile.scheduler == "local":
        return Room(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3, "this machine's")
    return Room(None, "resources.mem_gb is not said, so Slurm gives its default")


def document(found: Fit) -> dict[str, Any]:
    """The answer as data; memory in GB of 1024³ bytes."""
    from hpcft.measure.fit import GB

    def rows(parts: Any) -> list[dict[str, Any]]:
        return [{"name": p.name, "low_gb": p.low / GB, "high_gb": p.high / GB, "how": p.how} for p in parts]

    return {
        "verdict": found.verdict,
        "device": found.target.device,
        "per_rank": {
            "low_gb": found.low / GB,
            "high_gb": found.high / GB,
            "moment": found.rank.moment,
            "parts": rows(found.rank.parts),
        },
        "per_node": {
            "low_gb": sum(p.low for p in found.node) / GB,
            "high_gb": sum(p.high for p in found.node) / GB,
            "parts": rows(found.node),
        },
        "gpu": asdict(found.gpu),
        "memory": asdict(found.memory),
        "calibration": None if found.calibration is None else asdict(found.calibration),
        "change": found.change,
    }


_MOMENTS = {"step": "forward and backward", "update": "the optimizer's step", "validation": "a validation batch"}


def _row(name: str, low: float, high: float, how: str = "") -> list[str]:
    from hpcft.measure.fit import GB

    ends = [value / GB for value in (low, high)]
    return [name, *(f"{gb:.2f}" if gb >= 0.1 else f"{gb:.2g}" for gb in ends), how]


def _show(found: Fit) -> None:
    one = "GPU" if found.target.device == "cuda" else "rank (no GPU: in the host's memory)"
    rows = [_row(p.name, p.low, p.high, p.how) for p in found.rank.parts]
    rows.append(_row("together", found.rank.low, found.rank.high))
    if found.calibration is not None:
        rows.append(_row("by your own runs", found.low, found.high, _runs(found.calibration)))
    grid([f"each {one}, fullest in {_MOMENTS[found.rank.moment]}", "GB from", "to", "how"], rows)
    print()
    rows = [_row(p.name, p.low, p.high, p.how) for p in found.node]
    rows.append(_row("together", sum(p.low for p in found.node), sum(p.high for p in found.node)))
    grid(["each node's own memory", "GB from", "to", "how"], rows)
    print()
    rooms = [("a GPU has", _said(found.gpu))] if found.target.device == "cuda" else []
    table("verdict", [*rooms, ("a node has", _said(found.memory)), ("so", found.verdict), *_change(found)])
    if found.target.device == "cuda":
        say("a prediction for a GPU: weights and states are arithmetic, activations are counted on fake tensors")


def _runs(calibration: Calibration) -> str:
    c = calibration
    spread = f", {c.low:.2f} to {c.high:.2f}" if len(c.runs) > 1 else ""
    return f"measured / estimated {c.factor:.2f}{spread} in {len(c.runs)} run(s): {', '.join(c.runs)}"


def _said(room: Room) -> str:
    return f"not known: {room.how}" if room.gb is None else f"{room.gb:.1f} GB ({room.how})"


def _change(found: Fit) -> list[tuple[str, str]]:
    if found.verdict not in ("does not fit", "tight"):
        return []
    if found.change is None:
        return [
            ("instead", "no change of batch, checkpointing, ZeRO, 4 bits or offload is enough: more or larger GPUs")
        ]
    return [("it fits with", " ".join(f"{key}={_text(value)}" for key, value in found.change.items()))]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

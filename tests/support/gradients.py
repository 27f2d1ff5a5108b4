"""Made gradient norms, and run directories that have them in their event logs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.gradients import GROUPS, LAYERED, GradientLog, Phase
from hpcft.runs.paths import RunPaths


def made(
    steps: int = 30,
    layers: int = 4,
    *,
    trained: tuple[str, ...] = LAYERED,
    ends: bool = False,
    height: float = 1.0,
    phases: list[Phase] | None = None,
) -> GradientLog:
    """Norms that fall over the steps, MLP's half as large as attention's, those of the upper layers the largest.

    Args:
        trained: groups with a gradient. ends: whether the embedding and the head have one too.
        height: of attention's norms at the first step.
    """

    def norm(group: str, step: int, layer: int) -> float:
        size = height * {"attention": 1.0, "mlp": 0.5}[group] * (group in trained)
        return size * (0.4 + math.exp(-step / 10)) * (0.5 + layer / layers + 0.2 * math.sin(step + 2 * layer))

    numbers = list(range(1, steps + 1))
    by_layer = {g: [[norm(g, step, layer) for layer in range(layers)] for step in numbers] for g in LAYERED}
    groups = {g: [math.hypot(*row) for row in rows] for g, rows in by_layer.items()}
    for group in ("embed", "lm_head"):
        groups[group] = [height * 0.2 * ends / step for step in numbers]
    groups["total"] = [math.hypot(*norms) for norms in zip(*groups.values(), strict=True)]
    return GradientLog(numbers, {g: groups[g] for g in GROUPS}, by_layer, phases or [])


def events(log: GradientLog, first: int = 1, last: int = 10**9) -> list[dict[str, Any]]:
    """The events of a job that measured these norms, between two steps."""
    found: list[dict[str, Any]] = []
    for place, step in enumerate(log.steps):
        if not first <= step <= last:
            continue
        found += [
            {"kind": "phase", "step": p.step, "phase": p.number, "trains": p.trains}
            for p in log.phases
            if p.step == step
        ]
        norms: dict[str, Any] = {f"{group}_norm": log.group_norms[group][place] for group in GROUPS}
        if log.layer_norms:
            norms["layer_norms"] = {group: log.layer_norms[group][place] for group in LAYERED}
        found.append({"kind": "step", "step": step, "loss": 1 / step, **norms})
    return found


def finished_run(folder: Path, log: GradientLog | None, **sections: dict[str, Any]) -> RunPaths:
    """A run directory as a finished job leaves it, as far as its gradient norms go."""
    folder.mkdir(parents=True)
    paths = RunPaths(folder)
    paths.config.write_text(yaml.safe_dump({"kind": "train", "variant": "lora", **sections}))
    paths.attempt(1).mkdir(parents=True)
    with EventLog(paths.events(1)) as record:
        record.append("start", attempt=1, resume_step=0, world_size=1)
        for event in events(log) if log is not None else ():
            record.append(event.pop("kind"), **event)
    write_json(paths.metrics, {"model/trainable_params": 1000, "train/final_loss": 1.5})
    write_json(paths.done, {"step": 1})
    return paths

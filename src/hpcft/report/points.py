"""A run as a point of a comparison, from what stands in its directory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hpcft.report.lineage import Lineage
from hpcft.report.pareto import Point
from hpcft.runs.files import read_json
from hpcft.runs.run import Run
from hpcft.spec.variants import VARIANTS

_DATA_FILE = re.compile(r"\.(csv|tsv|jsonl?)$")
_DIGEST_DIGITS = 12
# What a model cost to make stays true of what is made from it; its scores are its own.
LASTING = ("train/", "model/")
# The group of models as they were before any tuning.
BASE = "Base Model"


def point_of(run: Run) -> Point | None:
    """Read a run's figures.

    Returns:
        The point, with every number of the run's metrics; None when the run has none yet.

    Raises:
        DataError: a file of the run is damaged.
    """
    values = {key: found for key, value in run.metrics.items() if (found := number(value)) is not None}
    if not values:
        return None
    config = run.config
    benchmark = _mapping(read_json(run.paths.benchmark))
    hardware = _mapping(benchmark.get("fingerprint")).get("id")
    seed = _mapping(config.get("training")).get("seed")
    return Point(
        name=run.name,
        group=_group(run),
        values=values,
        dataset=_dataset(run, benchmark),
        hardware=None if hardware is None else str(hardware),
        seed=seed if isinstance(seed, int) else None,
    )


def joined_point(lineage: Lineage) -> Point | None:
    """The figures of all runs about one model as one point, so that its score and its latency stand together.

    Of a figure that several of them have, the nearest run's counts: an evaluation's score before the training's.

    Returns:
        The point; None when none of the model's own runs has figures yet.

    Raises:
        DataError: a file of one of the runs is damaged.
    """
    points = [point for run in lineage.runs if (point := point_of(run)) is not None]
    if not points:
        return None
    values: dict[str, float] = {}
    oldest: Point | None = None
    for run in reversed(lineage.before):
        if (point := point_of(run)) is not None:
            oldest = oldest or point
            values |= {key: value for key, value in point.values.items() if key.startswith(LASTING)}
    for point in points:
        values |= point.values
    return Point(
        name=lineage.name,
        group=points[0].group,
        values=values,
        dataset=next((point.dataset for point in reversed(points) if point.dataset), None),
        hardware=next((point.hardware for point in points if point.hardware), None),
        seed=(oldest or points[0]).seed,
    )


def number(value: Any) -> float | None:
    """A figure of a run's files, which have NaN and infinities as words; None of what is no number."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _group(run: Run) -> str:
    if _measures_a_base(run):
        return BASE
    variant = VARIANTS.get(str(run.config.get("variant")))
    return variant.label if variant else str(run.metrics.get("model_variant", "unknown"))


def _measures_a_base(run: Run) -> bool:
    """Whether a run asks a model that no run has made: what was not tuned is of no variant."""
    config = run.config
    if config.get("kind") not in ("bench", "evaluate") or config.get("of"):
        return False
    name = str(_mapping(config.get("model")).get("name"))
    return not Path(name, "adapter_config.json").is_file()


def _dataset(run: Run, benchmark: dict[str, Any]) -> str | None:
    data = _mapping(run.config.get("data"))
    source = data.get("validation") or data.get("dataset")
    if not source:
        return None
    # A hub id is named by its last part, and may have a dot in it that begins no suffix.
    name = _DATA_FILE.sub("", str(source).rstrip("/").rpartition("/")[2])
    if data.get("subset") and not data.get("validation"):
        name += f"/{data['subset']}"
    for document in (_mapping(read_json(run.paths.evaluation)), benchmark):
        digest = _mapping(document.get("data")).get("sha256")
        if isinstance(digest, str):
            return f"{name}@{digest[:_DIGEST_DIGITS]}"
    return name


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

"""A run as a point of a comparison, from what stands in its directory."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, HpcftError
from hpcft.report.lineage import Lineage, Link, Row, join, lineages, link_of, run_at
from hpcft.report.pareto import Point
from hpcft.runs.files import read_json
from hpcft.runs.index.kept import Found, Kept, kept_runs
from hpcft.runs.index.query import Index
from hpcft.runs.record import job_of
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
    job = job_of(run)
    benchmark = _mapping(read_json(run.paths.benchmark))
    hardware = _mapping(benchmark.get("fingerprint")).get("id")
    seed = _mapping(job.get("training")).get("seed")
    return Point(
        name=run.name,
        group=_group(run, job),
        values=values,
        dataset=_dataset(run, job, benchmark),
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
    return join_points(lineage.name, map(point_of, lineage.runs), map(point_of, lineage.before))


def join_points(name: str, own: Iterable[Point | None], before: Iterable[Point | None]) -> Point | None:
    """As `joined_point`, of the points of a lineage's runs."""
    points = [point for point in own if point is not None]
    if not points:
        return None
    values: dict[str, float] = {}
    oldest: Point | None = None
    for point in reversed([point for point in before if point is not None]):
        oldest = oldest or point
        values |= {key: value for key, value in point.values.items() if key.startswith(LASTING)}
    for point in points:
        values |= point.values
    return Point(
        name=name,
        group=points[0].group,
        values=values,
        dataset=next((point.dataset for point in reversed(points) if point.dataset), None),
        hardware=next((point.hardware for point in points if point.hardware), None),
        seed=(oldest or points[0]).seed,
    )


def read_points(runs: Iterable[Run]) -> tuple[list[Point], dict[str, str]]:
    """One point a model, and name of a model without one → why, out of the runs' files."""
    return _points((row.name, partial(joined_point, row)) for row in lineages(runs))


def indexed_points(index: Index, keys: Sequence[str]) -> tuple[list[Point], dict[str, str]]:
    """As `read_points` of all runs that stand in a results folder itself, out of its index.

    Args:
        keys: the points have these figures alone.
    """
    found: dict[str, tuple[Point | None, str | None]] = {}
    links = []
    folder = index.results.absolute()
    for run in kept_runs(index, keys, _to_keep):
        links.append(Link(run.kept.place, run.name, f"{folder}/{run.name}", run.kept.kind, run.kept.parent))
        found[run.kept.place] = _kept_point(run, keys), run.kept.trouble

    def find(place: str) -> Link | None:
        run = run_at(place)
        return None if run is None else link_of(run)

    def point(link: Link) -> Point | None:
        if link.place not in found:
            # Of another folder, such as a pipeline's.
            return _only(point_of(Run(Path(link.place))), keys)
        told, trouble = found[link.place]
        if trouble is not None:
            raise DataError(trouble)
        return told

    def joined(row: Row) -> Point | None:
        if len(row.runs) == 1 and not row.before and row.name == row.runs[0].name:
            # It is the point of its one run.
            return point(row.runs[0])
        return join_points(row.name, map(point, row.runs), map(point, row.before))

    return _points((row.name, partial(joined, row)) for row in join(links, find))


def _points(rows: Iterable[tuple[str, Callable[[], Point | None]]]) -> tuple[list[Point], dict[str, str]]:
    points: list[Point] = []
    without: dict[str, str] = {}
    for name, make in rows:
        try:
            point = make()
        except HpcftError as error:
            # One damaged run among many must not hide the others.
            without[name] = str(error).splitlines()[0]
            continue
        if point is None:
            without[name] = "no metrics yet"
        else:
            points.append(point)
    return points, without


def _to_keep(root: Path, has_numbers: bool) -> Kept:
    """What the index keeps of a run."""
    try:
        run = Run(root)
    except DataError as error:
        # Gone since the index was brought up to date.
        return Kept(str(root), "", None, trouble=str(error).splitlines()[0])
    link = link_of(run)
    kept = Kept(link.place, link.kind, link.parent)
    try:
        point = point_of(run)
    except HpcftError as error:
        return kept._replace(trouble=str(error).splitlines()[0])
    if point is None:
        return kept
    odd = {k: v for k, v in point.values.items() if not (has_numbers and math.isfinite(v))}
    told = json.dumps(odd) if odd else None
    return kept._replace(variant=point.group, dataset=point.dataset, hardware=point.hardware, seed=point.seed, odd=told)


def _kept_point(run: Found, keys: Sequence[str]) -> Point | None:
    kept = run.kept
    if kept.variant is None:
        return None
    values = {key: value for key, value in zip(keys, run.figures, strict=True) if value is not None}
    if kept.odd is not None:
        values |= {key: value for key, value in json.loads(kept.odd).items() if key in keys}
    return Point(run.name, kept.variant, values, kept.dataset, kept.hardware, kept.seed)


def _only(point: Point | None, keys: Sequence[str]) -> Point | None:
    return None if point is None else replace(point, values={k: v for k, v in point.values.items() if k in keys})


def number(value: Any) -> float | None:
    """A figure of a run's files, which have NaN and infinities as words; None of what is no number."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _group(run: Run, job: Mapping[str, Any]) -> str:
    if _measures_a_base(job):
        return BASE
    variant = VARIANTS.get(str(job.get("variant")))
    return variant.label if variant else str(run.metrics.get("model_variant", "unknown"))


def _measures_a_base(job: Mapping[str, Any]) -> bool:
    """Whether a job asks a model that no run has made: what was not tuned is of no variant."""
    if job.get("kind") not in ("bench", "evaluate") or job.get("of"):
        return False
    name = str(_mapping(job.get("model")).get("name"))
    return not Path(name, "adapter_config.json").is_file()


def _dataset(run: Run, job: Mapping[str, Any], benchmark: dict[str, Any]) -> str | None:
    data = _mapping(job.get("data"))
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

"""What runs logged while they ran, as curves that are small enough for a page."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcft.runs.run import Run

Points = list[tuple[float, float]]

# Of a record itself, or where it stands in the run: no measurement.
_NO_CURVES = frozenset(["seq", "t", "step", "attempt", "epoch"])
# What a curve says at a step, what the run came to, and queries, which have a picture of their own.
_NO_SERIES = frozenset(["summary", "query"])
_FIRST = ("train/loss", "validation/loss", "validation/f1_score", "validation/accuracy", "validation/bleu")


@dataclass(frozen=True)
class Curve:
    """One metric of one run.

    Attributes:
        points: (step, value) in order, finite ones only, thinned.
        first, last, lowest, highest: (step, value), of all finite points.
        count: of all points. broken: how many of them were NaN or infinite.
    """

    points: Points
    first: tuple[float, float]
    last: tuple[float, float]
    lowest: tuple[float, float]
    highest: tuple[float, float]
    count: int
    broken: int


def read_curves(runs: Mapping[str, Run], budget: int = 100_000, most: int = 500) -> dict[str, dict[str, Curve]]:
    """Every metric that the runs logged by step.

    Args:
        runs: by the name that they are shown with.
        budget: about so many points in all, at least 40 a curve. most: of one curve.

    Returns:
        Metric → run → curve; losses and scores first.
    """
    # Two passes would read every log twice: each curve is cut to `most` at once, and again when all are counted.
    found: dict[str, dict[str, Curve]] = defaultdict(dict)
    for name, run in runs.items():
        for metric, points in _series(run.events()).items():
            finite = [p for p in points if math.isfinite(p[1])]
            if finite:
                found[metric][name] = _curve(finite, len(points), most)
    share = max(40, budget // max(1, sum(map(len, found.values()))))
    ordered = sorted(found, key=lambda m: (_FIRST.index(m) if m in _FIRST else len(_FIRST), m))
    return {
        metric: {name: _shorter(curve, min(most, share)) for name, curve in found[metric].items()} for metric in ordered
    }


def _series(events: Iterable[dict[str, Any]]) -> dict[str, Points]:
    series: dict[str, Points] = defaultdict(list)
    for record in events:
        kind, step = record["kind"], record.get("step")
        if kind in _NO_SERIES or not isinstance(step, int | float):
            continue
        if kind == "step":
            logged = {f"train/{key}": value for key, value in record.items()}
        else:
            logged = record.get("metrics", {})
        for key, value in logged.items() if isinstance(logged, dict) else ():
            if key.removeprefix("train/") not in _NO_CURVES and not key.endswith("/num_samples"):
                number = _number(value)
                if number is not None:
                    series[key].append((float(step), number))
    return series


def _number(value: Any) -> float | None:
    # A log has NaN and infinities as words.
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("nan", "inf", "-inf")):
        return None
    return float(value)


def _curve(points: Points, count: int, most: int) -> Curve:
    return Curve(
        points=thin(points, most),
        first=points[0],
        last=points[-1],
        lowest=min(points, key=lambda p: p[1]),
        highest=max(points, key=lambda p: p[1]),
        count=count,
        broken=count - len(points),
    )


def _shorter(curve: Curve, most: int) -> Curve:
    return Curve(**{**vars(curve), "points": thin(curve.points, most)})


def thin(points: Sequence[tuple[float, float]], most: int) -> Points:
    """Leave points out so that no spike is lost: of each of equal parts the lowest and the highest stay, and of all
    the first and the last.

    Args:
        points: (x, y) in the order of x. most: four or more points that stay, at the most.
    """
    if len(points) <= most:
        return list(points)
    parts = (most - 2) // 2
    kept = {0, len(points) - 1}
    for part in range(parts):
        places = range(part * len(points) // parts, (part + 1) * len(points) // parts)
        kept.add(min(places, key=lambda i: points[i][1]))
        kept.add(max(places, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(kept)]

"""How good a front is as a whole, in one number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import le, lt

from hpcft.errors import UsageError
from hpcft.report.pareto import Measure, Point, check_measures, costs_of


def hypervolume(points: Iterable[Point], measures: Sequence[Measure], reference: Mapping[str, float]) -> float:
    """How much of the space the points dominate, up to a reference point: one number for a whole front, exact.

    Computed by inclusion and exclusion of boxes, each cut to the part that only it covers: L. While, L. Bradstreet,
    L. Barone, "A Fast Way of Calculating Exact Hypervolumes", IEEE Trans. Evol. Comput. 16(1), 2012. Good for the
    tens of points of a front; the time grows exponentially with the number of measures.

    Args:
        points: those without a finite figure in every measure, or not better than the reference in every measure,
            add nothing.
        measures: two to six.
        reference: key → the worst figure that still counts.

    Returns:
        The volume, in the product of the measures' units.

    Raises:
        UsageError: another number of measures, or a measure without a finite reference.
    """
    check_measures(measures)
    missing = Point("", "", reference).lacks(measures)
    if missing:
        raise UsageError(f"the reference has no finite figure of {', '.join(missing)}", hint="give each measure one")
    worst = tuple(m.cost(reference[m.key]) for m in measures)
    inside = (costs_of(p, measures) for p in points if not p.lacks(measures))
    return _volume(_unbeaten(c for c in inside if all(map(lt, c, worst))), worst)


def _volume(front: list[tuple[float, ...]], worst: tuple[float, ...]) -> float:
    total = 0.0
    for index, corner in enumerate(front):
        box = math.prod(w - c for w, c in zip(worst, corner, strict=True))
        # What the later boxes cover of this one; it is counted with them.
        shared = _unbeaten(tuple(map(max, corner, other)) for other in front[index + 1 :])
        total += box - _volume(shared, worst)
    return total


def _unbeaten(costs: Iterable[tuple[float, ...]]) -> list[tuple[float, ...]]:
    kept: list[tuple[float, ...]] = []
    for cost in sorted(set(costs)):
        if not any(all(map(le, other, cost)) for other in kept):
            kept.append(cost)
    return kept

"""Which runs are worth their cost: the Pareto front over several measures, and what it is read with."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import attrgetter
from typing import Literal

from hpcft.errors import UsageError

# Short name → key in a run's metrics, and what stands on an axis.
NAMES: dict[str, tuple[str, str]] = {
    "f1": ("final/validation_f1_score", "F1 score"),
    "accuracy": ("final/validation_accuracy", "Accuracy"),
    "bleu": ("final/validation_bleu", "BLEU"),
    "rougeL": ("final/validation_rougeL", "ROUGE-L"),
    "latency": ("inference/avg_latency_ms_per_sample", "Latency (ms a sample)"),
    "vram": ("inference/peak_vram_gb", "Peak GPU memory in use (GB)"),
    "rss": ("inference/peak_rss_gb", "Peak memory in use (GB)"),
    "size": ("inference/model_size_gb", "Model size (GB)"),
    "train_vram": ("train/peak_vram_gb", "Peak GPU memory in training (GB)"),
    "train_rss": ("train/peak_rss_gb", "Peak memory in training (GB)"),
    "flops": ("inference/flops_per_query_gflops", "Work (GFLOP a query)"),
}
_SHORT = {key: name for name, (key, _) in NAMES.items()}

# Words in the last part of a key that say which way is better. A cost stands before a score: a score's time is a cost.
_COSTS = frozenset(
    [
        "latency",
        "ttft",
        "tpot",
        "ms",
        "vram",
        "rss",
        "memory",
        "size",
        "flop",
        "flops",
        "gflop",
        "gflops",
        "tflop",
        "tflops",
        "loss",
        "perplexity",
        "time",
        "runtime",
        "seconds",
        "duration",
        "hours",
        "energy",
        "joules",
        "wh",
        "kwh",
        "params",
    ]
)
_SCORES = frozenset(
    [
        "throughput",
        "score",
        "f1",
        "em",
        "accuracy",
        "acc",
        "bleu",
        "chrf",
        "rouge1",
        "rouge2",
        "rougel",
        "rougelsum",
        "meteor",
        "precision",
        "recall",
    ]
)
_LEAST, _MOST = 2, 6


@dataclass(frozen=True)
class Measure:
    """One axis of a comparison.

    Attributes:
        key: in a run's metrics, such as `final/validation_f1_score`.
        maximize: whether more is better.
    """

    key: str
    maximize: bool

    @property
    def name(self) -> str:
        """The short name, where there is one, else the key."""
        return _SHORT.get(self.key, self.key)

    @property
    def label(self) -> str:
        """What stands on an axis: words and unit, else the key."""
        return NAMES[_SHORT[self.key]][1] if self.key in _SHORT else self.key

    def cost(self, value: float) -> float:
        """The value turned so that less is better."""
        return -value if self.maximize else value


@dataclass(frozen=True)
class Point:
    """One run, or the mean of several, as a point in the space of the measures.

    Attributes:
        name: unique among the points that are compared.
        group: the variant's label.
        values: key → figure. What was not measured is absent.
        dataset: what it was scored on; `name@digest` where the digest of the rows is known.
        hardware: fingerprint of the machine that the costs were measured on.
        seed: of the training.
    """

    name: str
    group: str
    values: Mapping[str, float]
    dataset: str | None = None
    hardware: str | None = None
    seed: int | None = None

    def lacks(self, measures: Iterable[Measure]) -> list[str]:
        """Keys of the measures that it has no finite figure of."""
        return [m.key for m in measures if not math.isfinite(self.values.get(m.key, math.nan))]


@dataclass(frozen=True)
class Front:
    """What a comparison found.

    Attributes:
        members: points that no other one dominates; the best in the first measure first.
        dominated: every other point, with the name of a member that is at least as good in all measures and
            better in one.
        left_out: name of a point without a finite figure in every measure → keys of those measures.
    """

    members: tuple[Point, ...]
    dominated: tuple[tuple[Point, str], ...]
    left_out: Mapping[str, list[str]]


@dataclass(frozen=True)
class Group:
    """Several runs as one.

    Attributes:
        name: what they have in common.
        runs: their names.
        mean: key → mean of the runs that have a figure; NaN or infinite when one of them is.
        std: key → sample standard deviation (Bessel's n - 1); absent of a single figure.
        n: key → number of figures.
        dataset, hardware: where it is the same for all runs that have one.
    """

    name: str
    runs: tuple[str, ...]
    mean: Mapping[str, float]
    std: Mapping[str, float]
    n: Mapping[str, int]
    dataset: str | None
    hardware: str | None

    @property
    def point(self) -> Point:
        """The mean as a point."""
        return Point(self.name, self.name, self.mean, self.dataset, self.hardware)


def parse_measure(text: str) -> Measure:
    """A measure as a user writes it: a short name (`f1`), a key of the metrics, either with `:max` or `:min`.

    Raises:
        UsageError: which way is better is neither known nor said.
    """
    name, colon, direction = text.rpartition(":")
    if colon and direction in ("max", "min"):
        return Measure(_key(name), direction == "max")
    key = _key(text)
    words = set(re.split(r"[^a-z0-9]+", key.rpartition("/")[2].lower()))
    if words & _COSTS:
        return Measure(key, False)
    if words & _SCORES:
        return Measure(key, True)
    near = get_close_matches(text, NAMES, n=1)
    guess = f"did you mean {near[0]}? Known: " if near else "known: "
    raise UsageError(
        f"cannot tell whether more or less of '{text[:60]}' is better",
        where="--measure",
        hint=f"{guess}{', '.join(NAMES)}; of any other key say it: --measure {text[:60]}:max or {text[:60]}:min",
    )


def _key(name: str) -> str:
    folded = {short.lower(): key for short, (key, _) in NAMES.items()}
    return folded.get(name.lower().replace("-", "_"), name)


def front(points: Iterable[Point], measures: Sequence[Measure]) -> Front:
    """The points that no other point dominates, exactly.

    A point dominates another when it is at least as good in every measure and better in one. So points that are
    equal in all measures stand or fall together.

    Args:
        points: with different names.
        measures: two to six, each of another key.

    Raises:
        UsageError: another number of measures, one twice, or two points of one name.
    """
    # Loaded for a comparison alone: other verbs import this module for its names.
    import numpy as np

    check_measures(measures)
    points = sorted(points, key=attrgetter("name"))
    _check_names(points)
    figures = np.array([[p.values.get(m.key, math.nan) for p in points] for m in measures], dtype=float)
    costs = figures * [[-1.0] if m.maximize else [1.0] for m in measures]
    finite = np.isfinite(costs).all(axis=0)
    left_out = {points[i].name: points[i].lacks(measures) for i in np.flatnonzero(~finite)}
    whole = [points[i] for i in np.flatnonzero(finite)]
    costs = costs[:, finite]
    # Places order as costs do, and are compared faster.
    ranks = [np.unique(row, return_inverse=True)[1].reshape(-1) for row in costs]
    places = np.array(ranks, dtype=np.int32)
    sums = places.sum(axis=0)
    # What dominates a point has a smaller sum of places. So the first of those that are left is a member, with those
    # that equal it, and what it dominates is not asked again.
    left = np.argsort(sums, kind="stable")
    places, sums = places[:, left], sums[left]
    better = np.full(len(whole), -1)
    while left.size:
        reached = (places >= places[:, :1]).all(axis=0)
        better[left[reached & (sums > sums[0])]] = left[0]
        kept = np.flatnonzero(~reached)
        left, places, sums = left[kept], places.take(kept, axis=1), sums[kept]
    order = np.lexsort(costs[::-1])
    told = list(zip(order.tolist(), better[order].tolist(), strict=True))
    return Front(
        tuple(whole[i] for i, by in told if by < 0),
        tuple((whole[i], whole[by].name) for i, by in told if by >= 0),
        left_out,
    )


def costs_of(point: Point, measures: Sequence[Measure]) -> tuple[float, ...]:
    """Its figures, turned so that less is better."""
    return tuple(m.cost(point.values[m.key]) for m in measures)


def check_measures(measures: Sequence[Measure]) -> None:
    """Refuse what no front can be of: fewer than two measures, more than six, or one twice.

    Raises:
        UsageError: it is so.
    """
    keys = [m.key for m in measures]
    if not _LEAST <= len(keys) <= _MOST:
        raise UsageError(
            f"a front needs {_LEAST} to {_MOST} measures, not {len(keys)}",
            where="--measure",
            hint="give the option once for each: --measure f1 --measure latency",
        )
    twice = next((k for k in keys if keys.count(k) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} stands twice", where="--measure", hint="name each measure once")


def _check_names(points: Sequence[Point]) -> None:
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise UsageError(f"two runs are called '{point.name}'", hint="a name must say which run is meant")
        seen.add(point.name)


def staircase(points: Iterable[Point], x: Measure, y: Measure) -> list[tuple[float, float]]:
    """The edge of what the points reach in the plane of two measures, as a line to draw.

    Returns:
        (x, y) corners from the best x to the best y: along x at a front point's height, then up or down to the next.
    """
    corners: list[tuple[float, float]] = []
    for place in dict.fromkeys((p.values[x.key], p.values[y.key]) for p in front(points, [x, y]).members):
        if corners:
            corners.append((place[0], corners[-1][1]))
        corners.append(place)
    return corners


def group_points(points: Iterable[Point], by: Literal["group", "dataset", "hardware"] = "group") -> list[Group]:
    """Runs that differ in seed only as one: mean, spread and number of each figure, by name of the group."""
    members: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        members[getattr(point, by) or "unknown"].append(point)
    return [_group(name, runs) for name, runs in sorted(members.items())]


def _group(name: str, runs: list[Point]) -> Group:
    figures: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for key, value in run.values.items():
            figures[key].append(value)
    spread = {k: vs for k, vs in figures.items() if len(vs) > 1 and all(map(math.isfinite, vs))}
    return Group(
        name,
        tuple(sorted(run.name for run in runs)),
        {k: statistics.fmean(vs) for k, vs in figures.items()},
        {k: statistics.stdev(vs) for k, vs in spread.items()},
        {k: len(vs) for k, vs in figures.items()},
        _common(run.dataset for run in runs),
        _common(run.hardware for run in runs),
    )


def _common(values: Iterable[str | None]) -> str | None:
    found = {v for v in values if v is not None}
    return found.pop() if len(found) == 1 else None


def figure(point: Point, measure: Measure, groups: Mapping[str, Group]) -> str:
    """A point's figure in words; of a mean with its spread and number."""
    text = _digits(point.values[measure.key], 4)
    if point.name not in groups:
        return text
    group = groups[point.name]
    std = f" ± {_digits(group.std[measure.key], 2)}" if measure.key in group.std else ""
    return f"{text}{std} (n {group.n[measure.key]})"


def _digits(value: float, count: int) -> str:
    """At least so many significant digits, without a power of ten where all of them stand before the point."""
    return f"{value:,.0f}" if 10**count <= abs(value) < 1e15 else f"{value:.{count}g}"


def retention(points: Iterable[Point], baseline: Point, measures: Sequence[Measure]) -> dict[str, dict[str, float]]:
    """How each point stands to a baseline, so that 1 is the same and more is better.

    Returns:
        Name → key → ratio: Performance Retention (figure / baseline's) of a measure to maximise, Efficiency Gain
        (baseline's / figure) of one to minimise. Absent where a figure is missing or the ratio has no meaning: a
        divisor of zero, or a negative figure.
    """
    return {p.name: {m.key: r for m in measures if (r := _ratio(p, baseline, m)) is not None} for p in points}


def ratio_title(measure: Measure) -> str:
    """What a column of a measure's ratios is called."""
    return f"{measure.name} {'retention' if measure.maximize else 'gain'}"


def ratio_text(ratio: float | None, measure: Measure) -> str:
    """A ratio of `retention` in words: a score as what is left of it, a cost as how many times cheaper."""
    if ratio is None:
        return "-"
    return f"{100 * ratio:.1f} %" if measure.maximize else f"{ratio:.2f}x"


def _ratio(point: Point, baseline: Point, measure: Measure) -> float | None:
    if point.lacks([measure]) or baseline.lacks([measure]):
        return None
    mine, base = point.values[measure.key], baseline.values[measure.key]
    above, below = (mine, base) if measure.maximize else (base, mine)
    return above / below if above >= 0 and below > 0 else None


def check_comparable(points: Sequence[Point], *, mix_hardware: bool = False, mix_datasets: bool = False) -> None:
    """Refuse to compare what was measured on different machines, or scored on different data.

    What is not known of a point is no reason to refuse.

    Args:
        points: to be compared.
        mix_hardware, mix_datasets: allow it.

    Raises:
        UsageError: naming the machines or the data sets, a run of each, and the option that allows it.
    """
    by_dataset = {p.dataset: p.name for p in reversed(points) if p.dataset}
    digested = {dataset.rpartition("@")[0] for dataset in by_dataset}
    # A name without a digest fits the same name with one.
    by_dataset = {dataset: name for dataset, name in by_dataset.items() if dataset not in digested}
    by_hardware = {p.hardware: p.name for p in reversed(points) if p.hardware}
    _refuse(by_hardware, mix_hardware, "measured on different hardware", "--mix-hardware")
    _refuse(by_dataset, mix_datasets, "scored on different data sets", "--mix-datasets")


def _refuse(kinds: dict[str, str], allowed: bool, what: str, option: str) -> None:
    if allowed or len(kinds) < 2:
        return
    found = ", ".join(f"{kind} ({name})" for kind, name in sorted(kinds.items()))
    raise UsageError(
        f"the runs were {what}: {found}",
        hint=f"name runs that can be compared, or allow it with {option}",
    )

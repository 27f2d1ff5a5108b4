"""What a report says of runs: figures, fronts, curves, differences. How it looks is the page's matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from hpcft.errors import HpcftError, UsageError
from hpcft.report.curves import Curve, read_curves
from hpcft.report.distillation import Lesson, facts, read_lessons
from hpcft.report.latency import Latency, read_latency
from hpcft.report.lineage import Lineage, lineages
from hpcft.report.pareto import (
    Front,
    Group,
    Measure,
    Point,
    check_comparable,
    front,
    group_points,
    parse_measure,
    retention,
)
from hpcft.report.points import joined_point
from hpcft.runs.files import read_json, without_nan
from hpcft.runs.run import Run, RunState
from hpcft.spec.variants import VARIANTS

# Columns of the comparison, those that some run has; of two that are one after another under one letter, the first.
_COLUMNS = ("f1", "accuracy", "bleu", "latency", "vram", "rss", "size", "train_vram", "train_rss", "flops")
_INSTEAD = {"rss": "vram", "train_rss": "train_vram"}
_MOST_AXES = 6
_MEASURED = ("final/", "inference/avg_latency")
_NAMED = 10


@dataclass
class Report:
    """Everything that a report shows.

    Attributes:
        title: at its top.
        rows: one a model, in the order of the tables.
        points: name of a row → its figures; absent of one that has none yet.
        measures: that some row has a figure of; scores before costs.
        groups: rows of one variant as one.
        fronts: (y, x) → the front of the two; the first is the one that is told in words. Empty where the rows cannot
            be compared.
        baseline: what the others are divided by.
        notes: what a reader must know before the figures.
        curves: metric → run → curve.
        latency: name of a row → what its benchmark measured.
        runs: all that is shown, ancestors too, by a name that is unique.
        lessons: name of a run that is a distillation → its shown samples.
    """

    title: str
    rows: list[Lineage]
    points: dict[str, Point]
    measures: list[Measure]
    groups: list[Group]
    fronts: dict[tuple[Measure, Measure], Front]
    baseline: Point | None
    notes: list[str]
    curves: dict[str, dict[str, Curve]]
    latency: dict[str, Latency]
    runs: dict[str, Run]
    ratios: dict[str, dict[str, float]] = field(default_factory=dict)
    lessons: dict[str, Lesson] = field(default_factory=dict)

    @property
    def front(self) -> Front | None:
        """The front that is told in words."""
        return next(iter(self.fronts.values()), None)

    @property
    def looks(self) -> dict[str, int]:
        """The number of each line's look: that of a row and of the run that its curve is of are the same."""
        drawn = {*self.latency, *(name for of in self.curves.values() for name in of)}
        return {name: number for number, name in enumerate(sorted(drawn))}

    def verdict(self, name: str) -> str:
        """Where a row stands to the front."""
        if self.front is None or name in self.front.left_out:
            return ""
        better = {point.name: member for point, member in self.front.dominated}
        if name in better:
            return f"dominated by {better[name]}"
        return "on the front" if any(p.name == name for p in self.front.members) else ""

    def state(self, row: Lineage) -> str:
        """State of a row whose runs have not all succeeded; empty otherwise."""
        states = [run.state for run in row.runs]
        return str(next((s for s in states if s is not RunState.SUCCESS), ""))

    def interval(self, row: Lineage, measure: Measure) -> tuple[float, float] | None:
        """The 95 % interval of a score, as the evaluation wrote it."""
        value = self.points[row.name].values.get(measure.key)
        score = measure.key.rpartition("validation_")[2]
        for run in reversed(row.runs):
            results = read_json(run.paths.evaluation)
            told = results.get("intervals") if isinstance(results, dict) else None
            if not isinstance(told, dict):
                continue
            # The F1 of a task is one of its scores, under a second name.
            same = (k for k in told if results.get(k) == value)
            found = told.get(score if score in told else next(same, ""))
            if isinstance(found, list) and len(found) == 2 and results.get(score, value) == value:
                return float(found[0]), float(found[1])
        return None


def gather(runs: Sequence[Run], title: str, baseline: str | None = None) -> Report:
    """Read runs for a report.

    Args:
        runs: what it is about; what they work on is read with them.
        title: at its top.
        baseline: name of a run, or of a variant that one row is of.

    Raises:
        UsageError: the baseline is none of the rows, or there is no run at all.
    """
    notes: list[str] = []
    rows: list[Lineage] = []
    points: dict[str, Point] = {}
    latency: dict[str, Latency] = {}
    for row in lineages(runs):
        try:
            point = joined_point(row)
            measured = read_latency(row)
            _check_files(row)
        except HpcftError as error:
            # One damaged run among many must not hide the others.
            notes.append(f"left out: {row.name}: {str(error).splitlines()[0]}")
            continue
        rows.append(row)
        if point is not None:
            points[row.name] = point
        if measured is not None:
            latency[row.name] = measured
            notes += [f"{row.name}: {trouble}" for trouble in measured.troubles]
    if not rows:
        raise UsageError("there is no run to report", hint="\n".join(notes) or "name some, or another --results")
    rows = _without_steps(rows, points)
    rows.sort(key=lambda row: (points[row.name].group if row.name in points else "~", row.name))
    waiting = [row.name for row in rows if row.name not in points]
    if waiting:
        notes.append(f"no figures yet: {_listed(waiting)}")
    named = _names(rows)
    curves = read_curves(named)
    found = list(points.values())
    measures = _measures(found)
    report = Report(
        title,
        rows,
        points,
        measures,
        group_points(found),
        _fronts(found, measures, notes),
        None,
        notes,
        curves,
        latency,
        named,
        lessons=read_lessons(named),
    )
    if baseline is not None:
        report.baseline = _baseline(baseline, report)
        everything = [*found, *(g.point for g in report.groups if g.name not in points)]
        report.ratios = retention(everything, report.baseline, measures)
    return report


def _check_files(row: Lineage) -> None:
    """Read what the tables read later, so that a damaged file leaves one row out and not all.

    Raises:
        DataError: one is damaged.
    """
    for run in (*row.before, *row.runs):
        read_json(run.paths.provenance)
        str(run.state)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _without_steps(rows: Sequence[Lineage], points: dict[str, Point]) -> list[Lineage]:
    """Rows but for models that are a mere step to another row's and that nothing measured, as a merged one is."""
    steps = {run.paths.root for row in rows for run in row.before}
    kept = []
    for row in rows:
        keys = points[row.name].values if row.name in points else {}
        if row.runs[0].paths.root in steps and not any(key.startswith(_MEASURED) for key in keys):
            points.pop(row.name, None)
        else:
            kept.append(row)
    return kept


def _names(rows: Sequence[Lineage]) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for row in rows:
        for run in (*reversed(row.before), *row.runs):
            if all(run.paths.root != other.paths.root for other in found.values()):
                found[run.name if run.name not in found else str(run.paths.root)] = run
    return found


def _measures(points: Sequence[Point]) -> list[Measure]:
    def some(measure: Measure) -> bool:
        return any(not point.lacks([measure]) for point in points)

    measures = {name: parse_measure(name) for name in _COLUMNS}
    present = {name: measure for name, measure in measures.items() if some(measure)}
    return [m for name, m in present.items() if _INSTEAD.get(name) not in present]


def _fronts(
    points: Sequence[Point], measures: Sequence[Measure], notes: list[str]
) -> dict[tuple[Measure, Measure], Front]:
    fronts = {}
    # First what is got for what.
    pairs = sorted(combinations(measures[:_MOST_AXES], 2), key=lambda pair: pair[0].maximize == pair[1].maximize)
    for pair in pairs:
        both = [point for point in points if not point.lacks(pair)]
        if len(both) < 2:
            continue
        try:
            check_comparable(both)
        except UsageError as error:
            words = str(error).splitlines()[0]
            notes.append(f"no front is drawn: {words}. `hpcft pareto` draws one when it is told to.")
            return {}
        fronts[pair] = front(points, pair)
    return fronts


def _baseline(text: str, report: Report) -> Point:
    label = VARIANTS[text].label if text in VARIANTS else text
    place = Path(text).absolute()
    named = [row for row in report.rows if row.name == text]
    named = named or [r for r in report.rows if any(run.name == text or run.paths.root == place for run in r.runs)]
    named = named or [r for r in report.rows if r.name in report.points and report.points[r.name].group == label]
    if len(named) == 1 and named[0].name in report.points:
        return report.points[named[0].name]
    what = f"fits {len(named)} rows" if len(named) > 1 else "has no figures" if named else "is none of the rows"
    raise UsageError(f"'{text[:60]}' {what}", where="--baseline", hint=_listed([r.name for r in named or report.rows]))


def document(report: Report) -> dict[str, Any]:
    """The report as data for a program."""
    shown: dict[str, Any] = {
        "title": report.title,
        "notes": report.notes,
        "baseline": None if report.baseline is None else report.baseline.name,
        "measures": [{"key": m.key, "better": "more" if m.maximize else "less"} for m in report.measures],
        "models": [_described(row, report) for row in report.rows],
        "variants": [
            {"name": g.name, "runs": list(g.runs), "mean": dict(g.mean), "std": dict(g.std), "n": dict(g.n)}
            for g in report.groups
        ],
        "curves": {
            metric: {
                name: {"first": c.first, "last": c.last, "lowest": c.lowest, "highest": c.highest, "count": c.count}
                for name, c in of.items()
            }
            for metric, of in report.curves.items()
        },
    }
    if report.lessons:
        shown["distillation"] = {name: facts(lesson) for name, lesson in report.lessons.items()}
    found: dict[str, Any] = without_nan(shown)
    return found


def _described(row: Lineage, report: Report) -> dict[str, Any]:
    point = report.points.get(row.name)
    described: dict[str, Any] = {
        "name": row.name,
        "runs": [run.name for run in row.runs],
        "made_from": [run.name for run in row.before],
        "state": report.state(row) or str(RunState.SUCCESS),
    }
    if point is not None:
        described |= {
            "variant": point.group,
            "values": dict(point.values),
            "dataset": point.dataset,
            "hardware": point.hardware,
            "seed": point.seed,
            "verdict": report.verdict(row.name) or None,
        }
    if row.name in report.ratios:
        described["ratio_to_baseline"] = report.ratios[row.name]
    if row.name in report.latency:
        described["latency"] = report.latency[row.name].summary
    return described

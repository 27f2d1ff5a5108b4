"""`hpcft pareto`: runs side by side by several measures, and which of them no other one beats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from hpcft.cli.complete import runs as complete_runs
from hpcft.cli.output import as_json, grid, printable, say
from hpcft.cli.texts import ending
from hpcft.errors import UsageError
from hpcft.report.hypervolume import hypervolume
from hpcft.report.pareto import (
    NAMES,
    Front,
    Group,
    Measure,
    Point,
    check_comparable,
    figure,
    front,
    group_points,
    parse_measure,
    ratio_text,
    ratio_title,
    retention,
)
from hpcft.report.points import indexed_points, read_points
from hpcft.runs.files import explained, make_private, write_atomic, write_json
from hpcft.runs.index.query import Index
from hpcft.runs.run import Run, find_runs
from hpcft.spec.variants import VARIANTS

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_NAMED_RUNS = 10


@dataclass
class Comparison:
    """Runs side by side, and which of them no other one beats."""

    measures: list[Measure]
    front: Front
    groups: dict[str, Group]
    baseline: Point | None
    # Name of a run that is not compared → why.
    left_out: dict[str, str] = field(default_factory=dict)
    hypervolume: float | None = None

    @property
    def points(self) -> list[Point]:
        """Those of the front, then the others."""
        return [*self.front.members, *(point for point, _ in self.front.dominated)]

    @property
    def dominated_by(self) -> dict[str, str]:
        """Name of a point → a point that is better."""
        return {point.name: better for point, better in self.front.dominated}

    @property
    def ratios(self) -> dict[str, dict[str, float]]:
        """Name of a point → measure → its figure over the baseline's."""
        return {} if self.baseline is None else retention(self.points, self.baseline, self.measures)


def _measure_names(incomplete: str) -> list[str]:
    return [name for name in NAMES if name.startswith(incomplete)]


@app.command(
    epilog=ending(
        ["hpcft pareto", "hpcft pareto --measure f1 --measure vram --by-variant --out pareto"],
        {0: "shown", 2: "no such run or measure, or runs that cannot be compared", 77: ""},
    )
)
def pareto(
    run: list[str] = typer.Argument(
        None,
        metavar="[RUN]...",
        help="Directory, name, run id, job id, or a unique beginning; all runs with the measures when absent.",
        autocompletion=complete_runs,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    measure: list[str] = typer.Option(
        ["f1", "latency"],
        "--measure",
        help=f"Two to six: {', '.join(NAMES)}, or KEY, KEY:max, KEY:min of metrics.json.",
        autocompletion=_measure_names,
    ),
    by_variant: bool = typer.Option(False, "--by-variant", help="One point a variant: the mean over its runs."),
    baseline: str = typer.Option(
        None, "--baseline", metavar="NAME", help="Run or variant that the others' figures are divided by."
    ),
    mix_hardware: bool = typer.Option(False, "--mix-hardware", help="Compare figures of different machines."),
    mix_datasets: bool = typer.Option(False, "--mix-datasets", help="Compare scores on different data sets."),
    reference: list[str] = typer.Option(
        None,
        "--reference",
        metavar="MEASURE=WORST",
        help="Worst value of a measure, one for each: gives the front's hypervolume, to compare sweeps by.",
    ),
    out: Path = typer.Option(None, "--out", help="Folder for pareto.png, pareto.html and pareto.json."),
    json: bool = typer.Option(False, "--json", help="Print the comparison as JSON."),
) -> None:
    """Compare runs by several measures: which of them no other one beats."""
    # Nothing is looked for where runs are named.
    with nullcontext(find_runs(run, results)) if run else Index(results) as runs:
        result = compare(
            runs,
            measure,
            by_variant=by_variant,
            baseline=baseline,
            mix_hardware=mix_hardware,
            mix_datasets=mix_datasets,
            reference=reference or (),
        )
    if result.hypervolume is not None:
        say(f"hypervolume of the front: {result.hypervolume:.6g}")
    tell_left_out(result.left_out)
    if out is not None:
        _write(result, out)
    if json:
        as_json(document(result))
    elif result.points:
        grid(*_rows(result))
    else:
        say(f"no run in {results} has {' and '.join(m.key for m in result.measures)}")


def compare(
    runs: Iterable[Run] | Index,
    measure: Sequence[str],
    *,
    by_variant: bool = False,
    baseline: str | None = None,
    mix_hardware: bool = False,
    mix_datasets: bool = False,
    reference: Sequence[str] = (),
) -> Comparison:
    """Compare runs by several measures; the arguments are the options of `hpcft pareto`.

    Args:
        runs: some runs, or the index of all.

    Raises:
        UsageError: no such measure or baseline, or runs that cannot be compared.
    """
    measures = [parse_measure(text) for text in measure]
    if isinstance(runs, Index):
        points, unread = indexed_points(runs, [m.key for m in measures])
    else:
        points, unread = read_points(runs)
    # A mean may take its score from one run and its cost from another.
    counted = [p for p in points if len(p.lacks(measures)) < (len(measures) if by_variant else 1)]
    check_comparable(counted, mix_hardware=mix_hardware, mix_datasets=mix_datasets)
    groups = {g.name: g for g in group_points(points)} if by_variant else {}
    compared = [g.point for g in groups.values()] if by_variant else points
    found = front(compared, measures)
    lacking = {p.name: lack(p, found.left_out[p.name]) for p in compared if p.name in found.left_out}
    result = Comparison(measures, found, groups, None, unread | lacking)
    if baseline is not None:
        result.baseline = find_baseline(baseline, result.points, result.left_out)
    if reference:
        result.hypervolume = hypervolume(found.members, measures, _worst(reference, measures))
    return result


def lack(point: Point, keys: list[str]) -> str:
    """What is wrong with the figures of these keys, in words."""
    return ", ".join(f"{key} is {point.values[key]}" if key in point.values else f"no {key}" for key in keys)


def _worst(texts: Sequence[str], measures: list[Measure]) -> dict[str, float]:
    """The reference point of a hypervolume, by key.

    Raises:
        UsageError: a text is no MEASURE=NUMBER, or the measures are not those that are compared.
    """
    worst: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            worst[parse_measure(name).key] = float(value)
        except ValueError as error:
            raise UsageError(f"'{text[:60]}' is not of the form MEASURE=NUMBER", where="--reference") from error
    if set(worst) != {m.key for m in measures}:
        raise UsageError("names other measures than --measure", where="--reference", hint="one for each of them")
    return worst


def find_baseline(text: str, points: Sequence[Point], left_out: Mapping[str, str]) -> Point:
    """The point that a user names by a run or by a variant.

    Raises:
        UsageError: it is none of the points, or not one alone.
    """
    label = VARIANTS[text].label if text in VARIANTS else text
    named = [p for p in points if p.name == text] or [p for p in points if p.group == label]
    if len(named) == 1:
        return named[0]
    if text in left_out:
        raise UsageError(f"'{text}' cannot be the baseline: {left_out[text]}", where="--baseline")
    what = f"fits {len(named)} runs" if named else "is none of the compared runs"
    names = ", ".join(p.name for p in (named or points)[:_NAMED_RUNS]) or "there is none"
    raise UsageError(f"'{text[:60]}' {what}", where="--baseline", hint=f"name one: {names}")


def tell_left_out(left_out: dict[str, str]) -> None:
    """Say which models are not compared; those with the same reason together."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in left_out.items():
        by_reason[reason].append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - _NAMED_RUNS} more" if len(names) > _NAMED_RUNS else ""
        say(printable(f"left out, {reason}: {', '.join(names[:_NAMED_RUNS])}{more}"))


def _write(result: Comparison, folder: Path) -> None:
    from hpcft.report.pareto_picture import draw_pareto_png, pareto_html

    if not result.points:
        say("nothing to draw")
        return
    with explained(folder, "make the folder"):
        make_private(folder)
    write_json(folder / "pareto.json", document(result))
    write_atomic(folder / "pareto.html", pareto_html(result.front, result.measures, result.groups))
    y, x = result.measures[:2]
    draw_pareto_png(result.front, x, y, folder / "pareto.png", result.groups)
    say(f"written: {folder / 'pareto.png'}, pareto.html, pareto.json")


def document(result: Comparison) -> dict[str, Any]:
    """A comparison as data."""
    return {
        "measures": [{"key": m.key, "better": "more" if m.maximize else "less"} for m in result.measures],
        "points": [_described(p, result) for p in result.points],
        "left_out": result.left_out,
        "baseline": None if result.baseline is None else result.baseline.name,
        "hypervolume": result.hypervolume,
    }


def _described(point: Point, result: Comparison) -> dict[str, Any]:
    keys = [m.key for m in result.measures]
    described: dict[str, Any] = {
        "name": point.name,
        "variant": point.group,
        "values": {k: point.values[k] for k in keys},
        "front": point.name not in result.dominated_by,
        "dominated_by": result.dominated_by.get(point.name),
        "dataset": point.dataset,
        "hardware": point.hardware,
        "seed": point.seed,
    }
    if point.name in result.groups:
        group = result.groups[point.name]
        described |= {
            "runs": list(group.runs),
            "std": {k: group.std[k] for k in keys if k in group.std},
            "n": {k: group.n[k] for k in keys},
        }
    if point.name in result.ratios:
        described["ratio_to_baseline"] = result.ratios[point.name]
    return described


def _rows(result: Comparison) -> tuple[list[str], list[list[str]]]:
    measures = result.measures
    head = ["run", "variant"] if not result.groups else ["variant"]
    head += [f"{m.name} ({'max' if m.maximize else 'min'})" for m in measures]
    if result.baseline is not None:
        head += [ratio_title(m) for m in measures]
    rows = []
    for point in result.points:
        row = [point.name, point.group] if not result.groups else [point.name]
        row += [figure(point, m, result.groups) for m in measures]
        if result.baseline is not None:
            ratios = result.ratios[point.name]
            row += [ratio_text(ratios.get(m.key), m) for m in measures]
        better = result.dominated_by.get(point.name)
        rows.append([*row, f"dominated by {better}" if better else "front"])
    return [*head, "verdict"], rows

"""A report as one HTML file that needs no network, and is complete without its script."""

from __future__ import annotations

from collections.abc import Sequence

from hpcft.report import tables
from hpcft.report.chart import Chart, Mark, Scale, axis, line_chart, line_path, short
from hpcft.report.contents import Report, gather
from hpcft.report.curves import Curve
from hpcft.report.distillation import loss_words, overview_rows, sample_rows
from hpcft.report.latency import batch_rows, latency_charts
from hpcft.report.palette import DASHES, LINE_COLORS, group_styles, line_style
from hpcft.report.pareto import Front, Measure, figure, staircase
from hpcft.report.pareto_picture import axis_label
from hpcft.report.template import render
from hpcft.runs.run import Run

_NAMED_POINTS = 12
_LESSON_HEAD = [
    "Run",
    "Rows",
    "Samples shown",
    "Mean laziness by epoch (%)",
    "Improvement (points)",
    "Topics (samples)",
]
_SAMPLE_HEAD = ["Run", "Rows", "Step", "Topic", "Teacher", "Student", "Laziness (%)"]
_TAUGHT = [f"distill/sample_{name}" for name in ("laziness", "similarity", "kl", "loss")]
_CURVE_HEAD = ["first", "lowest", "highest", "last", "at step", "points"]


def report_html(runs: Sequence[Run], title: str, baseline: str | None = None, lang: str = "en") -> str:
    """A report about runs: comparison, fronts, curves, latency, costs, what differs, environment.

    Runs about one model (its training, evaluation and benchmark) are one row, with what they work on, whether that
    is named or not.

    Args:
        runs: what it is about.
        title: at its top.
        baseline: name of the run, or of the variant, that the others' figures are divided by.
        lang: language of the runs' names (BCP 47), by which a browser chooses the forms of Chinese characters. The
            report's own words are English.

    Raises:
        UsageError: there is no run, or the baseline is none of them.
    """
    return html_of(gather(runs, title, baseline), lang)


def html_of(report: Report, lang: str = "en") -> str:
    """A report that was gathered, as a page."""
    numbers = report.looks
    of_loss = loss_words(report.lessons)
    titles = {_TAUGHT[-1]: f"{_TAUGHT[-1]} ({of_loss})"} if of_loss else {}
    charts = {m: _curves(m, of, numbers, titles.get(m, m)) for m, of in report.curves.items()}
    taught = [metric for metric in _TAUGHT if metric in charts and report.lessons]
    return render(
        "report.html.j2",
        ["base.css", "report.css"],
        "report.js",
        report=report,
        lang=lang,
        blocks=tables.comparison(report),
        best=tables.best(report),
        front_sentence=tables.front_sentence(report),
        about=tables.about(report),
        places={name: number for number, name in enumerate(row.name for row in report.rows)},
        pareto=[_scatter(report, *pair, found) for pair, found in report.fronts.items()],
        groups=group_styles(p.group for p in report.points.values()),
        curves=[chart for metric, chart in charts.items() if metric not in taught],
        taught=[charts[metric] for metric in taught],
        lessons=tables.Table(_LESSON_HEAD, overview_rows(report.lessons)),
        samples=tables.Table([*_SAMPLE_HEAD, f"Loss ({of_loss})", "Comment"], sample_rows(report.lessons)),
        latency=latency_charts(report.latency, numbers),
        batches=tables.Table(
            ["Row", "Batch size", "Tokens of a prompt", "Median latency (ms)", "Tokens a second"],
            batch_rows(report.latency),
        ),
        costs=tables.costs(report),
        configs=tables.configs(report),
        runs=tables.runs(report),
        environment=tables.environment(report),
        looks={number: line_style(number) for number in numbers.values()},
        colors=LINE_COLORS,
        dashes=[" ".join(map(str, dash)) for dash in DASHES],
    )


def _curves(metric: str, curves: dict[str, Curve], numbers: dict[str, int], title: str) -> Chart:
    return line_chart(
        title,
        {name: curve.points for name, curve in curves.items()},
        numbers,
        x_label="Optimizer step",
        y_label=metric,
        head=_CURVE_HEAD,
        figures={name: _told(curve) for name, curve in curves.items()},
    )


def _told(curve: Curve) -> list[str]:
    values = [short(point[1]) for point in (curve.first, curve.lowest, curve.highest, curve.last)]
    broken = f", {curve.broken} of them not finite" if curve.broken else ""
    return [*values, short(curve.last[0]), f"{curve.count:,}{broken}"]


def _scatter(report: Report, y: Measure, x: Measure, found: Front) -> Chart:
    points = [*found.members, *(point for point, _ in found.dominated)]
    across = Scale.of((p.values[x.key] for p in points), 0.1)
    up = Scale.of((p.values[y.key] for p in points), 0.1)
    styles = group_styles(p.group for p in report.points.values())
    numbers = {row.name: number for number, row in enumerate(report.rows)}
    better = {point.name: member for point, member in found.dominated}
    marks: list[Mark] = []
    rows: list[tuple[int | None, str, list[str]]] = []
    for point in points:
        figures = [figure(point, m, {}) for m in (y, x)]
        verdict = f"dominated by {better[point.name]}" if point.name in better else "on the front"
        rows.append((None, point.name, [*figures, verdict]))
        place = round(100 * across.place(point.values[x.key]), 2), round(100 - 100 * up.place(point.values[y.key]), 2)
        left, below = _free_side(place, marks)
        marks.append(
            Mark(
                *place,
                styles[point.group],
                point.name not in better,
                point.name,
                f"{point.name} ({point.group}): {y.label} {figures[0]}, {x.label} {figures[1]}, {verdict}",
                f"model-{numbers[point.name]}",
                left,
                below,
            )
        )
    return Chart(
        f"{y.label} against {x.label}",
        axis_label(x),
        axis_label(y),
        axis(across, 5),
        axis(up, 6, upwards=True),
        marks=marks,
        stairs=line_path(staircase(points, x, y), across, up),
        named=len(points) <= _NAMED_POINTS,
        head=[y.label, x.label, "Verdict"],
        rows=rows,
    )


def _free_side(place: tuple[float, float], marks: Sequence[Mark]) -> tuple[bool, bool]:
    """Where a mark's name stands, to the left or right and below or above, so that near ones do not cover it."""
    near = {(m.left, m.below) for m in marks if abs(m.x - place[0]) < 15 and abs(m.y - place[1]) < 8}
    left = place[0] > 60
    sides = [(left, False), (left, True), (not left, False), (not left, True)]
    return next((side for side in sides if side not in near), sides[0])

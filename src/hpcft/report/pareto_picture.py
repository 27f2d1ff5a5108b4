"""A comparison as a picture, and as a page to explore: both show the same points and the same front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

from hpcft.report.palette import group_styles
from hpcft.report.pareto import Front, Group, Measure, Point, figure, staircase
from hpcft.report.template import render

_NAMED_POINTS = 12
_EDGE = "#444444"


def _points(front: Front) -> list[Point]:
    return [*front.members, *(point for point, _ in front.dominated)]


def axis_label(measure: Measure) -> str:
    """What stands on an axis."""
    return f"{measure.label}, {'more' if measure.maximize else 'less'} is better"


def draw_pareto_png(
    front: Front, x: Measure, y: Measure, path: Path, spread: Mapping[str, Group] | None = None
) -> Path | None:
    """Draw the points in the plane of two measures: the front's members filled, the others hollow, and a line along
    the edge of what is reached in this plane.

    Args:
        front: the comparison; of more than two measures it may have members off that line.
        x, y: axes.
        path: PNG to write.
        spread: groups that the points are means of, by name: drawn with one standard deviation each way.

    Returns:
        The path, or None when there is no point.
    """
    from hpcft.viz import picture

    points = _points(front)
    if not points:
        return None
    styles = group_styles(p.group for p in points)
    with picture(path) as (_, [axes]):
        corners = staircase(points, x, y)
        axes.plot(*zip(*corners, strict=True), "-", color=_EDGE, linewidth=1.4, zorder=1, label="front in this plane")
        for group, style in styles.items():
            axes.plot([], [], style.marker, color=style.color, label=_plain(group))
        for number, point in enumerate(points):
            style = styles[point.group]
            place = point.values[x.key], point.values[y.key]
            std = spread[point.name].std if spread and point.name in spread else {}
            axes.errorbar(
                *place,
                xerr=std.get(x.key),
                yerr=std.get(y.key),
                fmt=style.marker,
                color=style.color,
                markersize=9,
                markeredgewidth=1.8,
                markerfacecolor=style.color if number < len(front.members) else "white",
                capsize=3,
                elinewidth=1,
                zorder=3,
            )
            if len(points) <= _NAMED_POINTS:
                axes.annotate(
                    _plain(point.name), place, xytext=(7, 6), textcoords="offset points", fontsize=9, zorder=4
                )
        for label, face in (("filled: front of all measures", _EDGE), ("hollow: dominated", "white")):
            axes.plot([], [], "o", color=_EDGE, markerfacecolor=face, label=label)
        axes.set(xlabel=axis_label(x), ylabel=axis_label(y))
        axes.set_title("Pareto front", loc="left", fontweight="bold")
        axes.margins(x=0.15, y=0.12)
        # Outside, since any place among the points may be taken.
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return path


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def pareto_html(front: Front, measures: Sequence[Measure], groups: Mapping[str, Group] | None = None) -> str:
    """The comparison as one file that needs no network: choose the axes, point at a run to read its figures.

    Without a script it is a table of the same figures.

    Args:
        front: the comparison.
        measures: those of the front; the first is the y axis to begin with, the second the x axis.
        groups: what the points are means of, by name.
    """
    points = _points(front)
    better = {p.name: by for p, by in front.dominated}
    looks = group_styles(p.group for p in points)
    styles = {group: {"color": style.color, "shape": style.shape} for group, style in looks.items()}
    shown = [
        {
            "name": p.name,
            "group": p.group,
            "values": {m.key: p.values[m.key] for m in measures},
            "figures": [figure(p, m, groups or {}) for m in measures],
            "verdict": f"dominated by {better[p.name]}" if p.name in better else "on the front",
            "front": p.name not in better,
        }
        for p in points
    ]
    stairs = {f"{x.key} {y.key}": staircase(points, x, y) for x, y in permutations(measures, 2)}
    named = [{"key": m.key, "label": m.label, "axis": axis_label(m)} for m in measures]
    return render(
        "pareto.html.j2",
        ["base.css", "pareto.css"],
        "pareto.js",
        measures=named,
        points=shown,
        left_out=front.left_out,
        data={"measures": named, "styles": styles, "points": shown, "stairs": stairs},
    )

"""The pictures of a report as PNG, for a paper or a slide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcft.report.contents import Report
from hpcft.report.palette import DASHES, LINE_COLORS, line_style
from hpcft.report.pareto_picture import draw_pareto_png

_LEGEND = 20
_Lines = Mapping[str, Sequence[tuple[float, float]]]


def draw_pictures(report: Report, folder: Path, stem: str) -> list[Path]:
    """Draw the Pareto front, the curves and the latencies that there are.

    Args:
        report: what to draw.
        folder: for `<stem>-pareto.png`, `<stem>-curves.png` and `<stem>-latency.png`.
    """
    drawn = []
    for (y, x), found in list(report.fronts.items())[:1]:
        drawn.append(draw_pareto_png(found, x, y, folder / f"{stem}-pareto.png"))
    # One point a run is no curve.
    moving = {metric: of for metric, of in report.curves.items() if any(c.count > 1 for c in of.values())}
    curves = {metric: {name: c.points for name, c in of.items()} for metric, of in moving.items()}
    drawn.append(_draw(curves, report.looks, "Optimizer step", folder / f"{stem}-curves.png"))
    times = {name: found.times["latency_ms"] for name, found in report.latency.items() if "latency_ms" in found.times}
    shares = {name: [(v, 100 * (i + 1) / len(values)) for i, v in enumerate(values)] for name, values in times.items()}
    latency = {"Share of queries answered within that time (%)": shares} if shares else {}
    drawn.append(_draw(latency, report.looks, "Latency of a query (ms)", folder / f"{stem}-latency.png", steps=True))
    return [path for path in drawn if path is not None]


def _draw(
    panels: Mapping[str, _Lines], looks: Mapping[str, int], x_label: str, path: Path, *, steps: bool = False
) -> Path | None:
    """A panel a metric, each with a line a run."""
    if not panels:
        return None
    from hpcft.viz import picture

    names = {name for lines in panels.values() for name in lines}
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (10.0, 5.0) if columns == 1 else (14.0, 4.0 * rows)
    with picture(path, rows=rows, columns=columns, size=size) as (figure, axes):
        for place, (title, lines) in zip(axes, panels.items(), strict=False):
            for name, points in lines.items():
                color, dash = line_style(looks[name])
                place.plot(
                    *zip(*points, strict=True),
                    color=LINE_COLORS[color],
                    linestyle=(0, DASHES[dash]) if DASHES[dash] else "-",
                    drawstyle="steps-post" if steps else "default",
                    marker="o" if len(points) == 1 else "",
                    label=name,
                )
            place.set_title(title, loc="left")
            place.set_xlabel(x_label)
        for place in axes[len(panels) :]:
            place.set_visible(False)
        if len(names) <= _LEGEND:
            handles = {label: h for place in axes for h, label in zip(*place.get_legend_handles_labels(), strict=True)}
            figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
    return path

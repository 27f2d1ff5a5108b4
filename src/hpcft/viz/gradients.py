"""Pictures of gradient norms: by group of modules over the steps, of one run or of several, and all that a run has.

Each is drawn twice, the second time on a logarithmic scale and with `_log` behind its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.runs.gradients import GROUPS, GradientLog
from hpcft.viz.gradient_axes import (
    SMOOTH,
    add_title,
    both_scales,
    drawable,
    mark_phases,
    nothing_to_draw,
    scaled_label,
    set_scale,
    smooth,
)
from hpcft.viz.gradient_layers import plot_gradient_evolution, plot_layer_comparison, plot_layer_heatmap
from hpcft.viz.style import GROUP_COLORS, guarded, picture
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_gradients",
    "plot_gradient_evolution",
    "plot_gradient_norms",
    "plot_layer_comparison",
    "plot_layer_heatmap",
]

_MARKED_POINTS = 20
# The line of an experiment has one of these for each turn through the colours.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


def plot_gradient_norms(
    logs: GradientLog | Mapping[str, GradientLog],
    title: str | None = None,
    *,
    save_path: Path | str = "gradient_norms.png",
    lang: Lang = "en",
) -> list[Path]:
    """Draw the norms over the steps, each as it is and smoothed over up to 5 points.

    Args:
        logs: one log, drawn with a curve for each group that has a gradient; or name → log, drawn with a panel for each
            group and a curve for each name.
        title: over the picture.
        save_path: PNG to write; the logarithmic version has `_log` behind its name.
        lang: of the texts.

    Returns:
        The pictures; none when every norm is 0 or not finite.
    """
    if isinstance(logs, GradientLog):
        one, heading = logs, title or text("gradients", lang)
        if not any(drawable(one.group_norms[group]) for group in GROUPS):
            return nothing_to_draw(lang)
        return both_scales(save_path, lambda path, scale: _draw_groups(one, heading, path, scale, lang))
    many, heading = dict(logs), title or text("gradients_compared", lang)
    shown = [g for g in GROUPS if any(drawable(found.group_norms[g]) for found in many.values())]
    if not shown:
        return nothing_to_draw(lang)
    return both_scales(save_path, lambda path, scale: _draw_compared(many, shown, heading, path, scale, lang))


def draw_gradients(gradients: GradientLog, folder: Path, name: str, lang: Lang = "en") -> None:
    """Draw all pictures of a run into its folder. One that fails is told of, and stops nothing."""
    guarded(plot_gradient_norms)(
        gradients, f"{text('gradients', lang)}: {name}", save_path=folder / "gradient_norms.png", lang=lang
    )
    if not gradients.layers:
        return
    for function in (plot_layer_heatmap, plot_layer_comparison, plot_gradient_evolution):
        file = folder / f"{function.__name__.removeprefix('plot_')}.png"
        guarded(function)(gradients, save_path=file, lang=lang)


def _draw_groups(gradients: GradientLog, title: str, path: Path, scale: str, lang: Lang) -> None:
    with picture(path, size=(12, 6)) as (figure, [axes]):
        for group in GROUPS:
            if drawable(gradients.group_norms[group]):
                total = group == "total"
                label = text("total_norm" if total else group, lang)
                line = _curve(axes, gradients.steps, gradients.group_norms[group], GROUP_COLORS[group], label, scale)
                if total:
                    # Wide and below, since where one group alone is trained both are the same.
                    line.set(linewidth=5, zorder=1.5, markersize=7)
        mark_phases(axes, gradients, lang, named=True)
        _step_axes(axes, scale, lang)
        add_title(figure, title)
        figure.legend(
            *axes.get_legend_handles_labels(),
            title=text("smoothed", lang, window=SMOOTH),
            loc="outside lower center",
            ncols=len(GROUPS),
            frameon=False,
        )


def _draw_compared(
    logs: Mapping[str, GradientLog], groups: Sequence[str], title: str, path: Path, scale: str, lang: Lang
) -> None:
    columns = min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    looks = dict(zip(logs, _looks(len(logs)), strict=True))
    with picture(path, rows=rows, columns=columns, size=(5.5 * columns, 5 * rows)) as (figure, panels):
        handles: dict[str, Any] = {}
        for axes, group in zip(panels, groups, strict=False):
            axes.set_title(text("total_norm" if group == "total" else group, lang), fontweight="bold")
            for name, gradients in logs.items():
                if drawable(gradients.group_norms[group]):
                    color, dash = looks[name]
                    handles[name] = _curve(
                        axes, gradients.steps, gradients.group_norms[group], color, name, scale, dash
                    )
            _step_axes(axes, scale, lang)
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        add_title(figure, title)
        named = [name for name in logs if name in handles]
        longest = max(map(len, named))
        figure.legend(
            [handles[name] for name in named],
            named,
            title=text("smoothed", lang, window=SMOOTH),
            loc="outside lower center",
            # A letter is about a tenth of an inch wide, and the line before it some four.
            ncols=max(1, min(len(named), int(55 * columns / (longest + 5)))),
            frameon=False,
        )


def _looks(count: int) -> list[tuple[Any, Any]]:
    """A colour and a dash for each of some experiments, all different as far as the eye can tell."""
    from matplotlib import colormaps

    colors = [colormaps["tab10"](i) for i in range(10)]
    pairs = [(color, dash) for dash, color in product(_DASHES, colors)]
    return [pairs[i % len(pairs)] for i in range(count)]


def _curve(
    axes: Axes, steps: Sequence[int], norms: Sequence[float], color: Any, label: str, scale: str, dash: Any = "-"
) -> Any:
    # What is not finite, or on a logarithmic scale not above 0, is a gap.
    drawn = [v if math.isfinite(v) and (scale == "linear" or v > 0) else math.nan for v in norms]
    if len(drawn) > 1:
        axes.plot(steps, drawn, color=color, linewidth=0.8, alpha=0.5, linestyle=dash)
    marker = "o" if len(drawn) <= _MARKED_POINTS else ""
    (line,) = axes.plot(
        steps, smooth(drawn), color=color, linewidth=2, linestyle=dash, marker=marker, markersize=4, label=label
    )
    return line


def _step_axes(axes: Axes, scale: str, lang: Lang) -> None:
    from matplotlib.ticker import MaxNLocator

    set_scale(axes, scale)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set(xlabel=text("step", lang), ylabel=scaled_label(text("norm", lang), scale, lang))

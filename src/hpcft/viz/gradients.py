"""Pictures of gradient norms: by group of modules, by layer, over the steps. Each is drawn twice, the second time on a
logarithmic scale and with `_log` behind its name."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.runs.gradients import GROUPS, LAYERED, GradientLog
from hpcft.viz.style import GROUP_COLORS, guarded, picture
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_SMOOTH = 5  # points in a moving average
_SHOWN_STEPS = 7  # curves of the evolution
_MARKED_POINTS = 20
_TICKED_LAYERS = 40
# The line of an experiment has one of these for each turn through the colours.
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
_PHASE_COLOR = "#37474F"


def plot_gradient_norms(
    logs: GradientLog | Mapping[str, GradientLog],
    title: str | None = None,
    *,
    save_path: Path | str = "gradient_norms.png",
    lang: Lang = "en",
) -> list[Path]:
    """Draw the norms over the steps, each as it is and smoothed over 5 points.

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
        if not any(_drawable(one.group_norms[group]) for group in GROUPS):
            return _nothing(lang)
        return _both(save_path, lambda path, scale: _draw_groups(one, heading, path, scale, lang))
    many, heading = dict(logs), title or text("gradients_compared", lang)
    shown = [g for g in GROUPS if any(_drawable(found.group_norms[g]) for found in many.values())]
    if not shown:
        return _nothing(lang)
    return _both(save_path, lambda path, scale: _draw_compared(many, shown, heading, path, scale, lang))


def plot_layer_heatmap(
    gradients: GradientLog,
    title: str | None = None,
    *,
    save_path: Path | str = "layer_heatmap.png",
    lang: Lang = "en",
) -> list[Path]:
    """Draw every layer's norm at every step as a colour: attention, the MLP, and the sum of both norms.

    The arguments and the result are those of `plot_gradient_norms`, for one log.
    """
    return _of_layers(gradients, title or text("layer_heatmap", lang), save_path, _draw_heatmap, lang)


def plot_layer_comparison(
    gradients: GradientLog,
    title: str | None = None,
    *,
    save_path: Path | str = "layer_comparison.png",
    lang: Lang = "en",
) -> list[Path]:
    """Draw every layer's mean norm over the steps as bars: attention and MLP stacked, and side by side.

    The arguments and the result are those of `plot_gradient_norms`, for one log.
    """
    heading = title or text("layer_comparison", lang, count=len(gradients.steps))
    return _of_layers(gradients, heading, save_path, _draw_bars, lang)


def plot_gradient_evolution(
    gradients: GradientLog,
    title: str | None = None,
    *,
    save_path: Path | str = "gradient_evolution.png",
    lang: Lang = "en",
) -> list[Path]:
    """Draw the norm across the layers at 7 steps from the first to the last, early ones red, late ones violet.

    The arguments and the result are those of `plot_gradient_norms`, for one log.
    """
    return _of_layers(gradients, title or text("evolution", lang), save_path, _draw_evolution, lang)


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


def evenly_spaced(count: int, most: int) -> list[int]:
    """Places in a sequence of `count`: at most `most` of them, evenly spaced, the first and the last among them.

    >>> evenly_spaced(100, 7), evenly_spaced(3, 7)
    ([0, 16, 33, 50, 66, 82, 99], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def smooth(values: Sequence[float], window: int = _SMOOTH) -> list[float]:
    """A moving average over the point and those before it; the first `window - 1` points are as they were.

    >>> smooth([1.0, 2.0, 3.0, 4.0, 10.0, 6.0])
    [1.0, 2.0, 3.0, 4.0, 4.0, 5.0]
    """
    return [
        v if place < window - 1 else math.fsum(values[place - window + 1 : place + 1]) / window
        for place, v in enumerate(values)
    ]


def _both(save_path: Path | str, draw: Callable[[Path, str], None]) -> list[Path]:
    path = Path(save_path)
    paths = [path, path.with_name(f"{path.stem}_log{path.suffix}")]
    for file, scale in zip(paths, ("linear", "log"), strict=True):
        draw(file, scale)
    return paths


_Draw = Callable[[GradientLog, str, Path, str, Lang], None]


def _of_layers(gradients: GradientLog, title: str, save_path: Path | str, draw: _Draw, lang: Lang) -> list[Path]:
    if not gradients.layers or not any(_drawable(row) for row in gradients.combined()):
        return _nothing(lang)
    return _both(save_path, lambda path, scale: draw(gradients, title, path, scale, lang))


def _nothing(lang: Lang) -> list[Path]:
    log.warning("%s", text("nothing", lang))
    return []


def _drawable(values: Sequence[float]) -> bool:
    return any(math.isfinite(value) and value > 0 for value in values)


def _heading(figure: Figure, title: str) -> None:
    figure.suptitle(title, fontsize=14, fontweight="bold")


def _scaled(name: str, scale: str, lang: Lang) -> str:
    return text("logarithmic", lang, name=name) if scale == "log" else name


def _draw_groups(gradients: GradientLog, title: str, path: Path, scale: str, lang: Lang) -> None:
    with picture(path, size=(12, 6)) as (figure, [axes]):
        for group in GROUPS:
            if _drawable(gradients.group_norms[group]):
                label = text("total_norm" if group == "total" else group, lang)
                _curve(axes, gradients.steps, gradients.group_norms[group], GROUP_COLORS[group], label, scale)
        _phases(axes, gradients, lang, named=True)
        _step_axes(axes, scale, lang)
        _heading(figure, title)
        figure.legend(
            *axes.get_legend_handles_labels(),
            title=text("smoothed", lang, window=_SMOOTH),
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
                if _drawable(gradients.group_norms[group]):
                    color, dash = looks[name]
                    line = _curve(axes, gradients.steps, gradients.group_norms[group], color, name, scale, dash)
                    handles.setdefault(name, line)
            _step_axes(axes, scale, lang)
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        _heading(figure, title)
        longest = max(map(len, handles))
        figure.legend(
            handles.values(),
            handles.keys(),
            title=text("smoothed", lang, window=_SMOOTH),
            loc="outside lower center",
            # A letter is about a tenth of an inch wide, and the line before it some four.
            ncols=max(1, min(len(handles), int(55 * columns / (longest + 5)))),
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
        axes.plot(steps, drawn, color=color, linewidth=0.8, alpha=0.35, linestyle=dash)
    marker = "o" if len(drawn) <= _MARKED_POINTS else ""
    (line,) = axes.plot(
        steps, smooth(drawn), color=color, linewidth=2, linestyle=dash, marker=marker, markersize=4, label=label
    )
    return line


def _step_axes(axes: Axes, scale: str, lang: Lang) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale(scale)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set(xlabel=text("step", lang), ylabel=_scaled(text("norm", lang), scale, lang))
    if scale == "linear":
        axes.set_ylim(bottom=0)


def _phases(axes: Axes, gradients: GradientLog, lang: Lang, *, named: bool) -> None:
    """A line where a phase begins, with its name above the panel if wanted; of the first phase the name alone."""
    for phase in gradients.phases:
        begin = max(phase.step, gradients.steps[0])
        if phase.step > gradients.steps[0]:
            axes.axvline(phase.step, color=_PHASE_COLOR, linestyle="--", linewidth=1.2, zorder=3)
        if named:
            axes.annotate(
                text("phase", lang, number=phase.number, trains=phase.trains),
                (begin, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(3, 4),
                textcoords="offset points",
                fontsize=9,
                color=_PHASE_COLOR,
            )


def _draw_heatmap(gradients: GradientLog, title: str, path: Path, scale: str, lang: Lang) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    with picture(path, columns=3, size=(17, min(12.0, 4 + 0.12 * gradients.layers))) as (figure, panels):
        for axes, (name, rows) in zip(panels, _layered(gradients, lang).items(), strict=True):
            values = _finite(rows, scale)
            axes.set_title(name, fontweight="bold")
            axes.grid(visible=False)
            if values.count() and values.max() > 0:
                top = float(values.max())
                norm = LogNorm(float(values.min()), top) if scale == "log" else Normalize(0, top)
                numbers = np.arange(gradients.layers)
                image = axes.pcolormesh(
                    gradients.steps, numbers, values.T, cmap=_heat(), norm=norm, shading="nearest", rasterized=True
                )
                figure.colorbar(image, ax=axes, label=_scaled(text("norm", lang), scale, lang))
                _phases(axes, gradients, lang, named=False)
            else:
                _say_not_trained(axes, lang)
                axes.set(
                    xlim=(gradients.steps[0] - 0.5, gradients.steps[-1] + 0.5), ylim=(-0.5, gradients.layers - 0.5)
                )
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            _name_layers(axes.yaxis, gradients.layers)
            axes.set(xlabel=text("step", lang), ylabel=text("layer", lang))
        _heading(figure, title)


def _layered(gradients: GradientLog, lang: Lang) -> dict[str, list[list[float]]]:
    """The three things that are drawn by layer, by their titles."""
    named = {text(group, lang): gradients.layer_norms[group] for group in LAYERED}
    return {**named, text("combined", lang): gradients.combined()}


def _finite(rows: Sequence[Sequence[float]], scale: str) -> np.ma.MaskedArray[Any, Any]:
    """The norms, steps by layers; masked what is not finite and, on a logarithmic scale, not above 0."""
    import numpy as np

    values = np.ma.masked_invalid(np.array(rows, dtype=float))
    return np.ma.masked_less_equal(values, 0) if scale == "log" else values


def _heat() -> Colormap:
    from matplotlib import colormaps

    colors = colormaps["YlOrRd"].copy()
    colors.set_bad("#B0BEC5")
    return colors


def _say_not_trained(axes: Axes, lang: Lang) -> None:
    axes.text(0.5, 0.5, text("not_trained", lang), transform=axes.transAxes, ha="center", va="center", style="italic")


def _name_layers(axis: Any, layers: int) -> None:
    """`L0`, `L1`, …: each layer where there is room, else every so many."""
    every = max(1, math.ceil(layers / _TICKED_LAYERS))
    numbers = range(0, layers, every)
    axis.set_ticks(list(numbers), [f"L{number}" for number in numbers])
    axis.set_tick_params(labelsize=8 if layers > 12 else 10)


def _draw_bars(gradients: GradientLog, title: str, path: Path, scale: str, lang: Lang) -> None:
    means = {group: _mean_of_layers(gradients.layer_norms[group]) for group in LAYERED}
    numbers = list(range(gradients.layers))
    trained = [group for group in LAYERED if _drawable(means[group])]
    width = 0.8 / max(1, len(trained))
    with picture(path, columns=2, size=(max(12.0, 8 + 0.4 * gradients.layers), 5.5)) as (figure, [stacked, beside]):
        below = [0.0] * gradients.layers
        for place, group in enumerate(trained):
            look = {"color": GROUP_COLORS[group], "alpha": 0.9, "label": text(group, lang)}
            stacked.bar(numbers, means[group], bottom=below, width=0.8, **look)
            below = [low + height for low, height in zip(below, means[group], strict=True)]
            shift = (place - (len(trained) - 1) / 2) * width
            beside.bar([number + shift for number in numbers], means[group], width=width, **look)
        for axes, name in ((stacked, "stacked"), (beside, "side_by_side")):
            axes.set_yscale(scale)
            axes.grid(visible=False, axis="x")
            _name_layers(axes.xaxis, gradients.layers)
            if gradients.layers > 12:
                axes.tick_params(axis="x", rotation=60)
            axes.set_title(text(name, lang), fontweight="bold")
            axes.set(xlabel=text("layer", lang), ylabel=_scaled(text("mean_norm", lang), scale, lang))
        _heading(figure, title)
        figure.legend(*beside.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)


def _mean_of_layers(rows: Sequence[Sequence[float]]) -> list[float]:
    """Each layer's mean over the steps at which it is finite; 0 where it never is."""
    found = []
    for norms in zip(*rows, strict=True):
        finite = [v for v in norms if math.isfinite(v)]
        found.append(math.fsum(finite) / len(finite) if finite else 0.0)
    return found


def _draw_evolution(gradients: GradientLog, title: str, path: Path, scale: str, lang: Lang) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    first, last = gradients.steps[0], gradients.steps[-1]
    colors = ScalarMappable(Normalize(first, max(last, first + 1)), colormaps["rainbow_r"])
    places = evenly_spaced(len(gradients.steps), _SHOWN_STEPS)
    numbers = list(range(gradients.layers))
    with picture(path, columns=3, size=(17, 5.5)) as (figure, panels):
        for axes, (name, rows) in zip(panels, _layered(gradients, lang).items(), strict=True):
            axes.set_title(name, fontweight="bold")
            for place in places:
                values = _finite([rows[place]], scale)[0].filled(math.nan)
                step = gradients.steps[place]
                axes.plot(numbers, values, "o-", color=colors.to_rgba(step), ms=4, linewidth=1.6, label=str(step))
            if not any(_drawable(rows[place]) for place in places):
                _say_not_trained(axes, lang)
            axes.set_yscale(scale)
            axes.set_xlim(-0.5, gradients.layers - 0.5)
            _name_layers(axes.xaxis, gradients.layers)
            if gradients.layers > 12:
                axes.tick_params(axis="x", rotation=60)
            axes.set(xlabel=text("layer", lang), ylabel=_scaled(text("norm", lang), scale, lang))
        bar = figure.colorbar(colors, ax=panels, label=text("step", lang))
        bar.set_ticks([gradients.steps[place] for place in places])
        _heading(figure, title)

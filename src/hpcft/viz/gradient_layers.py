"""Pictures of the layers' gradient norms: as colours over the steps, as bars, and as curves at some steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.runs.gradients import LAYERED, GradientLog
from hpcft.viz.gradient_axes import (
    add_title,
    both_scales,
    drawable,
    evenly_spaced,
    mark_phases,
    nothing_to_draw,
    plain_ticks,
    scaled_label,
    set_scale,
)
from hpcft.viz.style import GROUP_COLORS, picture
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_SHOWN_STEPS = 7  # curves of the evolution
_NAMED_LAYERS = 24  # one above the other; beside each other half as many
_NO_FIGURE = "#B0BEC5"


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


_Draw = Callable[[GradientLog, str, Path, str, Lang], None]


def _of_layers(gradients: GradientLog, title: str, save_path: Path | str, draw: _Draw, lang: Lang) -> list[Path]:
    if not gradients.layers or not any(drawable(row) for row in gradients.combined()):
        return nothing_to_draw(lang)
    return both_scales(save_path, lambda path, scale: draw(gradients, title, path, scale, lang))


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
                bar = figure.colorbar(image, ax=axes, label=scaled_label(text("norm", lang), scale, lang))
                if scale == "log":
                    plain_ticks(bar.ax.yaxis, norm.vmin, norm.vmax)
                mark_phases(axes, gradients, lang, named=False)
            else:
                _say_not_trained(axes, lang)
                axes.set(
                    xlim=(gradients.steps[0] - 0.5, gradients.steps[-1] + 0.5), ylim=(-0.5, gradients.layers - 0.5)
                )
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            _name_layers(axes.yaxis, gradients.layers, _NAMED_LAYERS)
            axes.set_xlabel(text("step", lang))
        panels[0].set_ylabel(text("layer", lang))
        for axes in panels[1:]:
            # The layers are those of the first panel.
            axes.tick_params(axis="y", labelleft=False)
        add_title(figure, title)


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

    return colormaps["YlOrRd"].with_extremes(bad=_NO_FIGURE)


def _say_not_trained(axes: Axes, lang: Lang) -> None:
    axes.text(0.5, 0.5, text("not_trained", lang), transform=axes.transAxes, ha="center", va="center", style="italic")


def _name_layers(axis: Any, layers: int, most: int) -> None:
    """`L0`, `L1`, …: each layer where there is room, else every so many."""
    every = max(1, math.ceil(layers / most))
    numbers = range(0, layers, every)
    axis.set_ticks(list(numbers), [f"L{number}" for number in numbers])
    axis.set_tick_params(labelsize=8 if layers > 12 else 10)


def _draw_bars(gradients: GradientLog, title: str, path: Path, scale: str, lang: Lang) -> None:
    means = {group: _mean_of_layers(gradients.layer_norms[group]) for group in LAYERED}
    numbers = list(range(gradients.layers))
    trained = [group for group in LAYERED if drawable(means[group])]
    width = 0.8 / max(1, len(trained))
    with picture(path, columns=2, size=(max(12.0, 8 + 0.4 * gradients.layers), 5.5)) as (figure, [stacked, beside]):
        below = [0.0] * gradients.layers
        for place, group in enumerate(trained):
            look: dict[str, Any] = {"color": GROUP_COLORS[group], "alpha": 0.9, "label": text(group, lang)}
            stacked.bar(numbers, means[group], bottom=below, width=0.8, **look)
            below = [low + height for low, height in zip(below, means[group], strict=True)]
            shift = (place - (len(trained) - 1) / 2) * width
            beside.bar([number + shift for number in numbers], means[group], width=width, **look)
        for axes, name in ((stacked, "stacked"), (beside, "side_by_side")):
            set_scale(axes, scale)
            axes.grid(visible=False, axis="x")
            _name_layers(axes.xaxis, gradients.layers, _NAMED_LAYERS // 2)
            axes.set_title(text(name, lang), fontweight="bold")
            axes.set(xlabel=text("layer", lang), ylabel=scaled_label(text("mean_norm", lang), scale, lang))
        add_title(figure, title)
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
    # Typed for arrays alone, and it takes a number too.
    colors: Any = ScalarMappable(Normalize(first, max(last, first + 1)), colormaps["rainbow_r"])
    places = evenly_spaced(len(gradients.steps), _SHOWN_STEPS)
    numbers = list(range(gradients.layers))
    with picture(path, columns=3, size=(17, 5.5)) as (figure, panels):
        for axes, (name, rows) in zip(panels, _layered(gradients, lang).items(), strict=True):
            axes.set_title(name, fontweight="bold")
            if any(drawable(rows[place]) for place in places):
                for place in places:
                    values = _finite([rows[place]], scale)[0].filled(math.nan)
                    step = gradients.steps[place]
                    axes.plot(numbers, values, "o-", color=colors.to_rgba(step), ms=4, linewidth=1.6, label=str(step))
                set_scale(axes, scale)
            else:
                _say_not_trained(axes, lang)
                axes.set_yticks([])
            axes.set_xlim(-0.5, gradients.layers - 0.5)
            _name_layers(axes.xaxis, gradients.layers, _NAMED_LAYERS // 2)
            axes.set(xlabel=text("layer", lang), ylabel=scaled_label(text("norm", lang), scale, lang))
        bar = figure.colorbar(colors, ax=panels, label=text("step", lang))
        bar.set_ticks([gradients.steps[place] for place in places])
        add_title(figure, title)

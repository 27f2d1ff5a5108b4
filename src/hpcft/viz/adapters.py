"""Pictures of adapters: several tasks on one base, and where in a model they stand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.viz.style import FALLBACK_COLOR, draw_bars, measured, method_color, picture
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_PART_COLORS = ("#4ECDC4", "#2A7F9E", "#F7DC6F", "#BB8FCE", "#FFA07A", "#98D8C8")
_LAYER_INCHES = 0.28
_NUMBERED_LAYERS = 40


@dataclass(frozen=True)
class AdapterPart:
    """What an adapter has behind one module.

    Attributes:
        layer: the layer's number, from 0.
        module: its name inside the layer, such as `mlp.down_proj`.
        parameters: numbers that were trained.
    """

    layer: int
    module: str
    parameters: int


def plot_task_comparison(
    tasks: Sequence[Mapping[str, Any]], save_path: Path | str, lang: Lang = "en", *, method: str = "Adapter"
) -> Path | None:
    """Draw each task's score of the base model and of its own adapter, a panel a task on one scale.

    Args:
        tasks: rows with `task`, `metric` (the score's name), `base` and `tuned`. A score that is absent is said to be
            missing in its place.
        save_path: PNG to write.
        lang: of the texts.
        method: what the adapters are.

    Returns:
        The path, or None when there is nothing to draw.
    """
    scores = [[measured(row.get("base")), measured(row.get("tuned"))] for row in tasks]
    found = [score for pair in scores for score in pair if score is not None]
    if not found:
        log.warning("%s", text("nothing", lang))
        return None
    names = [text("base_model", lang), method]
    colors = [FALLBACK_COLOR, method_color(method)]
    with picture(Path(save_path), columns=len(tasks), size=(max(8.0, 4.5 * len(tasks)), 5.5)) as (figure, panels):
        for axes, row, pair in zip(panels, tasks, scores, strict=True):
            draw_bars(axes, names, pair, colors, "{value:.3f}", lang, fontsize=11)
            axes.set_title(str(row.get("task", "?")), fontweight="bold")
            axes.set_ylabel(str(row.get("metric", "")))
            axes.set_ylim(min(0.0, *found), 1.15 * max(*found, 1e-9))
        figure.suptitle(text("tasks", lang, method=method), fontsize=14, fontweight="bold")
    return Path(save_path)


def plot_adapter_structure(
    parts: Sequence[AdapterPart], layers: int, save_path: Path | str, lang: Lang = "en", *, method: str = "Adapter"
) -> Path | None:
    """Draw which layers carry an adapter and how large it is, and beside it what AdapterDrop (Rücklé et al. 2021)
    leaves of it when the lowest layers go without.

    Args:
        parts: of all layers.
        layers: that the model has; one without parts is said to have no adapter.
        save_path: PNG to write.
        lang: of the texts.
        method: what the adapter is.

    Returns:
        The path, or None when there is no adapter in any layer.
    """
    if not parts:
        log.warning("%s", text("nothing", lang))
        return None
    height = min(30.0, max(5.0, 1.6 + _LAYER_INCHES * layers))
    with picture(Path(save_path), columns=2, size=(14, height)) as (figure, [each, left]):
        _draw_layers(each, parts, layers, lang)
        _draw_drop(left, parts, layers, method, lang)
        figure.suptitle(text("structure", lang, method=method), fontsize=14, fontweight="bold")
    return Path(save_path)


def _draw_layers(axes: Axes, parts: Sequence[AdapterPart], layers: int, lang: Lang) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    ends = [0] * layers
    for place, module in enumerate(dict.fromkeys(part.module for part in parts)):
        color, label = _PART_COLORS[place % len(_PART_COLORS)], module
        for part in (p for p in parts if p.module == module):
            axes.barh(part.layer, part.parameters, left=ends[part.layer], color=color, label=label, edgecolor="white")
            ends[part.layer] += part.parameters
            # In the legend once.
            label = "_"
    for layer, end in enumerate(ends):
        said = f"{end:,}" if end else text("no_adapter", lang)
        if layers <= _NUMBERED_LAYERS or not end:
            note = axes.annotate(said, (end, layer), textcoords="offset points", xytext=(4, 0), va="center", fontsize=9)
            if not end:
                note.set(style="italic", color="#555555")
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set(ylabel=text("layer", lang), xlabel=text("adapter_params", lang), ylim=(-0.6, layers - 0.4))
    axes.set_xlim(0, 1.2 * max(ends))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)


def _draw_drop(axes: Axes, parts: Sequence[AdapterPart], layers: int, method: str, lang: Lang) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    kept = [sum(part.parameters for part in parts if part.layer >= lowest) for lowest in range(layers + 1)]
    axes.bar(range(layers + 1), kept, color=method_color(method), alpha=0.8)
    if layers <= _NUMBERED_LAYERS // 4:
        for lowest, number in enumerate(kept):
            axes.annotate(
                f"{number:,}",
                (lowest, number),
                textcoords="offset points",
                xytext=(0, 3),
                ha="center",
                fontsize=9,
                fontweight="bold",
            )
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set(xlabel=text("dropped_layers", lang), ylabel=text("adapter_params", lang))
    axes.set_title(text("adapter_drop", lang), fontweight="bold")
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)

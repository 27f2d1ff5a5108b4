"""The picture of an inference benchmark."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from hpcft.viz.style import draw_bars, measured, method_color, picture
from hpcft.viz.texts import Lang, metric_label, text

log = logging.getLogger(__name__)

_PANELS = {"latency_ms": "{value:.1f}", "throughput": "{value:.1f}", "memory_gb": "{value:.2f}"}


def plot_inference_benchmark(
    results: Mapping[str, Mapping[str, float]], save_path: Path | str, lang: Lang = "en", *, verbose: bool = False
) -> Path | None:
    """Draw latency, throughput and memory of models side by side.

    Args:
        results: model, such as `Base Model`, → `latency_ms`, `throughput` in tokens/s and `memory_gb`. A figure that
            is absent or not finite is said to be missing in its place, and has no bar.
        save_path: PNG to write.
        lang: of the texts.
        verbose: print that the picture is there.

    Returns:
        The path, or None when no figure was measured.
    """
    figures = {key: [measured(result.get(key)) for result in results.values()] for key in _PANELS}
    if all(value is None for values in figures.values() for value in values):
        log.warning("%s", text("nothing", lang))
        return None
    names = list(results)
    colors = [method_color(name) for name in names]
    with picture(Path(save_path), columns=len(_PANELS), size=(15, 5)) as (figure, panels):
        for axes, (key, form) in zip(panels, _PANELS.items(), strict=True):
            draw_bars(axes, names, figures[key], colors, form, lang)
            axes.set_title(metric_label(key, lang), fontweight="bold")
        figure.suptitle(text("inference", lang), fontsize=14, fontweight="bold")
    if verbose:
        print(text("inference_drawn", lang))
    return Path(save_path)

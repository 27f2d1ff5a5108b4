"""Pictures of models: their parameters, their sizes, and methods compared."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcft.errors import HpcftError
from hpcft.viz.gradient_axes import plain_ticks
from hpcft.viz.style import FALLBACK_COLOR, PEFT_COLORS, draw_bars, draw_labels, measured, method_color, picture
from hpcft.viz.texts import Lang, metric_label, text

log = logging.getLogger(__name__)

SIZE_COLORS = {"adapter": "#2ecc71", "merged": "#3498db", "base": "#95a5a6"}
_LEAST_GB = 0.1  # smaller models would all be 0.00 GB
_LEAST_MILLIONS = 0.01  # fewer parameters would all be 0.00M
_PAGE = 16.0  # inches across that a picture's panels may take


def plot_parameter_distribution(
    stats: Mapping[str, float], save_path: Path | str, lang: Lang = "en", *, verbose: bool = False
) -> Path:
    """Draw the trainable and the frozen parameters, as shares and as numbers.

    Args:
        stats: `total_params`, `trainable_params` and `frozen_params`, as `print_trainable_parameters` returns them.
        save_path: PNG to write.
        lang: of the texts.
        verbose: print that the picture is there.

    Raises:
        HpcftError: a figure is missing, or there are no parameters.
    """
    keys = ("total_params", "trainable_params", "frozen_params")
    lacking = [key for key in keys if measured(stats.get(key)) is None]
    if lacking:
        raise HpcftError(
            f"{', '.join(lacking)} missing", where="stats", hint="give what print_trainable_parameters returns"
        )
    total, trainable, frozen = (float(stats[key]) for key in keys)
    if total <= 0:
        raise HpcftError("the model has no parameters", where="stats")
    parts = {text("trainable", lang): trainable, text("frozen", lang): frozen}
    colors = [PEFT_COLORS["train"], FALLBACK_COLOR]
    with picture(Path(save_path), columns=2, size=(14, 6)) as (figure, [pie, bars]):
        wedges, *_ = pie.pie(list(parts.values()), colors=colors, startangle=90)
        # The usual slice would be too thin to see.
        wedges[0].set(edgecolor=colors[0], linewidth=1, zorder=2)
        # In a legend, since the usual slice is too thin to write at.
        shares = [f"{name}: {100 * number / total:.3f}%" for name, number in parts.items()]
        pie.legend(wedges, shares, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, frameon=False)
        draw_bars(
            bars,
            [text("total", lang), *parts],
            [number / 1e6 for number in (total, trainable, frozen)],
            ["#34495e", *colors],
            _parameters,
            lang,
        )
        bars.set_ylabel(text("millions", lang))
        figure.suptitle(text("distribution", lang), fontsize=14, fontweight="bold")
        footer = text("distribution_footer", lang, total=total / 1e6, percent=100 * trainable / total)
        figure.supxlabel(footer, fontsize=11)
    if verbose:
        print(text("distribution_drawn", lang))
    return Path(save_path)


def plot_peft_comparison(
    results: Sequence[Mapping[str, Any]],
    metrics: Sequence[str] | None = None,
    save_path: Path | str = "peft_comparison.png",
    lang: Lang = "en",
    *,
    score_name: str = "",
) -> Path | None:
    """Draw methods side by side, a panel for each metric.

    Args:
        results: rows with `method` and a number for each metric, such as `trainable_params_%`, `performance` and
            `training_time` in seconds. A number that is absent is said to be missing in its place.
        metrics: columns to draw, in order; by default every column with a number.
        save_path: PNG to write.
        lang: of the texts.
        score_name: of which score `performance` is, such as `ROUGE-L F1`; stands at its axis.

    Returns:
        The path, or None when there is nothing to draw.
    """
    units = {"training_time": text("seconds", lang), "performance": score_name}
    names = [_method(row) for row in results]
    columns = dict.fromkeys(key for row in results for key in row if key != "method")
    figures = {key: [measured(row.get(key)) for row in results] for key in metrics or columns}
    if metrics is None:
        figures = {key: values for key, values in figures.items() if any(v is not None for v in values)}
    if all(value is None for values in figures.values() for value in values):
        log.warning("%s", text("nothing", lang))
        return None
    width = max(5.0, 1.1 * len(names))
    across = max(1, min(len(figures), int(_PAGE // width)))
    rows = math.ceil(len(figures) / across)
    with picture(Path(save_path), rows=rows, columns=across, size=(width * across, 5.0 * rows)) as (figure, panels):
        for axes, (key, values) in zip(panels, figures.items(), strict=False):
            draw_bars(axes, names, values, [method_color(name) for name in names], "{value:.4g}", lang)
            axes.set_title(metric_label(key, lang), fontweight="bold")
            axes.set_ylabel(units.get(key, ""))
        for axes in panels[len(figures) :]:
            axes.set_visible(False)
        figure.suptitle(text("comparison", lang), fontsize=14, fontweight="bold")
    return Path(save_path)


def plot_parameter_efficiency(
    results: Sequence[Mapping[str, Any]], save_path: Path | str, lang: Lang = "en", *, score_name: str = ""
) -> Path | None:
    """Draw what methods reach against the share of parameters that they train, on a logarithmic axis.

    Args:
        results: rows with `method`, `params_%` or `trainable_params_%` above 0, and `accuracy` or `performance`. A
            row that lacks one is left out, and named in the log.
        save_path: PNG to write.
        lang: of the texts.
        score_name: of which score `performance` is, such as `ROUGE-L F1`.

    Returns:
        The path, or None when there is nothing to draw.
    """
    from matplotlib.ticker import LogLocator

    score = "accuracy" if any(measured(row.get("accuracy")) is not None for row in results) else "performance"
    drawn = []
    for row in results:
        share, reached = measured(row.get("params_%", row.get("trainable_params_%"))), measured(row.get(score))
        if share is None or share <= 0 or reached is None:
            log.warning("%s is left out of %s: it lacks a figure", _method(row), Path(save_path).name)
            continue
        drawn.append((_method(row), share, reached))
    if not drawn:
        log.warning("%s", text("nothing", lang))
        return None
    with picture(Path(save_path)) as (figure, [axes]):
        axes.set_xscale("log")
        for name, share, reached in drawn:
            axes.scatter(share, reached, s=110, color=method_color(name), edgecolor="black", zorder=3)
        label = metric_label(score, lang)
        named = score == "performance" and score_name
        axes.set(xlabel=text("params_%", lang), ylabel=f"{label} ({score_name})" if named else label)
        axes.set_title(text("efficiency", lang), fontsize=14, fontweight="bold")
        axes.margins(x=0.15, y=0.2)
        plain_ticks(axes.xaxis, *axes.get_xlim())
        if max(s for _, s, _ in drawn) < 10 * min(s for _, s, _ in drawn):
            # Each tick, since those would be the only ones.
            axes.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
        draw_labels(figure, axes, drawn)
    return Path(save_path)


def plot_model_sizes(
    sizes_gb: Mapping[str, float],
    save_path: Path | str,
    lang: Lang = "en",
    *,
    method: str = "LoRA",
    verbose: bool = False,
) -> Path | None:
    """Draw the sizes of an adapter, the merged model and its base, in MB where all are smaller than 0.1 GB.

    Args:
        sizes_gb: `adapter`, `merged` and `base`, in GB of 1024³ bytes, as `get_model_size` measures them. One that
            is absent is said to be missing in its place.
        save_path: PNG to write, usually `model_size_comparison.png` beside the merged model.
        lang: of the texts.
        method: what the adapter is.
        verbose: print the sizes.

    Returns:
        The path, or None when no size was measured.
    """
    sizes = {part: measured(sizes_gb.get(part)) for part in SIZE_COLORS}
    if all(size is None for size in sizes.values()):
        log.warning("%s", text("nothing", lang))
        return None
    unit = "GB" if max(size for size in sizes.values() if size is not None) >= _LEAST_GB else "MB"
    if unit == "MB":
        sizes = {part: None if size is None else 1024 * size for part, size in sizes.items()}
    adapter, merged, base = sizes.values()
    with picture(Path(save_path)) as (_, [axes]):
        labels = [text(part, lang, method=method) for part in sizes]
        draw_bars(
            axes, labels, list(sizes.values()), list(SIZE_COLORS.values()), f"{{value:.2f}}{unit}", lang, fontsize=11
        )
        axes.set_ylabel(text("size", lang, unit=unit), fontsize=12, fontweight="bold")
        axes.set_title(text("sizes", lang, method=method), fontsize=14, fontweight="bold")
        if adapter is not None and base:
            caption = text("sizes_caption", lang, method=method, percent=100 * adapter / base)
            axes.text(0.5, -0.15, caption, transform=axes.transAxes, ha="center", fontsize=10, style="italic")
    if verbose:
        if adapter is not None:
            print(text("adapter_size", lang, method=method, size=adapter, unit=unit))
        if merged is not None:
            print(text("merged_size", lang, size=merged, unit=unit))
        if adapter is not None and merged:
            print(text("size_efficiency", lang, percent=100 * adapter / merged))
    return Path(save_path)


def _parameters(millions: float) -> str:
    return f"{millions:,.2f}M" if millions >= _LEAST_MILLIONS or not millions else f"{1000 * millions:,.1f}K"


def _method(row: Mapping[str, Any]) -> str:
    return str(row.get("method", "?"))

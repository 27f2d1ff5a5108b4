"""The one plotting module. Pictures are drawn without a screen, saved at 300 dpi and closed; one that fails never
stops training."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Points = Sequence[tuple[float, float]]

TRAIN_COLOR, EVAL_COLOR = "#2196F3", "#FF9800"
_CJK_FONTS = (
    "Noto Sans CJK TC",
    "Noto Sans CJK SC",
    "Microsoft JhengHei",
    "Arial Unicode MS",
    "WenQuanYi Zen Hei",
)
_ANNOTATED_POINTS = 20


def guarded(function: Callable[P, T]) -> Callable[P, T | None]:
    """Wrap a plotting function so that its failure is told and nothing more."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            # Anything at all: a picture is never worth a training run.
            log.warning("⚠️  visualisation failed: %s", error)
            return None

    return call


@functools.cache
def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    known = {font.name for font in font_manager.fontManager.ttflist}
    found = next((name for name in _CJK_FONTS if name in known), None)
    if found is None:
        log.debug("no font with Chinese characters is installed; they would be drawn as boxes")
    families = [*([found] if found else []), "DejaVu Sans"]
    pyplot.rcParams.update(
        {"figure.dpi": 100, "savefig.dpi": 300, "font.family": families, "axes.grid": True, "grid.alpha": 0.3}
    )
    return pyplot


def save(figure: Figure, path: Path) -> Path:
    """Write a figure at 300 dpi and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=300, bbox_inches="tight")
    _pyplot().close(figure)
    return path


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def plot_training_loss(train: Points, evaluation: Points, path: Path) -> Path | None:
    """Draw the training loss blue and the evaluation loss orange, with each one's minimum marked.

    Args:
        train, evaluation: (step, loss); NaN and infinities are left out.
        path: PNG to write.

    Returns:
        The path, or None when there is nothing to draw.
    """
    curves = [("training loss", TRAIN_COLOR, _finite(train)), ("evaluation loss", EVAL_COLOR, _finite(evaluation))]
    curves = [c for c in curves if c[2]]
    if not curves:
        log.warning("no loss to draw in %s", path.name)
        return None
    figure, axes = _pyplot().subplots(figsize=(10, 6))
    for number, (label, color, points) in enumerate(curves):
        xs, ys = zip(*points, strict=True)
        style = "o-" if len(points) <= _ANNOTATED_POINTS else "-"
        axes.plot(xs, ys, style, color=color, label=label, linewidth=1.6, markersize=4)
        x, y = min(points, key=lambda p: p[1])
        axes.plot([x], [y], "o", color=color, markersize=8, markeredgecolor="black", zorder=5)
        axes.annotate(
            f"Min: {y:.4f}\nstep {x:g}",
            xy=(x, y),
            # The boxes hang at fixed places, so that two minima near each other do not cover one another.
            xytext=(0.70, 0.90 - 0.16 * number),
            textcoords="axes fraction",
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": color},
            arrowprops={"arrowstyle": "->", "color": color},
            fontsize=10,
        )
    axes.set(xlabel="Optimizer step", ylabel="Loss", title="Training loss")
    axes.legend(loc="upper center")
    axes.margins(y=0.15)
    return save(figure, path)


def plot_training_curves(
    history: Mapping[str, Sequence[Any]],
    metrics: Sequence[str] | None = None,
    title: str = "Training",
    save_path: Path | str | None = None,
) -> Path | None:
    """Draw every series of a history, one panel each.

    Args:
        history: name → values, or (step, value) pairs. Values without steps are numbered from 1.
        metrics: names to draw, in order; all by default.
        title: over the panels.
        save_path: PNG to write.

    Returns:
        The path, or None when there is nothing to draw or no path.
    """
    series = {name: _finite(_points(history[name])) for name in (metrics or history) if name in history}
    series = {name: points for name, points in series.items() if points}
    if not series:
        log.warning("⚠️ nothing to draw")
        return None
    columns = min(2, len(series))
    rows = math.ceil(len(series) / columns)
    size = (10, 6) if len(series) == 1 else (14, 4.5 * rows)
    figure, panels = _pyplot().subplots(rows, columns, figsize=size, squeeze=False)
    flat = [axes for row in panels for axes in row]
    for axes, (name, points) in zip(flat, series.items(), strict=False):
        stepped = isinstance(history[name][0], tuple | list)
        _panel(axes, name, points, "Optimizer step" if stepped else "Entry")
    for axes in flat[len(series) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    figure.tight_layout()
    if save_path is None:
        _pyplot().close(figure)
        return None
    return save(figure, Path(save_path))


def _points(values: Sequence[Any]) -> list[tuple[float, float]]:
    if values and isinstance(values[0], tuple | list):
        return [(float(x), float(y)) for x, y in values]
    return [(float(i), float(y)) for i, y in enumerate(values, 1)]


def _panel(axes: Axes, name: str, points: Points, x_label: str) -> None:
    xs, ys = zip(*points, strict=True)
    color = TRAIN_COLOR if name.startswith("train") else EVAL_COLOR
    axes.plot(xs, ys, "o-" if len(points) <= _ANNOTATED_POINTS else "-", color=color, linewidth=1.6, markersize=4)
    if len(points) <= _ANNOTATED_POINTS:
        for x, y in points:
            axes.annotate(f"{y:.3f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8)
    axes.set(xlabel=x_label, title=name)
    axes.margins(x=0.08, y=0.2)


def extract_history(log_history: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Series from the Trainer's `state.log_history`.

    Returns:
        `train_loss`, `eval_loss`, `eval_perplexity`, then every other key that starts with `eval_`, each with all of
        its values; series without values are left out.
    """
    history: dict[str, list[float]] = {"train_loss": [], "eval_loss": [], "eval_perplexity": []}
    for entry in log_history:
        if "loss" in entry and "eval_loss" not in entry:
            history["train_loss"].append(float(entry["loss"]))
        for key, value in entry.items():
            if key.startswith("eval_"):
                history.setdefault(key, []).append(float(value))
    return {name: values for name, values in history.items() if values}

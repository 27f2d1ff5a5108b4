"""Pictures of a training: its losses, and every series of its history."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.viz.style import EVAL_LOSS_COLOR, PEFT_COLORS, TRAIN_LOSS_COLOR, picture
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

Points = Sequence[tuple[float, float]]

_ANNOTATED_POINTS = 20


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _label(name: str, points: Points, lang: Lang) -> str:
    """The name, and how many of its points cannot be drawn: a curve that ends in NaN must not look like one that
    ends."""
    lost = len(points) - len(_finite(points))
    return text("not_finite", lang, name=name, count=lost) if lost else name


def _draw(axes: Axes, points: Points, color: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    xs, ys = zip(*points, strict=True)
    if all(x == int(x) for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.plot(xs, ys, "o-" if len(points) <= _ANNOTATED_POINTS else "-", color=color, label=label, linewidth=1.6, ms=4)


def plot_training_loss(train: Points, evaluation: Points, path: Path, lang: Lang = "en") -> Path | None:
    """Draw the training loss blue and the evaluation loss orange, with each one's minimum marked.

    Args:
        train, evaluation: (step, loss). NaN and infinities are left out, and their number is said in the legend.
        path: PNG to write.
        lang: of the texts.

    Returns:
        The path, or None when there is nothing to draw.
    """
    named = [
        (text("train_series", lang), TRAIN_LOSS_COLOR, train),
        (text("eval_series", lang), EVAL_LOSS_COLOR, evaluation),
    ]
    curves = [(_label(name, points, lang), color, _finite(points)) for name, color, points in named]
    curves = [curve for curve in curves if curve[2]]
    if not curves:
        log.warning("no loss to draw in %s", path.name)
        return None
    with picture(path) as (_, [axes]):
        for label, color, points in curves:
            _draw(axes, points, color, label)
        minima = [(min(points, key=lambda p: p[1]), color) for _, color, points in curves]
        lowest = min(range(len(minima)), key=lambda number: minima[number][0][1])
        left, right = axes.get_xlim()
        for number, ((x, y), color) in enumerate(minima):
            # The lower minimum has its box below it and the other one above: so the two never meet.
            below = number == lowest
            place = (x - left) / (right - left)
            axes.plot([x], [y], "o", color=color, markersize=8, markeredgecolor="black", zorder=5)
            axes.annotate(
                text("minimum", lang, value=y, step=x),
                xy=(x, y),
                xytext=(0, -18 if below else 18),
                textcoords="offset points",
                ha="left" if place < 0.1 else "right" if place > 0.9 else "center",
                va="top" if below else "bottom",
                bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": color, "alpha": 0.9},
                arrowprops={"arrowstyle": "-", "color": color},
                fontsize=10,
                zorder=6,
            )
        axes.set(xlabel=text("step", lang), ylabel=text("loss", lang))
        axes.set_title(text("training_loss", lang), loc="left", fontweight="bold")
        # Beside the title, since any place among the curves may be taken.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
        axes.margins(y=0.25)
    return path


def plot_training_curves(
    history: Mapping[str, Sequence[Any]],
    metrics: Sequence[str] | None = None,
    title: str | None = None,
    *,
    save_path: Path | str,
    x_label: str | None = None,
    lang: Lang = "en",
) -> Path | None:
    """Draw every series of a history, one panel each.

    Args:
        history: name → values, or (x, value) pairs. Values alone are numbered from 1. NaN and infinities are left
            out, and their number is said in the panel's title.
        metrics: names to draw, in order; all by default.
        title: over the panels; `Training` by default.
        save_path: PNG to write.
        x_label: what the x of pairs is; the optimizer's step by default.
        lang: of the texts.

    Returns:
        The path, or None when there is nothing to draw.
    """
    chosen = [name for name in (metrics or history) if name in history]
    series = {name: _points(history[name]) for name in chosen}
    series = {name: points for name, points in series.items() if _finite(points)}
    if not series:
        log.warning("%s", text("nothing", lang))
        return None
    columns = min(2, len(series))
    rows = math.ceil(len(series) / columns)
    size = (10.0, 6.0) if len(series) == 1 else (14.0, 4.5 * rows)
    with picture(Path(save_path), rows=rows, columns=columns, size=size) as (figure, panels):
        for axes, (name, points) in zip(panels, series.items(), strict=False):
            paired = x_label or text("step", lang)
            _panel(axes, name, points, paired if _paired(history[name]) else text("entry", lang), lang)
        for axes in panels[len(series) :]:
            axes.set_visible(False)
        figure.suptitle(title or text("training", lang), fontsize=14, fontweight="bold")
    return Path(save_path)


def _paired(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], tuple | list)


def _points(values: Sequence[Any]) -> list[tuple[float, float]]:
    if _paired(values):
        return [(float(x), float(y)) for x, y in values]
    return [(float(i), float(y)) for i, y in enumerate(values, 1)]


def _series_color(name: str) -> str:
    for kind in ("train", "test"):
        if name.startswith(kind):
            return PEFT_COLORS[kind]
    return PEFT_COLORS["eval"]


def _panel(axes: Axes, name: str, points: Points, x_label: str, lang: Lang) -> None:
    finite = _finite(points)
    _draw(axes, finite, _series_color(name), name)
    if len(finite) <= _ANNOTATED_POINTS:
        ys = [y for _, y in finite]
        for (x, y), before, after in zip(finite, ys[:1] + ys, ys[1:] + ys[-1:], strict=False):
            # Below a dip and above all else, where the line itself does not run.
            dip = y < (before + after) / 2
            axes.annotate(
                f"{y:.3f}",
                (x, y),
                textcoords="offset points",
                xytext=(0, -7 if dip else 7),
                ha="center",
                va="top" if dip else "baseline",
                fontsize=8,
            )
    axes.set(xlabel=x_label, title=_label(name, points, lang))
    axes.margins(x=0.08, y=0.2)


def history_by_step(log_history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Series from the Trainer's `state.log_history`, each value with its optimizer step.

    Returns:
        `train_loss`, `eval_loss`, `eval_perplexity`, then every other key that starts with `eval_`, each with all of
        its values as (step, value); an entry without a step has its place in the log instead. Series without values
        are left out, and so is what is no number.
    """
    history: dict[str, list[tuple[float, float]]] = {"train_loss": [], "eval_loss": [], "eval_perplexity": []}
    for place, entry in enumerate(log_history, 1):
        step = float(entry.get("step", place))
        if "loss" in entry and "eval_loss" not in entry:
            history["train_loss"].append((step, float(entry["loss"])))
        for key, value in entry.items():
            if key.startswith("eval_") and isinstance(value, Real):
                history.setdefault(key, []).append((step, float(value)))
    return {name: points for name, points in history.items() if points}


def extract_history(log_history: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The series of `history_by_step` as values alone, in the order they were logged."""
    return {name: [value for _, value in points] for name, points in history_by_step(log_history).items()}

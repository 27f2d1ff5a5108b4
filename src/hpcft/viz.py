"""The one plotting module. Pictures are drawn without a screen and saved at 300 dpi; one that fails never stops
training."""

from __future__ import annotations

import functools
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    "Noto Sans CJK KR",
    "Microsoft JhengHei",
    "PingFang TC",
    "Arial Unicode MS",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "NanumGothic",
)
_CJK_TEXT = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
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


@contextmanager
def picture(
    path: Path, *, rows: int = 1, columns: int = 1, size: tuple[float, float] = (10, 6)
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the common style, saved as PNG when the block ends, and not when it fails.

    It belongs to no plotting window: it needs no screen, there is nothing to close, and the settings of a notebook
    that calls this stay as they are.

    Args:
        path: PNG to write; its folder is made.
        rows, columns: of panels.
        size: width and height in inches.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    fonts = ["DejaVu Sans", *_cjk_fonts()]
    with style.context(["default", {"font.family": fonts, "axes.grid": True, "grid.alpha": 0.3}]):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        FigureCanvasAgg(figure)
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            if not _cjk_fonts() and _has_cjk(figure):
                _say_boxes()
                # Said once for all, where matplotlib says it of each character.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(path, format="png", dpi=300, bbox_inches="tight")


@functools.cache
def _cjk_fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in _CJK_FONTS if name in known)


def _has_cjk(figure: Figure) -> bool:
    from matplotlib.text import Text

    return any(isinstance(text, Text) and _CJK_TEXT.search(text.get_text()) for text in figure.findobj(Text))


@functools.cache
def _say_boxes() -> None:
    log.warning(
        "no font with Chinese, Japanese or Korean characters is installed: pictures show them as boxes "
        "(one that would do is Noto Sans CJK)"
    )


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _label(name: str, points: Points) -> str:
    """The name, and how many of its points cannot be drawn: a curve that ends in NaN must not look like one that
    ends."""
    lost = len(points) - len(_finite(points))
    return f"{name} ({lost} not finite)" if lost else name


def _draw(axes: Axes, points: Points, color: str, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    xs, ys = zip(*points, strict=True)
    if all(x == int(x) for x in xs):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.plot(xs, ys, "o-" if len(points) <= _ANNOTATED_POINTS else "-", color=color, label=label, linewidth=1.6, ms=4)


def plot_training_loss(train: Points, evaluation: Points, path: Path) -> Path | None:
    """Draw the training loss blue and the evaluation loss orange, with each one's minimum marked.

    Args:
        train, evaluation: (step, loss). NaN and infinities are left out, and their number is said in the legend.
        path: PNG to write.

    Returns:
        The path, or None when there is nothing to draw.
    """
    named = [("training loss", TRAIN_COLOR, train), ("evaluation loss", EVAL_COLOR, evaluation)]
    curves = [(_label(name, points), color, _finite(points)) for name, color, points in named]
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
                f"Min: {y:.4f}\nstep {x:g}",
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
        axes.set(xlabel="Optimizer step", ylabel="Loss")
        axes.set_title("Training loss", loc="left", fontweight="bold")
        # Beside the title, since any place among the curves may be taken.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
        axes.margins(y=0.25)
    return path


def plot_training_curves(
    history: Mapping[str, Sequence[Any]],
    metrics: Sequence[str] | None = None,
    title: str = "Training",
    *,
    save_path: Path | str,
    x_label: str = "Optimizer step",
) -> Path | None:
    """Draw every series of a history, one panel each.

    Args:
        history: name → values, or (x, value) pairs. Values alone are numbered from 1. NaN and infinities are left
            out, and their number is said in the panel's title.
        metrics: names to draw, in order; all by default.
        title: over the panels.
        save_path: PNG to write.
        x_label: what the x of pairs is.

    Returns:
        The path, or None when there is nothing to draw.
    """
    chosen = [name for name in (metrics or history) if name in history]
    series = {name: _points(history[name]) for name in chosen}
    series = {name: points for name, points in series.items() if _finite(points)}
    if not series:
        log.warning("⚠️ nothing to draw: the history holds no values")
        return None
    columns = min(2, len(series))
    rows = math.ceil(len(series) / columns)
    size = (10.0, 6.0) if len(series) == 1 else (14.0, 4.5 * rows)
    with picture(Path(save_path), rows=rows, columns=columns, size=size) as (figure, panels):
        for axes, (name, points) in zip(panels, series.items(), strict=False):
            _panel(axes, name, points, x_label if _paired(history[name]) else "Log entry")
        for axes in panels[len(series) :]:
            axes.set_visible(False)
        figure.suptitle(title, fontsize=14, fontweight="bold")
    return Path(save_path)


def _paired(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], tuple | list)


def _points(values: Sequence[Any]) -> list[tuple[float, float]]:
    if _paired(values):
        return [(float(x), float(y)) for x, y in values]
    return [(float(i), float(y)) for i, y in enumerate(values, 1)]


def _panel(axes: Axes, name: str, points: Points, x_label: str) -> None:
    finite = _finite(points)
    _draw(axes, finite, TRAIN_COLOR if name.startswith("train") else EVAL_COLOR, name)
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
    axes.set(xlabel=x_label, title=_label(name, points))
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

"""The common style: colours, fonts, how a picture is saved, and what happens when one fails."""

from __future__ import annotations

import functools
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PEFT_COLORS = {
    "LoRA": "#FF6B6B",
    "QLoRA": "#FF8E8E",
    "Adapter": "#4ECDC4",
    "IA3": "#45B7D1",
    "Prefix": "#FFA07A",
    "Prompt": "#98D8C8",
    "BitFit": "#F7DC6F",
    "P-Tuning": "#BB8FCE",
    "P-Tuning-v2": "#9B59B6",
    "train": "#3498db",
    "eval": "#e74c3c",
    "test": "#2ecc71",
}
FALLBACK_COLOR = "#95a5a6"
# Those of the picture of the losses alone.
TRAIN_LOSS_COLOR, EVAL_LOSS_COLOR = "#2196F3", "#FF9800"
# Those of the gradient norms, by group of modules.
GROUP_COLORS = {
    "embed": "#4CAF50",
    "attention": "#2196F3",
    "mlp": "#FF9800",
    "lm_head": "#9C27B0",
    "total": "#E53935",
}

_CJK_FONTS = (
    "Noto Sans CJK TC",
    "Noto Sans CJK SC",
    "Noto Sans CJK KR",
    # The first face of a collection of all four, which is the only one that some versions of matplotlib read.
    "Noto Sans CJK JP",
    "Microsoft JhengHei",
    "PingFang TC",
    "Arial Unicode MS",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "NanumGothic",
)
# What the names of their files hold, letters and digits alone.
_CJK_FILES = ("notosanscjk", "msjh", "pingfang", "arialunicode", "wqyzenhei", "wqymicrohei", "nanumgothic")
_CJK_TEXT = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
# Where a name stands from its point: offset in points, and which of its sides is there.
_BESIDE = (
    ((0, 8), "center", "bottom"),
    ((0, -8), "center", "top"),
    ((9, 0), "left", "center"),
    ((-9, 0), "right", "center"),
    ((0, 20), "center", "bottom"),
    ((0, -20), "center", "top"),
)
_LETTER_INCHES = 0.085  # of a label in 10 points, on average


def guarded(function: Callable[P, T], lang: Lang = "en") -> Callable[P, T | None]:
    """Wrap a plotting function so that its failure is told, in two lines, and nothing more."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            # Anything at all: a picture is never worth a training run.
            log.warning("%s", text("failed", lang, error=error))
            log.warning("%s", text("kept", lang))
            return None

    return call


@contextmanager
def picture(
    path: Path, *, rows: int = 1, columns: int = 1, size: tuple[float, float] = (10, 6), projection: str | None = None
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the common style, saved as PNG when the block ends, and not when it fails.

    It belongs to no plotting window: it needs no screen, there is nothing to close, and the settings of a notebook
    that calls this stay as they are.

    Args:
        path: PNG to write; its folder is made.
        rows, columns: of panels.
        size: width and height in inches.
        projection: of the panels, such as `3d`.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    common = {
        "font.family": ["DejaVu Sans", *_cjk_fonts()],
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.axisbelow": True,
        # A dollar sign in a method's or a run's name is no formula.
        "text.parse_math": False,
    }
    with style.context(["default", common]):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": projection})
        yield figure, list(panels.flat)
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            if not _cjk_fonts() and _has_cjk(figure):
                _say_boxes()
                # Said once for all, where matplotlib says it of each character.
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(path, format="png", dpi=300, bbox_inches="tight")


@functools.cache
def _cjk_fonts() -> tuple[str, ...]:
    found = _listed_cjk_fonts()
    if not found:
        # matplotlib keeps its list for good: it may be older than the font.
        _list_cjk_files()
        found = _listed_cjk_fonts()
    return found


def _listed_cjk_fonts() -> tuple[str, ...]:
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in _CJK_FONTS if name in known)


def _list_cjk_files() -> None:
    """Add those of the fonts that are on the disk to matplotlib's list, for this process."""
    from matplotlib import font_manager

    for file in font_manager.findSystemFonts():
        name = _letters(Path(file).stem)
        if any(part in name for part in _CJK_FILES):
            try:
                font_manager.fontManager.addfont(file)
            except Exception as error:
                # A damaged file raises whatever its reader does, and another font may do.
                log.debug("%s is no font to draw with: %s", file, error)


def _has_cjk(figure: Figure) -> bool:
    from matplotlib.text import Text

    return any(isinstance(text, Text) and _CJK_TEXT.search(text.get_text()) for text in figure.findobj(Text))


@functools.cache
def _say_boxes() -> None:
    log.warning(
        "no font with Chinese, Japanese or Korean characters is installed: pictures show them as boxes "
        "(one that would do is Noto Sans CJK)"
    )


def method_color(name: str) -> str:
    """The colour of the method that a name like `LoRA r=8`, `qlora` or `P-Tuning v2` begins with or holds."""
    plain = _letters(name)
    found = [
        (plain.index(_letters(method)), -len(method), color)
        for method, color in PEFT_COLORS.items()
        if method not in ("train", "eval", "test") and _letters(method) in plain
    ]
    return min(found)[2] if found else FALLBACK_COLOR


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def measured(value: object) -> float | None:
    """A figure as a number; None for one that is absent, not finite or no number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def draw_bars(
    axes: Axes,
    labels: Sequence[str],
    values: Sequence[float | None],
    colors: Sequence[str],
    form: str | Callable[[float], str],
    lang: Lang,
    *,
    fontsize: int = 9,
) -> None:
    """A bar for each value with the value over it; where there is none, words that say so and no bar.

    Args:
        form: of the text over a bar, for `str.format` with `value`; or what makes the text of a value.
    """
    for place, (value, color) in enumerate(zip(values, colors, strict=True)):
        if value is None:
            # At the foot of the panel, whatever the scale of the others.
            axes.text(
                place,
                0.03,
                text("missing", lang),
                transform=axes.get_xaxis_transform(),
                ha="center",
                fontsize=fontsize,
                style="italic",
                color="#555555",
            )
            continue
        axes.bar(place, value, color=color, alpha=0.8, width=0.7)
        axes.annotate(
            form.format(value=value) if isinstance(form, str) else form(value),
            (place, value),
            textcoords="offset points",
            xytext=(0, 3 if value >= 0 else -3),
            ha="center",
            va="bottom" if value >= 0 else "top",
            fontsize=fontsize,
            fontweight="bold",
        )
    axes.set_xticks(range(len(labels)), labels)
    if max(map(_width, labels)) > _panel_width(axes) / len(labels):
        axes.tick_params(axis="x", rotation=25)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.15)
    if all(value is None for value in values):
        axes.set(ylim=(0, 1), yticks=[])


def _width(label: str) -> float:
    return _LETTER_INCHES * sum(2 if _CJK_TEXT.match(letter) else 1 for letter in label)


def _panel_width(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    place = axes.get_subplotspec()
    if figure is None or place is None:
        raise ValueError("the panel belongs to no picture")
    # Less what the scale beside it takes.
    return 0.85 * float(figure.get_size_inches()[0]) / place.get_gridspec().ncols


def draw_labels(figure: Figure, axes: Axes, labels: Sequence[tuple[str, float, float]]) -> None:
    """Names beside points, each where it covers no other name and no point if there is such a place.

    Args:
        labels: name, x and y. The points, the scales and the margins must be there already.
    """
    figure.draw_without_rendering()
    points = [axes.transData.transform((x, y)) for _, x, y in labels]
    taken: list[Bbox] = []
    for name, x, y in labels:
        label = axes.annotate(name, (x, y), textcoords="offset points", xytext=(0, 0), fontsize=9, zorder=4)
        for offset, across, along in _BESIDE:
            label.xyann = offset
            label.set(ha=across, va=along)
            box = label.get_window_extent()
            if not (box.count_overlaps(taken) or any(box.contains(*point) for point in points)):
                break
        taken.append(box)

"""What the pictures of gradient norms have in common: two scales, phases, smoothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.runs.gradients import GradientLog
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

SMOOTH = 5  # points in a moving average
_NARROW = 300  # largest over smallest
_PHASE_COLOR = "#37474F"


def evenly_spaced(count: int, most: int) -> list[int]:
    """Places in a sequence of `count`: at most `most` of them, evenly spaced, the first and the last among them.

    >>> evenly_spaced(100, 7), evenly_spaced(3, 7)
    ([0, 16, 33, 50, 66, 82, 99], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def smooth(values: Sequence[float], window: int = SMOOTH) -> list[float]:
    """A moving average over the point and those before it; the first `window - 1` points are as they were, and a gap
    (nan) stays one.

    >>> smooth([1.0, 2.0, 3.0, 4.0, 10.0, 6.0])
    [1.0, 2.0, 3.0, 4.0, 4.0, 5.0]
    """
    found = []
    for place, value in enumerate(values):
        near = [v for v in values[max(0, place - window + 1) : place + 1] if not math.isnan(v)]
        found.append(value if place < window - 1 or math.isnan(value) else math.fsum(near) / len(near))
    return found


def both_scales(save_path: Path | str, draw: Callable[[Path, str], None]) -> list[Path]:
    """Draw the linear picture, and the logarithmic one beside it with `_log` behind its name.

    Args:
        draw: takes the PNG to write, and `linear` or `log`.
    """
    path = Path(save_path)
    paths = [path, path.with_name(f"{path.stem}_log{path.suffix}")]
    for file, scale in zip(paths, ("linear", "log"), strict=True):
        draw(file, scale)
    return paths


def nothing_to_draw(lang: Lang) -> list[Path]:
    """Say so, and return no pictures."""
    log.warning("%s", text("nothing", lang))
    return []


def drawable(values: Sequence[float]) -> bool:
    """Whether any of the norms is finite and above 0."""
    return any(math.isfinite(value) and value > 0 for value in values)


def add_title(figure: Figure, title: str) -> None:
    """A title over all panels."""
    figure.suptitle(title, fontsize=14, fontweight="bold")


def scaled_label(name: str, scale: str, lang: Lang) -> str:
    """What stands beside an axis of that scale."""
    return text("logarithmic", lang, name=name) if scale == "log" else name


def set_scale(axes: Axes, scale: str) -> None:
    """The scale of a panel's norms, after they were drawn; a linear one begins at 0."""
    axes.set_yscale(scale)
    if scale == "log":
        plain_ticks(axes.yaxis, *axes.get_ylim())
    else:
        axes.set_ylim(0, 1.05 * axes.dataLim.y1)


def plain_ticks(axis: Any, low: float | None, high: float | None) -> None:
    """Plain numbers on a logarithmic axis, those between the powers of ten too where there are few of these."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.set_major_formatter(plain)
    wide = not low or not high or high / low >= _NARROW
    axis.set_minor_locator(LogLocator(subs=range(2, 10) if wide else (2, 3, 5)))
    axis.set_minor_formatter(NullFormatter() if wide else plain)


def mark_phases(axes: Axes, gradients: GradientLog, lang: Lang, *, named: bool) -> None:
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

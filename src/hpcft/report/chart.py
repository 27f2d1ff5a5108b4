"""Charts as numbers that a page's template draws: places in percent, so that they fit any width without a script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcft.report.palette import Style

_FINE = 1000  # parts of an axis that a line's corners are rounded to


@dataclass(frozen=True)
class Line:
    """One curve: the number of its look, and an SVG path on 0 to 1000 both ways."""

    number: int
    path: str


@dataclass(frozen=True)
class Mark:
    """One point: its place in percent, look and words, and on which side its name stands."""

    x: float
    y: float
    style: Style
    filled: bool
    name: str
    words: str
    link: str
    left: bool
    below: bool


@dataclass(frozen=True)
class Chart:
    """A chart with both axes.

    Attributes:
        title, x_label, y_label: words.
        x_ticks, y_ticks: (place in percent from the left or the top, figure).
        stairs: SVG path of a line behind the marks; empty for none.
        named: whether the marks' names stand beside them.
        rows: under the chart, one a line or mark: (number of its look or None, name, figures).
        head: of those rows' columns.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    stairs: str = ""
    named: bool = False
    head: list[str] = field(default_factory=list)
    rows: list[tuple[int | None, str, list[str]]] = field(default_factory=list)


@dataclass(frozen=True)
class Scale:
    """A part of the numbers on 0 to 1."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], margin: float) -> Scale:
        """A scale that all values are on, with a part of their range free at both ends."""
        found = list(values)
        low, high = min(found), max(found)
        room = (high - low) * margin or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room) if margin else cls(low, high if high > low else low + 1.0)

    def place(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Round figures in steps of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def axis(scale: Scale, most: int, *, upwards: bool = False) -> list[tuple[float, str]]:
    """Ticks of an axis: places in percent from the left, or from the top of one that grows upwards."""
    places = ((100 * scale.place(value), value) for value in scale.ticks(most))
    return [(round(100 - p if upwards else p, 2), short(value)) for p, value in places]


def line_path(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    """An SVG path through points, in whole thousandths of the axes, each corner told from the one before."""
    places = [(round(_FINE * x.place(a)), round(_FINE * (1 - y.place(b)))) for a, b in points]
    first, *others = places
    path = [f"M{first[0]} {first[1]}"]
    if not others:
        # A round end makes a dot of it.
        path.append("h0")
    last = first
    for place in others:
        right, down = place[0] - last[0], place[1] - last[1]
        path.append(f"{'l' if last is first else ' '}{right}{'' if down < 0 else ' '}{down}")
        last = place
    return "".join(path)


def short(value: float) -> str:
    """A figure for an axis or a table: at most five digits that say something."""
    if value == 0:
        return "0"
    if 1e5 <= abs(value) < 1e15 and value == round(value):
        return f"{value:,.0f}"
    return f"{value:.5g}"


def line_chart(
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    numbers: Mapping[str, int],
    *,
    x_label: str,
    y_label: str,
    head: list[str],
    figures: Mapping[str, list[str]],
) -> Chart:
    """Curves over each other.

    Args:
        curves: name → points, one or more. numbers: name → number of its look.
        head, figures: what stands under it, by name.
    """
    x = Scale.of((p[0] for points in curves.values() for p in points), 0)
    y = Scale.of((p[1] for points in curves.values() for p in points), 0.05)
    return Chart(
        title,
        x_label,
        y_label,
        axis(x, 5),
        axis(y, 6, upwards=True),
        lines=[Line(numbers[name], line_path(points, x, y)) for name, points in curves.items()],
        head=head,
        rows=[(numbers[name], name, figures[name]) for name in curves],
    )

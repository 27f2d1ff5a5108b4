"""Colours, shapes and dashes that groups and runs are told apart by, in pictures and pages alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How a group's points look.

    Attributes:
        color: as HTML writes it.
        marker: as matplotlib calls the shape.
        shape: corners of the same shape as a polygon, some 12 pixels wide about its centre.
    """

    color: str
    marker: str
    shape: str


# Okabe and Ito's colours, which the colour-blind tell apart (M. Okabe, K. Ito, "Color Universal Design", 2008), the
# pale ones last; each with a shape of its own.
STYLES = (
    Style("#0072B2", "o", "0,-6 4.2,-4.2 6,0 4.2,4.2 0,6 -4.2,4.2 -6,0 -4.2,-4.2"),
    Style("#D55E00", "s", "-5.3,-5.3 5.3,-5.3 5.3,5.3 -5.3,5.3"),
    Style("#009E73", "^", "0,-6.5 6.2,5 -6.2,5"),
    Style("#CC79A7", "D", "0,-7 7,0 0,7 -7,0"),
    Style("#000000", "v", "0,6.5 6.2,-5 -6.2,-5"),
    Style("#E69F00", "P", "-2,-6 2,-6 2,-2 6,-2 6,2 2,2 2,6 -2,6 -2,2 -6,2 -6,-2 -2,-2"),
    Style("#56B4E9", "p", "0,-6.5 6.2,-2 3.8,5.3 -3.8,5.3 -6.2,-2"),
    Style("#F0E442", "*", "0,-8 2,-2.6 7.6,-2.5 3.1,1 4.7,6.5 0,3.2 -4.7,6.5 -3.1,1 -7.6,-2.5 -2,-2.6"),
)

# Yellow is too pale for a line. Seven colours times eight dashes: 56 runs that look different.
LINE_COLORS = tuple(style.color for style in STYLES[:7])
DASHES = ((), (7, 4), (2, 4), (9, 3, 2, 3), (14, 4), (4, 2), (9, 3, 2, 3, 2, 3), (1, 2))


def group_styles(groups: Iterable[str]) -> dict[str, Style]:
    """A look for each group; the ninth has the second shape in the first colour, and so on."""
    count = len(STYLES)
    found = {}
    for i, group in enumerate(sorted(set(groups))):
        shape = STYLES[(i + i // count) % count]
        found[group] = Style(STYLES[i % count].color, shape.marker, shape.shape)
    return found


def line_style(number: int) -> tuple[int, int]:
    """Places in `LINE_COLORS` and `DASHES` for the n-th line, from 0."""
    return number % len(LINE_COLORS), number // len(LINE_COLORS) % len(DASHES)

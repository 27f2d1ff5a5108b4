"""Boxes of exactly 70 columns, whatever stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hpcft.display.room import cells, pad, wrap

WIDTH = 70
_ROOM = WIDTH - 4

Frame = Literal["single", "double"]
# Left top, across, right top, side, left and right of a line between, left foot, right foot.
_FRAMES: dict[Frame, str] = {"single": "┌─┐│├┤└┘", "double": "╔═╗║╠╣╚╝"}


def box(sections: Sequence[Sequence[str]], frame: Frame = "single") -> str:
    """Lines in a frame, with a line between two sections. What is longer than a line goes on below.

    Args:
        sections: texts of one line each; an empty section is left out.
    """
    top, across, end, side, left, right, foot, corner = tuple(_FRAMES[frame])
    rule = across * (WIDTH - 2)
    parts = [
        "\n".join(f"{side} {pad(line, _ROOM)} {side}" for text in texts for line in _lines(text))
        for texts in sections
        if texts
    ]
    inside = f"\n{left}{rule}{right}\n".join(parts)
    return f"{top}{rule}{end}\n{inside}\n{foot}{rule}{corner}"


def _lines(text: str) -> list[str]:
    # A text that is not broken keeps its blanks as they are.
    return [text] if cells(text) <= _ROOM else wrap(text, _ROOM)

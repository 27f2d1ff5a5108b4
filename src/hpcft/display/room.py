"""The room that a text takes on a terminal, counted in cells: Chinese, Korean and emoji take two, marks on a letter
none. And what stands there where a terminal has no UTF-8."""

from __future__ import annotations

import codecs
import unicodedata
from functools import cache

_DOTS = "..."
# Whether a terminal joins emoji over a joiner, makes a sign an emoji by a selector or colours a skin is its own
# matter, and so is the width then. Without them all agree.
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400))))


def cells(text: str) -> int:
    """Cells that a text takes (Unicode Standard Annex 11, and the emoji that are shown wide)."""
    from rich.cells import cell_len

    return cell_len(text)


def clean(text: str) -> str:
    """A text as one line that does nothing to a terminal: white space as single blanks, no control characters, no
    changes of direction, and nothing whose width terminals do not agree on."""
    whole = unicodedata.normalize("NFC", text)
    return " ".join("".join(c for c in whole if c.isspace() or (c.isprintable() and c not in _SELECTORS)).split())


def one_line(text: str) -> str:
    """A text of somebody who sets up a training, with its signs as they are, as one line."""
    return "".join(c for c in text.replace("\n", " ") if c.isprintable())


def shorten(text: str, characters: int, *, more: bool = False) -> str:
    """The beginning of a text, with three dots when there is more of it, in it or behind it."""
    return text[:characters].rstrip() + _DOTS if more or len(text) > characters else text


def fit(text: str, room: int) -> str:
    """A text in so many cells at most, its end replaced by three dots where it is longer."""
    if cells(text) <= room:
        return text
    return _start(text, room - len(_DOTS)).rstrip() + _DOTS


def pad(text: str, room: int) -> str:
    """A text in exactly so many cells; cut like `fit` where it is longer."""
    fitted = fit(text, room)
    return fitted + " " * (room - cells(fitted))


def wrap(text: str, room: int) -> list[str]:
    """A text in lines of so many cells at most, broken at blanks, and in words that are longer than a line or have
    wide characters, which are written without blanks, wherever the line ends.

    Args:
        room: cells, two or more.
    """
    lines, line, used = [], "", 0
    for word in text.split():
        gap = 1 if line else 0
        wide = cells(word)
        if used + gap + wide > room and not (wide > room or wide > len(word)):
            lines.append(line)
            line, used, gap = "", 0, 0
        while used + gap + wide > room:
            start = _start(word, room - used - gap)
            lines.append((line + " " * gap + start).rstrip())
            line, used, gap = "", 0, 0
            word = word[len(start) :]
            wide = cells(word)
        if word:
            line += " " * gap + word
            used += gap + wide
    return [*lines, line] if line or not lines else lines


def _start(text: str, room: int) -> str:
    """The longest beginning of a text that has room."""
    # A selector makes the sign before it wide, so characters are not counted one by one.
    return next((text[: end - 1] for end in range(1, len(text) + 1) if cells(text[:end]) > room), text)


# In as much room. Some are in encodings of Chinese and Korean too, but as wide as a letter of these.
_SIGNS = {
    **dict.fromkeys("┌┐├┤└┘╔╗╠╣╚╝", "+"),
    **{"─": "-", "═": "=", "│": "|", "║": "|", "█": "#", "░": "-", "…": "."},
    **{"α": "a", "β": "b", "🟢": "++", "🟡": "+-", "🔴": "--"},
}


def shown_in(text: str, encoding: str | None) -> str:
    """A text as a terminal of some encoding can show it, each line as wide as before: blanks for signs that it lacks,
    question marks for letters.

    Args:
        encoding: None for UTF-8.
    """
    codec = _codec(encoding)
    return text if codec is None else "\n".join(_replaced(line, codec) for line in text.split("\n"))


def can_show(text: str, encoding: str | None) -> bool:
    """Whether a terminal of some encoding has all letters of a text."""
    codec = _codec(encoding)
    return codec is None or all(_has(c, codec) for c in text if c.isalpha())


def _replaced(line: str, codec: str) -> str:
    shown = []
    for place, character in enumerate(line):
        if character in _SIGNS or not _has(character, codec):
            # A selector makes the sign before it wide.
            room = cells(line[: place + 1]) - cells(line[:place])
            character = _SIGNS.get(character, ("?" if character.isalnum() else " ") * room)
        shown.append(character)
    return "".join(shown)


@cache
def _codec(encoding: str | None) -> str | None:
    """Python's name of an encoding; None for one that has everything, and ASCII for one that nobody knows."""
    try:
        name = codecs.lookup(encoding or "utf-8").name
    except LookupError:
        return "ascii"
    return None if name.startswith("utf") else name


def _has(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True

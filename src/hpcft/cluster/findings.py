"""What a check found: good, doubtful, bad, or not to be told from here."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Light(enum.StrEnum):
    """How it stands."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"
    GREY = "grey"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        check: what was looked at, in a word or two.
        light: red: a job fails; yellow: it may; grey: it could not be told.
        message: what was seen, a sentence.
        mend: what to type or to change; empty where nothing is to be mended.
        where: the key or the file that it is about.
    """

    check: str
    light: Light
    message: str
    mend: str = ""
    where: str = ""


def green(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Light.GREEN, message)


def yellow(check: str, message: str, mend: str = "", where: str = "") -> Finding:
    """It may fail."""
    return Finding(check, Light.YELLOW, message, mend, where)


def red(check: str, message: str, mend: str, where: str = "") -> Finding:
    """It fails."""
    return Finding(check, Light.RED, message, mend, where)


def grey(check: str, message: str) -> Finding:
    """It could not be told."""
    return Finding(check, Light.GREY, message)

"""The texts and times that a job's fields take, each with its gate."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from hpcft.spec.identifiers import identifier_fault, path_fault


def _identifier(text: str) -> str:
    if fault := identifier_fault(text):
        raise ValueError(f"{short(text)} {fault}")
    return text


def _path(text: str) -> str:
    if fault := path_fault(text):
        raise ValueError(f"{short(text)} {fault}")
    return text


def _reference(text: str) -> str:
    """A model, a data set: a name, a hub id or a path, without control characters."""
    if not text.strip():
        raise ValueError("is empty")
    if len(text) > 1024 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"{short(text)} is longer than 1024 characters or has control characters in it")
    if any(len(part.encode("utf-8", "replace")) > 255 for part in text.split("/")):
        raise ValueError(f"{short(text)} has a part longer than the 255 bytes that a file's name may have")
    return text


def _tag(text: str) -> str:
    """A tag of wandb's, which refuses a run with a longer one."""
    if len(_reference(text)) > 64:
        raise ValueError(f"{short(text)} is longer than the 64 characters that wandb takes")
    return text


Lang = Literal["en", "zh-TW", "zh-CN", "ko"]


def short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


_TIME = re.compile(r"(?:(?P<d>\d{1,3})-)?(?P<a>\d{1,5})(?::(?P<b>\d{1,2}))?(?::(?P<c>\d{1,2}))?")


def parse_time(text: str | int) -> int:
    """Seconds in a Slurm time: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.

    >>> parse_time("04:00:00"), parse_time("1-12"), parse_time(30), parse_time("90:30")
    (14400, 129600, 1800, 5430)
    """
    match = _TIME.fullmatch(str(text).strip())
    if not match:
        raise ValueError(f"{short(str(text))} is not a time such as 30 (minutes), 04:00:00 or 1-12:00:00")
    days, a, b, c = (None if g is None else int(g) for g in match.group("d", "a", "b", "c"))
    if days is not None:
        seconds = days * 86400 + (a or 0) * 3600 + (b or 0) * 60 + (c or 0)
    elif c is not None:
        seconds = (a or 0) * 3600 + (b or 0) * 60 + c
    else:
        seconds = (a or 0) * 60 + (b or 0)
    if seconds == 0:
        raise ValueError("a time of zero leaves nothing to run in")
    return seconds


def format_time(seconds: int) -> str:
    """Seconds as Slurm writes a time.

    >>> format_time(14400), format_time(129600)
    ('04:00:00', '1-12:00:00')
    """
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def _slurm_time(value: Any) -> str:
    return format_time(parse_time(value))


Identifier = Annotated[str, AfterValidator(_identifier)]
ScriptPath = Annotated[str, AfterValidator(_path)]
Reference = Annotated[str, AfterValidator(_reference)]
Tag = Annotated[str, AfterValidator(_tag)]
SlurmTime = Annotated[str, BeforeValidator(_slurm_time)]


def _stage(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


ZeroStage = Annotated[Literal["auto", 0, 1, 2, 3], BeforeValidator(_stage)]

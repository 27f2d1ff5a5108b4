"""Small files, written so that a reader sees the old text or the new one and a crash loses neither."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpcft.errors import DataError, NotAllowedError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Kind = TypeVar("_Kind", bound="DataclassInstance")
DIR_MODE = 0o700
FILE_MODE = 0o600


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's refusals into errors that name the place and the way out.

    Raises:
        NotAllowedError: no permission, read-only, no space, quota exceeded, not a folder, name too long.
    """
    try:
        yield
    except OSError as error:
        causes = {
            errno.EACCES: ("permission denied", "choose another folder with --results, or ask for access"),
            errno.EPERM: ("permission denied", "choose another folder with --results, or ask for access"),
            errno.EROFS: ("the file system is read-only", "choose another folder with --results"),
            errno.ENOSPC: (
                "no space left on the file system",
                "free some space, or choose another --results",
            ),
            errno.EDQUOT: ("your disk quota is used up", "free some space, or choose another --results"),
            errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another folder"),
            errno.EEXIST: ("a file of that name is in the way", "choose another folder"),
            errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
        }
        # Others are rare and say enough themselves.
        cause, hint = causes.get(error.errno or 0, (error.strerror or str(error), "choose another folder"))
        raise NotAllowedError(f"cannot {doing}: {cause}", where=str(path), hint=hint) from error


def make_private(path: Path) -> Path:
    """Make a folder, its parents too, that only its owner may read. An existing one is left as it is."""
    path.mkdir(parents=True, exist_ok=True, mode=DIR_MODE)
    return path


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to disk (POSIX: a rename is durable only after this)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write to a descriptor, in several writes where the system takes a part at a time.

    Raises:
        OSError: a part of it may have been written.
    """
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def is_torn(fd: int) -> bool:
    """Whether the last line of a file of lines has no end; of a descriptor that can be read."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace `path` by `text`: written aside, fsync, rename, fsync of the folder. Mode 0600.

    Args:
        path: file to replace.
        text: its new content.
        durable: without it no fsync is made, for what is written every second and worthless after a power cut.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path, "write"):
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` by `value` as JSON; NaN and infinities, which JSON has not, become words."""
    text = json.dumps(without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n", durable=durable)


def without_nan(value: Any) -> Any:
    """The value with its NaN and infinities as words: they say something about a run, and JSON has none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Returns:
        The value, or None when there is no such file.

    Raises:
        DataError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"is not readable as JSON: {error}", where=str(path)) from error
    except PermissionError as error:
        raise NotAllowedError("cannot be read: permission denied", where=str(path)) from error


def read_fields(path: Path, kind: type[_Kind]) -> _Kind | None:
    """A dataclass that was written as JSON, by this version or by another one with more fields.

    Returns:
        None when there is no such file, or no mapping in it.

    Raises:
        DataError: it is not JSON, or lacks a field.
    """
    raw = read_json(path)
    if not isinstance(raw, dict):
        return None
    names = {field.name for field in fields(kind)}
    try:
        return kind(**{name: value for name, value in raw.items() if name in names})
    except TypeError as error:
        lacking = re.findall(r"'(\w+)'", str(error))
        raise DataError(f"is damaged: it lacks {', '.join(lacking)}", where=str(path)) from error

"""Small files, written so that a reader sees the old text or the new one and a crash loses neither."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, NotAllowedError

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
        if error.errno not in causes:
            raise
        cause, hint = causes[error.errno]
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


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text`: written aside, fsync, rename, fsync of the folder. Mode 0600."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path, "write"):
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON; a NaN is refused, since it is not JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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

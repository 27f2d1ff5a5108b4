"""Files below a folder, opened step by step, so that no name, link or race leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hpcft.web.errors import Missing

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not held up by a pipe that nobody writes to.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST = 10_000


@contextmanager
def _folder(top: Path, parts: list[str]) -> Iterator[int]:
    """A descriptor of a folder below another one. A link on the way is no folder."""
    at = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise Missing("no such file")
    return parts


def opened(top: Path, folder: str, name: str) -> BinaryIO:
    """A regular file below a folder.

    Args:
        top: where the walk begins; it may be a link itself.
        folder: below it, such as `group/run`. name: of the file below that, such as `attempts/1/rank0.log`.

    Raises:
        Missing: it is not there, or no file, or something on the way is a link, or the name would lead elsewhere.
    """
    *above, last = _parts(folder) + _parts(name)
    try:
        with _folder(top, above) as at:
            handle = os.open(last, _FILE, dir_fd=at)
    except (OSError, ValueError) as error:
        # ValueError: a name with a zero byte, or of half characters.
        raise Missing("no such file") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Missing("no such file")
    return os.fdopen(handle, "rb")


def listed(top: Path, folder: str) -> list[dict[str, Any]]:
    """The regular files below a folder, by name, 10,000 at the most: `name`, `size` in bytes, `modified` in seconds
    since the epoch. What has a name that is no text is left out.

    Raises:
        Missing: the folder is not there, or something on the way to it is a link.
    """
    found: list[dict[str, Any]] = []
    try:
        with _folder(top, _parts(folder)) as at:
            for path, folders, files, inner in os.fwalk(".", dir_fd=at, follow_symlinks=False):
                folders.sort()
                for name in sorted(files):
                    full = f"{path}/{name}"[2:]
                    about = os.stat(name, dir_fd=inner, follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode) and full.isprintable():
                        found.append({"name": full, "size": about.st_size, "modified": about.st_mtime})
                if len(found) >= _MOST:
                    break
    except (OSError, ValueError) as error:
        raise Missing("no such folder") from error
    return sorted(found[:_MOST], key=lambda file: str(file["name"]))

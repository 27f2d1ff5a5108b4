"""Where the service listens: a socket in a folder that only its user can enter, or a port of this machine alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from hpcft.errors import NotAllowedError, UsageError
from hpcft.runs.files import explained, make_private

_LONGEST = 100


def default_socket() -> Path:
    """`$XDG_RUNTIME_DIR/hpcft/serve.sock`, else in the user's folder on this machine's disk."""
    from hpcft.runs.scratch import own_folder

    base = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(base) / "hpcft" if base else own_folder()) / "serve.sock"


def open_socket(path: Path) -> socket.socket:
    """Listen on a unix socket.

    Raises:
        UsageError: the path is too long for one, or another service listens there.
        NotAllowedError: its folder is open to others, or cannot be written.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise UsageError(f"has more than {_LONGEST} bytes, which no socket's name may have", where=str(path))
    with explained(path, "open a socket"):
        make_private(path.parent)
        found = path.parent.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise NotAllowedError(
                "others may enter this folder, or it is somebody else's",
                where=str(path.parent),
                hint=f"chmod 700 {path.parent}, or choose another with --socket",
            )
        if path.is_socket():
            if _answers(path):
                raise UsageError("another service listens here", where=str(path), hint="choose another with --socket")
            # Of one that was killed.
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
    listener.listen(128)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True


def open_port(port: int) -> socket.socket:
    """Listen on a port of this machine's own address, 0 for a free one.

    Raises:
        NotAllowedError: it is taken or forbidden.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise NotAllowedError(f"the port cannot be used: {error.strerror}", where=f"--port {port}") from error
    listener.listen(128)
    return listener


class OwnUserProtocol(H11Protocol):
    """HTTP that hangs up on other users: a socket's folder may be entered by root, or be opened by mistake later."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look who calls."""
        if is_stranger(transport.get_extra_info("socket")):
            transport.abort()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """What was sent before it was hung up is dropped."""
        if getattr(self, "transport", None) is not None:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, of those that were let in."""
        if getattr(self, "transport", None) is not None:
            super().connection_lost(exc)


def is_stranger(connection: Any) -> bool:
    """Whether another user is at the other end of a unix socket; nobody knows that of a port."""
    if connection is None or connection.family != socket.AF_UNIX:
        return False
    if not hasattr(socket, "SO_PEERCRED"):
        return False
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return bool(uid != os.getuid())

"""What another user of the machine tries against a service: a program that becomes that user and tells, for each
attempt, what came of it. Imported before, since that user may not read Python's own folder."""

from __future__ import annotations

import array
import ctypes
import encodings.idna  # noqa: F401 (an address is encoded by it)
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

UID = 65534
_LIBC = ctypes.CDLL(None, use_errno=True)
Attempt = Callable[[], str]


def _checked(result: int) -> str:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return "done"


def _done(call: Callable[..., Any], *arguments: Any, **named: Any) -> Attempt:
    def attempt() -> str:
        told = call(*arguments, **named)
        if hasattr(told, "close"):
            told.close()
        return "done"

    return attempt


def _spoken(connection: socket.socket, sent: bytes) -> str:
    """What a service says, shortly: its statuses, or that it hung up."""
    with connection:
        connection.settimeout(10)
        said = b""
        try:
            connection.sendall(sent)
            while block := connection.recv(65536):
                said += block
        except TimeoutError:
            pass
        except ConnectionError:
            return "hung up"
    statuses = [part[:3].decode() for part in said.split(b"HTTP/1.1 ")[1:]]
    return " ".join(statuses) if statuses else ("hung up" if not said else f"said {said[:80]!r}")


def _by_socket(path: str, sent: bytes) -> Attempt:
    def attempt() -> str:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        return _spoken(connection, sent)

    return attempt


def _by_port(port: int, sent: bytes) -> Attempt:
    def attempt() -> str:
        connection = socket.socket(socket.AF_INET)
        connection.connect(("127.0.0.1", port))
        return _spoken(connection, sent)

    return attempt


def _get(path: str, *headers: str, method: str = "GET", host: str = "127.0.0.1", body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _bound(family: int, address: Any, *options: int) -> Attempt:
    def attempt() -> str:
        with socket.socket(family) as listener:
            for option in options:
                listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind(address)
            listener.listen()
        return "done"

    return attempt


def at_the_socket(path: str, pid: int, own: Path) -> Iterator[tuple[str, Attempt]]:
    """Attempts at a socket in a folder of another user's."""
    folder, ask = Path(path).parent, _get("/api/v1/experiments")
    own_link = own / "link.sock"
    own_link.symlink_to(path)
    yield "connect", _by_socket(path, ask)
    yield "connect by a link", _by_socket(str(own_link), ask)
    yield "connect by the process's root", _by_socket(f"/proc/{pid}/root{path}", ask)
    yield "connect by the process's folder", _by_socket(f"/proc/{pid}/cwd/run/serve.sock", ask)
    yield "connect to an abstract one", _by_socket("\0" + path, ask)
    yield "look at it", _done(os.stat, path)
    yield "list its folder", _done(os.listdir, folder)
    yield "remove it", _done(os.unlink, path)
    yield "rename it", _done(os.rename, path, own / "taken.sock")
    yield "name it a second time", _done(os.link, path, own / "second.sock")
    yield "open it to all", _done(os.chmod, path, 0o666)
    yield "listen in its place", _bound(socket.AF_UNIX, path)
    yield "listen beside it", _bound(socket.AF_UNIX, str(folder / "other.sock"))
    yield "put a file beside it", _done(open, folder / "x", "w")
    yield "open its folder to all", _done(os.chmod, folder, 0o777)
    yield "own its folder", _done(os.chown, folder, UID, UID)
    yield "rename its folder", _done(os.rename, folder, folder.with_name("old"))
    yield "put a link in its folder's place", _done(os.rename, own_link, folder)
    yield "list what the process has open", _done(os.listdir, f"/proc/{pid}/fd")
    yield "take what the process has open", lambda: _checked(_LIBC.syscall(438, os.pidfd_open(pid), 3, 0))


def at_an_open_door(path: str) -> Iterator[tuple[str, Attempt]]:
    """Attempts at a socket whose folder was opened to all by mistake."""
    job = json.dumps({"config": {"preset": "quickstart"}})
    json_type = "Content-Type: application/json"
    yield "ask", _by_socket(path, _get("/api/v1/experiments"))
    yield "ask for the document", _by_socket(path, _get("/api/v1/openapi.json"))
    yield "ask for a file", _by_socket(path, _get("/api/v1/experiments/mine/files/config.yaml"))
    yield "follow a run", _by_socket(path, _get("/api/v1/jobs/mine/stream"))
    yield "submit", _by_socket(path, _get("/api/v1/jobs", json_type, method="POST", body=job))
    yield "ask twice at once", _by_socket(path, _get("/api/v1/experiments") * 2)

    def as_root() -> str:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        credentials = array.array("i", [1, 0, 0])
        connection.sendmsg([b"G"], [(socket.SOL_SOCKET, 2, credentials)])
        return "done"

    yield "say that it is root", as_root


def at_the_port(port: int, pid: int, used: str) -> Iterator[tuple[str, Attempt]]:
    """Attempts at a port, by one who knows the token that was used."""
    asked = "/api/v1/experiments"
    job = json.dumps({"config": {"preset": "quickstart"}})
    json_type = "Content-Type: application/json"
    cookie = "Cookie: hpcft_session="
    requests = {
        "without a token": _get(asked),
        "with the used token": _get(f"{asked}?token={used}"),
        "with the used token twice": _get(f"{asked}?token=x&token={used}"),
        "with a part of the token": _get(f"{asked}?token={used[:-1]}"),
        "with an empty token": _get(f"{asked}?token="),
        "with a token of other letters": _get(f"{asked}?token=%C3%A9%00"),
        "with the token in a header": _get(asked, f"Authorization: Bearer {used}"),
        "with a guessed cookie": _get(asked, f"{cookie}guess"),
        "with an empty cookie": _get(asked, cookie),
        "with the token as the cookie": _get(asked, f"{cookie}{used}"),
        "with many cookies": _get(asked, cookie + f"; {cookie[8:]}".join(map(str, range(200)))),
        "submitting": _get("/api/v1/jobs", json_type, method="POST", body=job),
        "submitting with the used token": _get(f"/train?token={used}", json_type, method="POST", body=job),
        "cancelling": _get("/api/v1/jobs/mine/cancel", method="POST"),
        "for a file": _get("/api/v1/experiments/mine/files/config.yaml"),
        "for a stream": _get("/api/v1/jobs/mine/stream"),
        "for the document": _get("/api/v1/openapi.json"),
        "by HEAD": _get(asked, method="HEAD"),
        "by OPTIONS": _get(asked, "Access-Control-Request-Method: GET", method="OPTIONS"),
        "by TRACE": _get(asked, method="TRACE"),
        "by a whole address": _get(f"http://localhost:{port}{asked}"),
        "by a path of slashes": _get(f"//{asked}"),
        "for another host": _get(asked, host="evil.example"),
        "for two hosts": _get(asked, "Host: localhost"),
        "from a proxy that says who it is": _get(asked, "X-Forwarded-For: 127.0.0.1", "X-Forwarded-User: root"),
        "with one request inside of another": _get(
            asked, "Transfer-Encoding: chunked", method="POST", body="0\r\n\r\n" + _get(asked).decode()
        ),
        "twice at once": _get(asked).replace(b"Connection: close\r\n", b"") + _get(asked),
        "by a WebSocket": _get(asked, "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="),
    }
    for name, sent in requests.items():
        yield f"ask {name}", _by_port(port, sent)
    address = ("127.0.0.1", port)
    yield "listen on the port", _bound(socket.AF_INET, address, socket.SO_REUSEADDR)
    yield "share the port", _bound(socket.AF_INET, address, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    yield "listen on all addresses", _bound(socket.AF_INET, ("0.0.0.0", port), socket.SO_REUSEADDR)  # noqa: S104
    yield "read the process's variables", _done(open, f"/proc/{pid}/environ", "rb")
    yield "read its memory", _done(open, f"/proc/{pid}/mem", "rb")
    yield "read its maps", lambda: f"read {len(Path(f'/proc/{pid}/maps').read_text())}"
    yield "trace it", lambda: _checked(_LIBC.ptrace(16, pid, 0, 0))
    yield "end it", _done(os.kill, pid, signal.SIGTERM)


def at_the_files(results: Path, pid: int, own: Path) -> Iterator[tuple[str, Attempt]]:
    """Attempts at the folder of the runs."""
    run = results / "mine"
    yield "list the runs", _done(os.listdir, results)
    yield "list a run", _done(os.listdir, run)
    for name in ("config.yaml", "client.jsonl", "metrics.json"):
        yield f"read {name}", _done(open, run / name)
    yield "read by the process's folder", _done(open, f"/proc/{pid}/cwd/results/mine/config.yaml")
    yield "name a file a second time", _done(os.link, run / "config.yaml", own / "second")
    yield "write an end marker", _done(open, run / "done.json", "w")
    yield "add to a journal", _done(open, run / "client.jsonl", "a")
    yield "put a run beside it", _done(os.mkdir, results / "planted")
    yield "put a link beside it", _done(os.symlink, "/etc", results / "planted")
    yield "rename a run", _done(os.rename, run, results / "other")
    yield "put other results in their place", _done(os.rename, results, results.with_name("old"))
    yield "open the results to all", _done(os.chmod, results, 0o777)


def main() -> None:
    """Become the other user, try, and print what came of each attempt."""
    asked = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(UID)
    os.setuid(UID)
    own = Path(asked["own"])
    places: dict[str, Callable[[], Iterator[tuple[str, Attempt]]]] = {
        "socket": lambda: at_the_socket(asked["socket"], asked["pid"], own),
        "open door": lambda: at_an_open_door(asked["socket"]),
        "port": lambda: at_the_port(asked["port"], asked["port_pid"], asked["used"]),
        "files": lambda: at_the_files(Path(asked["results"]), asked["pid"], own),
    }
    told = {}
    for name, attempt in places[asked["place"]]():
        try:
            told[name] = attempt()
        except OSError as error:
            told[name] = errno.errorcode.get(error.errno or 0, repr(error))
    print(json.dumps(told))


if __name__ == "__main__":
    main()

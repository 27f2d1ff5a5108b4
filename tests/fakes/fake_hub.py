"""A model hub on this machine, as far as the real clients ask it: files by revision, a gate that a token opens,
downloads that are cut off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "5" * 40
NOT_FOUND = {"X-Error-Code": "EntryNotFound"}


class FakeHub:
    """One repository of a folder's files.

    Args:
        repository: its id, `org/name`.
        folder: what it holds.
        token: who may read it; None gives it to everyone.
        kind: `models` or `datasets`.

    Attributes:
        asked: method, path and whether the token came along, of each request.
        ranges: the Range headers that came, with their paths.
        cut: file name → bytes after which its next download breaks off, once.
    """

    def __init__(self, repository: str, folder: Path, token: str | None = None, kind: str = "models") -> None:
        self.repository, self.folder, self.token, self.kind = repository, folder, token, kind
        self.asked: list[tuple[str, str, bool]] = []
        self.ranges: list[tuple[str, str]] = []
        self.cut: dict[str, int] = {}
        self.server: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        """Answer requests meanwhile."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                path = self.path.split("?")[0]
                known = self.headers.get("Authorization") == f"Bearer {hub.token}"
                hub.asked.append((self.command, path, known))
                status, headers, body = hub.answer(path, known or hub.token is None)
                if status == 200 and (span := self.headers.get("Range", "")).endswith("-") and "resolve" in path:
                    hub.ranges.append((path, span))
                    start = int(span.removeprefix("bytes=").rstrip("-"))
                    headers = headers | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
                    status, body = 206, body[start:]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    sent = hub.cut.pop(path.rpartition("/")[2], None)
                    self.wfile.write(body[:sent])
                    if sent is not None:
                        self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    def answer(self, path: str, allowed: bool) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        files = sorted(p for p in self.folder.iterdir() if p.is_file())
        if path.startswith(f"/api/{self.kind}/{self.repository}"):
            if not allowed:
                return 401, {"X-Error-Code": "GatedRepo"}, b"{}"
            if "/tree/" in path:
                deeper = path.split("/tree/")[1].count("/")
                tree = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0"} for p in files]
                return (404, NOT_FOUND, b"{}") if deeper else (200, {}, json.dumps(tree).encode())
            told = {"id": self.repository, "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
        prefix = f"{'' if self.kind == 'models' else f'/{self.kind}'}/{self.repository}/resolve/"
        if not path.startswith(prefix):
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if not allowed:
            return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted"}, b""
        revision, _, name = path.removeprefix(prefix).partition("/")
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if name not in [p.name for p in files]:
            return 404, {**NOT_FOUND, "X-Repo-Commit": COMMIT}, b""
        body = (self.folder / name).read_bytes()
        return 200, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}, body

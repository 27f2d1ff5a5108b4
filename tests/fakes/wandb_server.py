"""A wandb server for tests: as much of its GraphQL, file stream and storage as the real clients need.

It listens on 127.0.0.1 alone, keeps what arrives, and can be told to misbehave. It checks no key.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from fakes.wandb_graphql import Answers

KEY = "k" * 40


@dataclass(frozen=True)
class Request:
    """A request, before it is answered.

    Attributes:
        operation: name of the GraphQL operation, or the path.
        body: as it was sent, unpacked.
        streaming: whether a run has sent points to the server, with this request or before.
    """

    method: str
    operation: str
    path: str
    body: bytes
    streaming: bool


# An int is the status that the request is answered with, a float a delay in seconds before it is answered well;
# HANG never ends. CUT drops the connection; LOSE does so when what was sent has been kept. None: nothing is wrong.
Fault = Callable[[Request], int | float | str | None]
HANG = math.inf
CUT, LOSE = "cut", "lose"


class FakeWandb(Answers):
    """The server and what it has been sent.

    Attributes:
        fault: asked at each request what is wrong with it. May be changed at any time.
        requests: (method, path or GraphQL operation) of every request, in order.
        bodies: of all requests, one after another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self.bodies = bytearray()
        self.fault: Fault = lambda request: None
        self._streaming = False
        self._closing = threading.Event()
        self._lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            fake = owner

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Let go of requests that hang, and stop listening."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON (or None: drop the connection) for one request."""
        call = json.loads(body) if body and path == "/graphql" else {}
        found = re.search(r"(?:query|mutation)\s+(\w+)", call.get("query", ""))
        operation = found.group(1) if found else path
        with self._lock:
            self.requests.append((method, operation))
            self.bodies += body
            self._streaming = self._streaming or path.endswith("/file_stream")
            request = Request(method, operation, path, body, self._streaming)
        wrong = self.fault(request)
        if isinstance(wrong, int):
            return wrong, {"error": "the test wants it so"}
        if wrong == CUT:
            return 503, None
        if isinstance(wrong, float) and self._closing.wait(None if math.isinf(wrong) else wrong):
            return 503, None
        answer = self._kept(operation, path, body, call)
        return (503, None) if wrong == LOSE else answer

    def _kept(self, operation: str, path: str, body: bytes, call: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            if path == "/graphql":
                return 200, {"data": self.graphql(operation, call.get("variables") or {})}
            if path.endswith("/file_stream"):
                return 200, self._stream(path.split("/")[-2], json.loads(body))
            if path.startswith("/storage/"):
                artifact, name = self._uploads[path.rpartition("/")[2]]
                artifact.files[name] = body
            return 200, {}

    def _stream(self, run_id: str, message: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run_id]
        for name, chunk in (message.get("files") or {}).items():
            lines = chunk["content"] if name.startswith("wandb-") else []
            # The client sends NaN as it is, which is no JSON.
            rows = [json.loads(line, parse_constant=str) for line in lines]
            if name == "wandb-history.jsonl":
                run.history.update(enumerate(rows, chunk.get("offset", 0)))
            elif name == "wandb-events.jsonl":
                run.events.update(enumerate(rows, chunk.get("offset", 0)))
            elif name == "wandb-summary.json":
                run.summary.update(rows[-1])
        if message.get("complete"):
            run.exit_code = message.get("exitcode")
        return {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed resets its connections; other errors are told as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeWandb
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status, answer = self.fake.answer(self.command, urlsplit(self.path).path, body)
        if answer is None:
            self.close_connection = True
            return
        content = json.dumps(answer, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, format: str, *arguments: Any) -> None:
        """Be silent: `requests` has it all."""

"""Asking the service in this process by a path as it stands in the request line: clients tidy paths up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote


def ask(app: Any, targets: Iterable[str], headers: dict[str, str] | None = None) -> list[tuple[int, bytes]]:
    """The status and the body of a GET of each target."""

    async def all_of_them() -> list[tuple[int, bytes]]:
        return [await _ask(app, target, headers or {}) for target in targets]

    return asyncio.run(all_of_them())


async def _ask(app: Any, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    raw, _, query = target.partition("?")
    given = [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in headers.items())]
    # As the server does it.
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": unquote(raw)}
    scope |= {"raw_path": raw.encode(), "query_string": query.encode(), "root_path": "", "headers": given}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}, "extensions": {}}
    status, body, gone = 0, b"", asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not gone.is_set():
            gone.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    await app(scope, receive, send)
    return status, body

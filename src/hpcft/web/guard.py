"""Who may ask: every request is looked at before it reaches a route.

The service does what its user may do, so a page of another site that the user's browser has open must not reach it:
not by a form or a script (Origin, Sec-Fetch-Site), not by a name of its own that leads to this machine (Host; DNS
rebinding), not by a frame or an embedded script (Content-Security-Policy). On a TCP port, which every user of the
machine can open, a token is asked for besides.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

COOKIE = "hpcft_session"
_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    # With no-referrer a form's own page would be hidden from the check of Origin.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::\d{1,5})?")


@dataclass
class Access:
    """What is let through.

    Attributes:
        hosts: names under which the service may be asked for, beside this machine's own for itself.
        token: of a TCP port, good for one exchange into a cookie; None on a socket that only its user can open.
        read_only: nothing is changed.
        sessions: cookies that were given out.
    """

    hosts: Sequence[str] = ()
    token: str | None = None
    read_only: bool = False
    sessions: set[str] = field(default_factory=set)
    has_door: bool = field(init=False)

    def __post_init__(self) -> None:
        self.has_door = self.token is not None

    def take_token(self, offered: str) -> str | None:
        """A new session for the token, which is good for nothing afterwards."""
        if self.token is None or not hmac.compare_digest(offered.encode(), self.token.encode()):
            return None
        self.token = None
        session = secrets.token_urlsafe(32)
        self.sessions.add(session)
        return session


class Guard:
    """ASGI middleware in front of everything."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No WebSocket is served.
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        refusal = self._refusal(scope["method"], headers)
        if refusal is None and self._access.has_door:
            opened = await self._open(scope, headers, send)
            if opened is None:
                return
            if not opened:
                await _answer(send, 401, "UNAUTHORIZED", "open the address with the token that hpcft serve has printed")
                return
        if refusal:
            await _answer(send, 403, "FORBIDDEN", refusal)
            return
        if self._access.read_only and scope["method"] not in _SAFE:
            await _answer(send, 403, "READ_ONLY", "this service was started with --read-only")
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                # A page and a file of a run have a policy of their own, and what never changes may be kept.
                given = list(message.get("headers", []))
                named = {name.lower() for name, _ in given}
                message = {**message, "headers": [*given, *(pair for pair in _HEADERS if pair[0] not in named)]}
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, method: str, headers: dict[str, list[str]]) -> str | None:
        """Why a request is not taken, by who sends it; None where it is."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "the request is for another host; hpcft serve --host-name NAME allows one more"
        origins = headers.get("origin", [])
        if any(not _same_place(origin, hosts[0]) for origin in origins):
            return "the request comes from another site"
        if any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            # A link of another page may be followed; what such a page asks for by itself may not.
            followed = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") == ["document"]
            if method != "GET" or not followed:
                return "the request comes from another site"
        return None

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["six"] or match["name"]).lower().rstrip(".")
        return name in _LOCAL or name in {allowed.lower() for allowed in self._access.hosts}

    async def _open(self, scope: Any, headers: dict[str, list[str]], send: Any) -> bool | None:
        """Whether a request has a session; None when it brought the token and was sent on with a new one."""
        for text in headers.get("cookie", []):
            try:
                cookie = SimpleCookie(text).get(COOKIE)
            except CookieError:
                continue
            if cookie is not None and any(hmac.compare_digest(cookie.value, known) for known in self._access.sessions):
                return True
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        offered = next((value for name, value in query if name == "token"), None)
        if scope["method"] != "GET" or offered is None:
            return False
        session = self._access.take_token(offered)
        if session is None:
            return False
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # Where it was asked for, whatever a proxy has put before it, and nowhere else.
        target = "./" + quote(scope["path"].rpartition("/")[2]) + (f"?{rest}" if rest else "")
        # Strict: a request that another site causes does not carry it.
        given = f"{COOKIE}={session}; HttpOnly; SameSite=Strict; Path={scope.get('root_path') or '/'}"
        location = [(b"location", target.encode("ascii", "ignore")), (b"set-cookie", given.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": [*location, *_HEADERS]})
        await send({"type": "http.response.body", "body": b""})
        return None


def _same_place(origin: str, host: str) -> bool:
    """Whether an Origin is a page of the address that was asked for."""
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


async def _answer(send: Any, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": code, "message": message}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})

"""Who may ask the service: S1, S4, S5 on every route of its OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from hpcft.errors import NotAllowedError, UsageError
from hpcft.web import door
from hpcft.web.app import create_app
from hpcft.web.guard import COOKIE, Access
from hpcft.web.settings import Settings

HPCFT = str(Path(sys.executable).with_name("hpcft"))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@cache
def routes() -> list[tuple[str, str]]:
    """(method, path) of every route, its parameters filled in: a new one is tested by being there."""
    client = TestClient(create_app(Settings(Path("results")), Access()), base_url="http://localhost")
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    found = [(m.upper(), path) for path, methods in paths.items() for m in methods]
    assert len(found) >= 20
    filled = [(m, p.replace("{task_id}", "x").replace("{experiment_id}", "x")) for m, p in found]
    return filled + [(m, p.removeprefix("/api/v1")) for m, p in filled]


# Not in the document, which is for programs.
PAGES = [
    *(("GET", path) for path in ("/", "/submit", "/track", "/records", "/statistics", "/compare?run=x", "/pareto")),
    *(("GET", path) for path in ("/data", "/data/a/b", "/runs/x", "/fragments/track", "/fragments/state/x")),
    *(("GET", path) for path in ("/fragments/curves/x", "/static/style.css", "/api/v1/openapi.json")),
    *(("POST", path) for path in ("/submit", "/submit/check", "/actions/cancel/x", "/actions/mark/x")),
]
FOREIGN = [
    {"host": "evil.example"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "localhost.evil.example:8000"},
    {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
    {"host": ""},
    {"host": "localhost:8000@evil.example"},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:9999"},
    {"origin": "file://"},
    {"origin": "http://localhost:8000.evil.example"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
]


def ask(client: TestClient, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and body of an answer, asked for without the client, which takes longer for it than the service."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "localhost:8000"} | headers
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "root_path": ""}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in given.items()]
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(b"".join(message["body"] for message in sent[1:]))


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_s5_no_foreign_page_gets_an_answer_on_any_route_and_method(client: TestClient, headers: dict[str, str]) -> None:
    for known, path in [*routes(), *PAGES]:
        for method in {known, *METHODS}:
            status, told = ask(client, method, path, headers)
            assert (status, told["error"]) == (403, "FORBIDDEN"), (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1:9"},
        {"host": "[::1]:8000"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
    ids=str,
)
def test_its_own_pages_and_programs_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/experiments", headers=headers).status_code == 200


def test_a_link_is_followed_and_a_form_of_another_site_is_not(client: TestClient) -> None:
    by_form = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.post("/train", json={"config": {}}, headers=by_form).status_code == 403


def test_a_proxy_s_name_is_taken_when_it_is_named(project: Path) -> None:
    app = create_app(Settings(project / "results"), Access(hosts=["ondemand.example"]))
    client = TestClient(app, base_url="http://ondemand.example")
    assert client.get("/experiments", headers={"origin": "http://ondemand.example"}).status_code == 200
    assert client.get("/experiments", headers={"host": "other.example"}).status_code == 403


def test_every_answer_forbids_frames_scripts_and_guessing(client: TestClient) -> None:
    for method, path in [*routes(), *(page for page in PAGES if page[0] == "GET")]:
        for headers in ({}, {"host": "evil.example"}):
            answer = client.request(method, path, headers=headers)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in answer.headers
            # What programs ask for is never taken for a page.
            assert answer.headers["content-type"].startswith("application/json") or not path.startswith("/api/")


def test_read_only_changes_nothing(project: Path) -> None:
    app = create_app(Settings(project / "results"), Access(read_only=True))
    client = TestClient(app, base_url="http://localhost")
    assert client.get("/experiments").status_code == 200
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = client.request(method, "/train", json={"config": {}})
        assert (answer.status_code, answer.json()["error"]) == (403, "READ_ONLY")


# The token of a port.


@pytest.fixture
def by_port(project: Path) -> tuple[TestClient, Access]:
    access = Access(token="the-token")
    app = create_app(Settings(project / "results"), access)
    return TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False), access


def test_s4_without_the_token_nobody_is_let_in(by_port: tuple[TestClient, Access]) -> None:
    client, _ = by_port
    for cookie in ({}, {"cookie": f"{COOKIE}=guess"}, {"cookie": "garbage=;;="}, {"authorization": "Bearer the-token"}):
        for path in ("/experiments", "/api/v1/openapi.json", "/nothing", "/experiments?token=wrong", "/?token="):
            answer = client.get(path, headers=cookie)
            assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
    assert client.post("/train?token=the-token", json={"config": {}}).status_code == 401


def test_s4_the_token_is_good_once_and_turns_into_a_strict_cookie(by_port: tuple[TestClient, Access]) -> None:
    client, _ = by_port
    first = client.get("/experiments?limit=3&token=the-token")
    assert first.status_code == 303
    assert first.headers["location"] == "./experiments?limit=3"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "the-token" not in cookie
    # The client keeps the cookie.
    assert client.get("/experiments").status_code == 200
    client.cookies.clear()
    assert client.get("/experiments?token=the-token").status_code == 401


def test_s5_the_token_redirects_nowhere_else(by_port: tuple[TestClient, Access]) -> None:
    client, access = by_port
    for path in ("//evil.example/", "/\\evil.example"):
        # Without the cookie of the round before, which would open it by itself.
        client.cookies.clear()
        access.token = "again"
        answer = client.get(f"http://127.0.0.1:8000{path}?token=again")
        assert answer.status_code == 303
        # A browser takes a backslash for a slash.
        target = urljoin(f"http://127.0.0.1:8000{path}", answer.headers["location"].replace("\\", "/"))
        assert urlsplit(target).netloc == "127.0.0.1:8000"


# Hostile texts.


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60), st.sampled_from(["name", "model", "where", "tag", "state", "start_date", "sort_by"]))
def test_s1_no_text_in_any_field_is_a_server_error(client: TestClient, text: str, name: str) -> None:
    try:
        answer = client.get("/experiments", params={name: text})
    except UnicodeEncodeError:
        # Half characters cannot be sent.
        return
    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "a/../../b",
        "/etc/passwd",
        "%00",
    ],
)
def test_s2_no_path_leads_out_of_the_results(client: TestClient, project: Path, path: str) -> None:
    (project / "secret").mkdir()
    (project / "secret" / "config.yaml").write_text("variant: lora\n")
    for lead in ("/experiments/", "/task/"):
        assert client.get(lead + path).status_code == 404
        assert client.get(lead + "../secret").status_code == 404


# The door.


@pytest.fixture
def service(project: Path) -> Iterator[Any]:
    running: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [HPCFT, "serve", *words, *(["--force"] if os.geteuid() == 0 else [])]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()


def test_u9_a_socket_that_only_its_user_can_open(service: Any, project: Path) -> None:
    path = project / "run" / "serve.sock"
    process = service("--socket", str(path))
    wait_for(path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = client.get("/api/v1/experiments/stats")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answer.json()["total_experiments"] == 0
        assert "server" not in answer.headers
    # A second one does not take its place.
    second = service("--socket", str(path))
    assert second.wait(30) == 2
    assert "another service listens here" in second.stderr.read()
    process.terminate()
    process.wait(20)
    assert not path.exists()


def test_a_port_is_this_machine_s_own_and_its_token_is_printed_once(service: Any) -> None:
    process = service("--port", "0")
    line = process.stderr.readline()
    address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
    with httpx.Client() as client:
        assert client.get(address.partition("?")[0]).status_code == 401
        first = client.get(address)
        assert first.status_code == 303
        assert "text/html" in client.get(address.partition("?")[0]).headers["content-type"]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be played by root alone")
def test_s4_another_user_on_the_socket_is_hung_up_on(service: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Below /tmp itself, where another user gets to.
    folder = Path("/tmp") / f"hpcft-door-{os.getpid()}"
    path = folder / "serve.sock"
    service("--socket", str(path))
    wait_for(path)
    try:
        # As if the folder had been opened by mistake.
        folder.chmod(0o755)
        path.chmod(0o666)
        program = (
            "import os, socket, sys; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
            f"s.settimeout(10); s.connect({str(path)!r}); "
            "s.sendall(b'GET /api/v1/experiments HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); print(s.recv(100))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "200" not in done.stdout
        assert done.stdout.strip() in ("b''", "") or "ConnectionReset" in done.stderr
        folder.chmod(0o700)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/api/v1/experiments").status_code == 200
    finally:
        folder.chmod(0o700)


def test_s4_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(NotAllowedError, match="others may enter"):
        door.open_socket(folder / "serve.sock")
    with pytest.raises(UsageError, match="bytes"):
        door.open_socket(tmp_path / ("x" * 120) / "serve.sock")


def test_a_socket_of_a_killed_service_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "serve.sock"))
    dead.close()
    door.open_socket(folder / "serve.sock").close()


def test_root_and_contradictions_are_refused(hpcft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    answer = hpcft("serve")
    assert answer.code == 77
    assert "as root" in answer.err
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert hpcft("serve", "--socket", "a", "--port", "1").code == 2
    assert hpcft("serve", "--prefix", "no-slash").code == 2

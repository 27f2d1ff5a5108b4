"""S4: another user of the machine tries the socket, the port and the files of a service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.steering import until
from web import stranger

from hpcft.runs.events import EventLog
from hpcft.runs.files import make_private, write_atomic, write_json
from hpcft.runs.paths import RunPaths

HPCFT = str(Path(sys.executable).with_name("hpcft"))
# What a refusal looks like: of the system, and of the service.
REFUSED = {"EACCES", "EPERM", "EADDRINUSE", "ECONNREFUSED", "ECONNRESET", "EPIPE", "hung up", "400", "401", "403"}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another user can be played by root alone")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user gets to, as a project folder may be; a run in it, made as the tool makes one."""
    folder = Path(tempfile.mkdtemp(prefix="hpcft-stranger-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "home").mkdir(mode=0o755)
    own = folder / "own"
    own.mkdir()
    os.chown(own, stranger.UID, stranger.UID)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("HPCFT_INDEX", str(folder / "home" / "index"))
    paths = RunPaths(folder / "results" / "mine")
    make_private(folder / "results")
    make_private(paths.root)
    write_atomic(paths.config, "variant: lora\n")
    write_json(paths.metrics, {"final/validation_f1_score": 0.5})
    with EventLog(paths.client) as journal:
        journal.append("intent", run_id="k3f9x2m1qa", submission=1, scheduler="slurm", job_name="mine.k3f9x2m1qa")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def service(place: Path) -> Iterator[Any]:
    running: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [HPCFT, "serve", "--force", *words]
        running.append(subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def tried(place: Path, where: str, **about: Any) -> dict[str, str]:
    asked = {"place": where, "own": str(place / "own"), "results": str(place / "results"), **about}
    done = subprocess.run(
        [sys.executable, stranger.__file__], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.stat().st_uid, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def let_in(attempts: dict[str, str]) -> dict[str, str]:
    """Those that were not refused. Of several answers on one connection each counts."""
    return {name: what for name, what in attempts.items() if what not in REFUSED and not set(what.split()) <= REFUSED}


def test_s4_of_sixty_things_that_another_user_tries_none_succeeds(place: Path, service: Any) -> None:
    path = place / "run" / "serve.sock"
    by_socket, by_port = service("--socket", str(path)), service("--port", "0")
    line = by_port.stderr.readline()
    address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
    with httpx.Client() as owner:
        # The owner's browser has used the token.
        assert owner.get(address).status_code == 303
        page, _, used = address.partition("?token=")
        asked = page.removesuffix("/records") + "/experiments"
        assert [row["id"] for row in owner.get(asked).json()] == ["mine"]
        until(path.exists, 60)
        before = snapshot(place / "results")
        port = int(asked.split(":")[2].partition("/")[0])
        attempts = {
            **tried(place, "socket", socket=str(path), pid=by_socket.pid),
            **tried(place, "port", port=port, port_pid=by_port.pid, used=used),
            **tried(place, "files", pid=by_socket.pid),
        }
        # As if the folder had been opened by mistake.
        path.parent.chmod(0o755)
        path.chmod(0o666)
        attempts |= {
            f"{name} at an open door": told for name, told in tried(place, "open door", socket=str(path)).items()
        }
        path.parent.chmod(0o700)
        assert let_in(attempts) == {}
        assert len(attempts) >= 60
        # A refusal of the service is one that the service has spoken: the attempts did reach it.
        assert sum(told.split()[0] in ("400", "401", "403") for told in attempts.values()) >= 25
        assert attempts["ask at an open door"] == "hung up"
        # All is as it was, and its owner is served.
        assert snapshot(place / "results") == before
        assert [row["id"] for row in owner.get(asked).json()] == ["mine"]
        # What all may read of a process is how it was called.
        called = Path(f"/proc/{by_port.pid}/cmdline").read_text()
        assert used not in called
        assert not any(cookie in called for cookie in owner.cookies.values())
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
        assert [row["id"] for row in client.get("/api/v1/experiments").json()] == ["mine"]


def test_s4_the_attempts_themselves_work_where_nobody_forbids_them(place: Path) -> None:
    results = place / "results"
    for folder in (results, results / "mine"):
        folder.chmod(0o777)
    for file in (results / "mine").iterdir():
        file.chmod(0o666)
    told = tried(place, "files", pid=os.getpid())
    worked = {name for name, what in told.items() if what == "done"}
    assert worked >= {
        "list the runs",
        "read config.yaml",
        "write an end marker",
        "add to a journal",
        "put a run beside it",
    }

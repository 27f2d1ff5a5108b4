"""`hpcft sync` while the server is in trouble: it fails in words or comes through, and when it is repeated, everything
is there and nothing twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import wandb
from fakes.wandb_server import CUT, HANG, LOSE, FakeWandb, Request
from tracking.synced_run import Site, wrong
from wandb.errors import AuthenticationError, CommError

from hpcft.errors import DataError, NotAllowedError
from hpcft.runs.run import Run
from hpcft.tracking.upload import explain

Wrong = Callable[[FakeWandb, Request], Any]


def _stream(answer: Any) -> Wrong:
    return lambda server, request: answer if request.operation.endswith("file_stream") else None


def _first(answer: Any, operation: str) -> Wrong:
    """The first of these requests alone."""

    def fault(server: FakeWandb, request: Request) -> Any:
        asked = sum(name.endswith(operation) for _, name in server.requests)
        return answer if request.operation.endswith(operation) and asked == 1 else None

    return fault


def _later(answer: Any) -> Wrong:
    """From when the server has the first points."""
    return lambda server, request: answer if any(run.history for run in server.runs.values()) else None


# What is wrong, and the exit codes that may follow.
TROUBLES: dict[str, tuple[Wrong, set[int]]] = {
    "hangs": (lambda server, request: HANG, {69}),
    "hangs at the points": (_stream(HANG), {69}),
    "hangs when it has the points": (_later(HANG), {69}),
    "answers 500": (lambda server, request: 500, {69}),
    "answers 500 to the points": (_stream(500), {69, 75}),
    "answers 429": (lambda server, request: 429, {69}),
    "answers 401": (lambda server, request: 401, {77}),
    "cuts the line when it has the points": (_later(CUT), {69, 75}),
    "takes the points and cuts the line": (_stream(LOSE), {0, 69, 75}),
    "takes the first points and cuts the line": (_first(LOSE, "file_stream"), {0}),
    "is busy at first": (_first(429, "file_stream"), {0}),
    "refuses the model": (lambda s, request: 500 if request.path.startswith("/storage/") else None, {69}),
    "takes the model and cuts the line": (_first(LOSE, "CommitArtifact"), {0, 69}),
}


@dataclass
class Played:
    """What became of a sync in trouble, and of the one after it."""

    site: Site
    run: Run
    code: int
    said: str
    again: int


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    """One sync for each trouble, some at a time: most of their time is waiting."""
    sites = {}

    def one(name: str) -> Played:
        site = sites[name] = Site(tmp_path_factory.mktemp("site"))
        run = site.written()
        fault = TROUBLES[name][0]
        site.server.fault = lambda request: fault(site.server, request)
        code = site.sync("--timeout", "8")
        assert site.said is not None
        said = site.said.stderr
        site.server.fault = lambda request: None
        return Played(site, run, code, said, site.sync())

    with ThreadPoolExecutor(4) as pool:
        yield dict(zip(TROUBLES, pool.map(one, TROUBLES), strict=True))
    for site in sites.values():
        site.server.close()


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_is_told_in_words_and_by_the_exit_code(played: dict[str, Played], name: str) -> None:
    assert played[name].code in TROUBLES[name][1], played[name].said
    if played[name].code:
        assert "not synced" in played[name].said


@pytest.mark.parametrize("name", TROUBLES)
def test_r13_the_next_sync_completes_it_and_nothing_is_there_twice(played: dict[str, Played], name: str) -> None:
    found = played[name]
    assert found.again == 0, found.site.said
    assert wrong(found.run, found.site.remote(found.run)) == []
    assert [a.committed for a in found.site.server.artifacts].count(True) == 1
    assert not (found.run.paths.wandb / "sync").exists()


def test_a_server_that_is_not_there_is_tried_once_for_many_runs(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for number in range(4):
        site.written(f"run{number}", last=2)
    site.server.close()
    assert site.sync("-j", "1", "--timeout", "6") == 69
    assert site.said is not None
    assert "not tried: 3 of 4 runs" in site.said.stderr


def test_what_is_wrong_with_one_run_keeps_no_other_from_being_sent(tmp_path: Path) -> None:
    site = Site(tmp_path)
    blocked, sound = site.written("a", last=2), site.written("b", last=2)
    # In the way of a file, as a disk that is full or a folder that is read-only.
    blocked.paths.synced.with_suffix(".lock").mkdir(parents=True)
    assert site.sync("-j", "1") == 1
    assert site.said is not None
    assert "a: not synced: cannot sync" in site.said.stderr
    assert "not tried" not in site.said.stderr
    assert wrong(sound, site.remote(sound)) == []
    site.server.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (requests.ConnectionError("HTTPConnectionPool(host='127.0.0.1', port=44010): refused"), 69),
        (requests.ConnectionError("http://127.0.0.1:401/graphql is not there"), 69),
        (requests.HTTPError("401 Client Error: Unauthorized for url: http://127.0.0.1"), 77),
        (CommError("returned error 403: permission denied"), 77),
        (CommError("returned error 500: busy"), 69),
        (CommError("returned error 409: run lab/study/x was previously created and deleted"), 1),
        (AuthenticationError("who are you"), 77),
        (wandb.UsageError("Run name too long"), 1),
        (TimeoutError("timed out"), 69),
        (PermissionError(13, "Permission denied"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyError("401"), 1),
        (NotAllowedError("cannot write: no space left", where="results/mine"), 1),
        (DataError("is damaged"), 65),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_the_server_and_the_login_are_told_as_trouble_of_all_runs(error: Exception, code: int) -> None:
    assert explain(error).exit_code == code


@pytest.mark.parametrize("seed", range(3))
def test_a_sync_that_is_killed_anywhere_can_be_repeated(tmp_path: Path, seed: int) -> None:
    site = Site(tmp_path)
    run = site.written(last=200)
    site.server.fault = lambda request: 0.02
    seen = threading.Event()
    moment = ("UpsertBucket", "file_stream", "CommitArtifact")[seed]

    def fault(request: Request) -> Any:
        if request.operation.endswith(moment):
            seen.set()
        return 0.02

    site.server.fault = fault
    sync = site.start_sync()
    assert seen.wait(30)
    time.sleep(0.01 * seed)
    for process in [psutil.Process(sync.pid), *psutil.Process(sync.pid).children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)
    sync.communicate()
    site.server.fault = lambda request: None
    assert site.sync() == 0, site.said
    assert wrong(run, site.remote(run)) == []
    assert [a.committed for a in site.server.artifacts].count(True) == 1
    site.server.close()

"""A run as it goes, followed by many: what they are told, and what it costs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient
from support.steering import TRAINING, Call, begin, until

from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.web import watch
from hpcft.web.api import stream
from hpcft.web.app import create_app
from hpcft.web.guard import Access
from hpcft.web.settings import Settings
from hpcft.web.watch import Event, Watches, add, shorter

STREAM = "/api/v1/jobs/{}/stream"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_S", 0.05)


def told(text: str) -> list[tuple[str, Any]]:
    """The events of a stream, comments left out."""
    events = [dict(line.split(": ", 1) for line in part.splitlines()) for part in text.strip().split("\n\n")]
    return [(event["event"], json.loads(event["data"])) for event in events if "event" in event]


def steps(paths: RunPaths, numbers: range, attempt: int = 1) -> None:
    paths.attempt(attempt).mkdir(parents=True, exist_ok=True)
    with EventLog(paths.events(attempt)) as log:
        log.append("start", attempt=attempt, resume_step=numbers[0] - 1)
        for step in numbers:
            log.append("step", step=step, loss=1.0 / step, learning_rate=0.1, seconds=0.5, tokens=100)


def test_a_finished_run_is_told_whole_and_ends(client: TestClient, make_run: Call) -> None:
    paths = make_run("group/mine", job_id="1", steps=3, done=True)
    with EventLog(paths.events(1)) as log:
        log.append("validation", step=3, metrics={"validation/loss": 0.5, "validation/accuracy": "nan"})
    paths.batch_log.write_text("one\ntwo, not ended")
    answer = client.get(STREAM.format("group/mine"))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    (first, state), (second, points), (third, lines), (last, end) = told(answer.text)
    assert (first, second, third, last) == ("state", "points", "log", "end")
    assert (state["name"], state["state"]) == ("group/mine", "SUCCESS")
    assert [point["step"] for point in points] == [1, 2, 3, 3]
    assert (points[1]["loss"], points[3]) == (0.5, {"step": 3, "validation/loss": 0.5})
    assert lines == ["one", "two, not ended"]
    assert end == {"state": "SUCCESS", "words": "finished"}


async def next_of(events: AsyncIterator[Event], kind: str) -> Any:
    async for event in events:
        if event.kind == kind:
            return event.data
    raise AssertionError(f"no {kind} came")


def test_what_comes_is_told_until_the_run_is_over(project: Path, submit: Call, fake_slurm: Any, quick: None) -> None:
    paths = submit()
    begin(paths, fake_slurm)
    steps(paths, range(1, 4))
    paths.batch_log.write_text("first\n")

    async def follow() -> None:
        watches = Watches(project / "results")
        async with aclosing(watches.follow(paths.root)) as events:
            assert (await next_of(events, "state"))["state"] == "STARTED"
            assert len(await next_of(events, "points")) == 3
            assert await next_of(events, "log") == ["first"]
            # A second one, later: all of it again.
            async with aclosing(watches.follow(paths.root)) as others:
                assert len(await next_of(others, "points")) == 3
                assert await next_of(others, "log") == ["first"]
                assert len(watches) == 1
                steps(paths, range(4, 6))
                with paths.batch_log.open("a") as log:
                    log.write("second\nthi")
                for each in (events, others):
                    assert [point["step"] for point in await next_of(each, "points")] == [4, 5]
                assert await next_of(others, "log") == ["second"]
            write_json(paths.done, {"step": 5})
            assert await next_of(events, "log") == ["second"]
            assert await next_of(events, "log") == ["thi"]
            assert (await next_of(events, "end"))["state"] == "SUCCESS"
            assert [event async for event in events] == []
        assert len(watches) == 0

    asyncio.run(asyncio.wait_for(follow(), 60))


def test_steps_that_a_later_attempt_did_again_take_the_place_of_the_first() -> None:
    points: list[dict[str, Any]] = []
    add(points, [{"step": step, "loss": 1.0} for step in (1, 2, 3)] + [{"step": 3, "validation/loss": 9.0}])
    add(points, [{"step": step, "loss": 2.0} for step in (2, 3)])
    assert [(point["step"], point["loss"]) for point in points] == [(1, 1.0), (2, 2.0), (3, 2.0)]


def test_a_long_past_is_thinned_and_keeps_spikes_and_validations() -> None:
    points: list[dict[str, Any]] = [{"step": step, "loss": 1.0} for step in range(100_000)]
    points[54_321]["loss"] = 99.0
    points.insert(70_001, {"step": 70_000, "validation/loss": 0.5})
    kept = shorter(points)
    assert len(kept) <= 1000
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {"step": 54_321, "loss": 99.0} in kept
    assert {"step": 70_000, "validation/loss": 0.5} in kept


def test_fifty_streams_are_one_question_to_slurm_and_one_look_a_second_at_each_run(
    project: Path, submit: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [submit(f"run{i}") for i in range(5)]
    for i, paths in enumerate(runs):
        begin(paths, fake_slurm, job_id=i + 1)
    looks: Counter[Path] = Counter()
    look = watch._Eye.look

    def counted(eye: Any) -> list[Event]:
        looks[eye._paths.root] += 1
        return look(eye)

    monkeypatch.setattr(watch._Eye, "look", counted)

    async def follow(watches: Watches, root: Path, seen: list[int]) -> None:
        async for event in watches.follow(root):
            seen.append(event.data["step"] if event.kind == "state" else 0)

    async def all_of_them() -> tuple[int, int, float]:
        watches, seen = Watches(project / "results"), [[] for _ in range(50)]
        before, began = threading.active_count(), time.monotonic()
        tasks = [asyncio.create_task(follow(watches, runs[i % 5].root, seen[i])) for i in range(50)]
        while not all(seen):
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        lasted, threads = time.monotonic() - began, threading.active_count() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return threads, len(watches), lasted

    threads, left, lasted = asyncio.run(asyncio.wait_for(all_of_them(), 120))
    assert len(fake_slurm.calls("squeue")) <= 1 + lasted // 10
    assert len(fake_slurm.calls("sacct")) <= 1 + lasted // 10
    assert threads <= watch._THREADS
    assert left == 0
    assert set(looks) == {paths.root for paths in runs}
    assert max(looks.values()) <= 2 + lasted


def test_a_client_that_does_not_read_is_let_go_and_holds_up_nobody(
    project: Path, make_run: Call, fake_slurm: Any, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_BEHIND", 4)
    paths = make_run("mine", job_id="1", status=TRAINING)

    async def follow() -> None:
        watches = Watches(project / "results")
        async with aclosing(watches.follow(paths.root)) as lazy, aclosing(watches.follow(paths.root)) as eager:
            await anext(lazy)
            await anext(eager)
            for step in range(1, 12):
                write_json(paths.status, {"attempt": 1, "time": time.time(), **TRAINING, "step": step % 9})
                while (await next_of(eager, "state"))["step"] != step % 9:
                    pass
            assert len([event async for event in lazy]) <= 4

    asyncio.run(asyncio.wait_for(follow(), 60))


# Over a connection


@pytest.fixture
def service(
    project: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[httpx.Client, Watches, uvicorn.Server]]:
    """The service on a port, in a thread, and the runs that are followed there."""
    watches = Watches(project / "results")
    monkeypatch.setattr(stream, "Watches", lambda _: watches)
    app = create_app(Settings(project / "results"), Access())
    config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started, 60)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client, watches, server
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def test_a_stream_has_a_sign_of_life_and_stops_when_the_client_hangs_up(
    service: Any, make_run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, watches, _ = service
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.3)
    make_run("mine", job_id="1", status=TRAINING)
    with client.stream("GET", STREAM.format("mine")) as answer:
        lines = answer.iter_lines()
        assert "event: state" in lines
        assert len(watches) == 1
        assert any(line.startswith(": ") for line in lines)
    until(lambda: len(watches) == 0, 30)


def test_the_service_ends_while_a_run_is_followed(service: Any, make_run: Call) -> None:
    client, watches, server = service
    make_run("mine", job_id="1", status=TRAINING)
    with client.stream("GET", STREAM.format("mine")) as answer:
        assert "event: state" in answer.iter_lines()
        server.should_exit = True
        until(lambda: len(watches) == 0, 30)


def test_s5_a_page_of_another_site_follows_nothing(client: TestClient, make_run: Call) -> None:
    make_run("mine", job_id="1", done=True)
    for headers in (
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"host": "evil.example"},
    ):
        answer = client.get(STREAM.format("mine"), headers=headers)
        assert answer.status_code == 403
        assert "SUCCESS" not in answer.text

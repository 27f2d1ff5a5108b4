"""wandb in trouble: the job never notices, ends in time, and everything is on disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes.wandb_server import HANG, FakeWandb
from tracking.job import figures
from tracking.played import Played, end_job, start_job

# What is wrong with the server (a status, or a delay), from when on, and other options of the job. Those that take
# longest come first.
TROUBLES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "hangs, and the job goes on": (HANG, "start", {"init_timeout_s": 3.0, "pause": 0.25}),
    # Steps that last, so that there is a run of wandb's before the trouble begins, on a busy machine too.
    "hangs later": (HANG, "stream", {"pause": 0.2}),
    "answers 500 later": (500, "stream", {"pause": 0.2}),
    "hangs": (HANG, "start", {}),
    "refuses": ("refuse", "start", {}),
    "answers 500": (500, "start", {}),
    "answers 429": (429, "start", {}),
    "slow": (0.2, "start", {}),
    "none": (None, "start", {}),
}
NEVER_THERE = ["hangs", "hangs, and the job goes on", "refuses", "answers 500", "answers 429"]
LOST_LATER = ["hangs later", "answers 500 later"]
REFUSED = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    """One job for each trouble, two at a time: most of their time is waiting, and wandb has seconds for its start."""
    servers = {}

    def one(name: str) -> Played:
        trouble, since, options = TROUBLES[name]
        server = servers[name] = FakeWandb()
        if trouble != "refuse":
            server.fault = lambda request: trouble if since == "start" or request.streaming else None
        root = tmp_path_factory.mktemp("job")
        url = REFUSED if trouble == "refuse" else server.url
        return end_job(root, server, start_job(root, url, "online", **options))

    with ThreadPoolExecutor(2) as pool:
        played = dict(zip(TROUBLES, pool.map(one, TROUBLES), strict=True))
    yield played
    for server in servers.values():
        server.close()


@pytest.mark.parametrize("name", TROUBLES)
def test_the_job_succeeds_and_its_process_ends_at_most_10_s_after_its_last_step(
    jobs: dict[str, Played], name: str
) -> None:
    job = jobs[name]
    assert job.code == 0, job.said
    assert job.result["finish_s"] <= 10.0
    assert job.over - (job.result["end"] - job.result["finish_s"]) <= 10.5, job.said
    assert "Traceback" not in job.said


@pytest.mark.parametrize("name", TROUBLES)
def test_every_point_is_on_disk_for_a_later_sync(jobs: dict[str, Played], name: str) -> None:
    recorded = jobs[name].recorded()
    assert recorded.history == [{**figures(step), "step": step} for step in range(1, 41)]
    assert recorded.summary["final/validation_f1_score"] == 0.5
    assert recorded.exit_code == 0
    assert recorded.torn is None


@pytest.mark.parametrize("name", NEVER_THERE)
def test_a_server_that_cannot_be_had_means_offline_and_the_report_says_so(jobs: dict[str, Played], name: str) -> None:
    report = jobs[name].report
    assert report["mode"] == "offline"
    assert report["finished"]
    assert report["dropped"] == 0
    assert "going on offline" in report["error"]
    assert Path(report["folder"]).name.startswith("offline-run-")
    assert [a.name for a in jobs[name].recorded().artifacts] == ["model-lora-ptq"]


@pytest.mark.parametrize("name", LOST_LATER)
def test_a_server_that_is_lost_later_is_given_up_and_the_report_says_so(jobs: dict[str, Played], name: str) -> None:
    report = jobs[name].report
    assert report["mode"] == "online"
    assert not report["finished"]
    assert "was cut off" in report["error"]


@pytest.mark.parametrize("name", ["none", "slow"])
def test_a_server_that_answers_has_everything_in_the_end(jobs: dict[str, Played], name: str) -> None:
    job = jobs[name]
    report = job.report
    assert (report["mode"], report["finished"], report["dropped"], report["error"]) == ("online", True, 0, None)
    assert job.server.runs["r7"].points() == [{**figures(step), "step": step} for step in range(1, 41)]
    assert job.server.unknown == []


@pytest.mark.parametrize("name", TROUBLES)
def test_s3_no_planted_secret_is_in_wandbs_files_in_the_output_or_in_a_sent_body(
    jobs: dict[str, Played], name: str
) -> None:
    assert jobs[name].leaks() == []


@pytest.mark.parametrize("name", TROUBLES)
def test_nobody_else_may_read_what_wandb_writes(jobs: dict[str, Played], name: str) -> None:
    assert jobs[name].exposed() == []


def test_the_trouble_is_told_once(jobs: dict[str, Played]) -> None:
    assert jobs["refuses"].said.split('{"report"')[0].count("going on offline") == 1
    assert jobs["none"].said.split('{"report"')[0].split() == [str(step) for step in range(1, 41)]

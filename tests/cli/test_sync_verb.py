"""The verb `hpcft sync`: what it shows, its exit codes, and when `--watch` ends. What arrives is tested elsewhere."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from hpcft.cluster.poll import Poll
from hpcft.runs.files import write_json
from hpcft.tracking.sync import Due, Outcome

Call = Callable[..., Any]
SENT = {"url": "https://server/run", "points": 5, "sent": 5, "rescued": 0, "waiting": 0, "redone": 0, "system": 0}
SENT |= {"model": False, "complete": True, "note": ""}
LONG_AGO = "2026-01-01T00:00:00"
SILENT = {"state": "training", "step": 5, "total_steps": 9, "time": 1.0}


class Uploads:
    """Stands for the processes that send.

    Attributes:
        code: how each of them ends.
        rounds: of each call the runs that were to be sent, and whether they had ended.
    """

    def __init__(self) -> None:
        self.code = 0
        self.rounds: list[dict[str, bool]] = []

    def send(self, dues: Sequence[Due], *, parallel: int, timeout_s: float | None, tell: Call) -> list[Outcome]:
        """What `tracking.sync.send` does."""
        self.rounds.append({due.run.name: due.ended for due in dues})
        outcomes = []
        for due in dues:
            sent = {**SENT, "run": due.run.name, "complete": due.ended}
            failed = Outcome(due.run, None, "it is said why", "and what to do", self.code)
            outcomes.append(failed if self.code else Outcome(due.run, sent))
            tell(outcomes[-1])
            if self.code in (69, 77):
                break
        return outcomes


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    made = Uploads()
    monkeypatch.setattr("hpcft.tracking.sync.send", made.send)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    return made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`happens`: what is done in the pauses of a `--watch`, in turn; `slept`: their seconds, which take no time."""
    happens: list[Callable[[], object]] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert happens, "it goes on for ever"
        happens.pop(0)()

    monkeypatch.setattr("hpcft.cli.sync.time", SimpleNamespace(sleep=sleep, time=time.time))
    # Slurm may be asked again at each look.
    monkeypatch.setattr("hpcft.cluster.poll.Poll", partial(Poll, clock=lambda: time.time() + 3600 * len(slept)))
    yield SimpleNamespace(happens=happens, slept=slept)
    assert not happens, "it ended too early"


def queued(make_run: Call, fake_slurm: Any) -> None:
    """A run whose heartbeat is old, and whose job Slurm knows."""
    script = fake_slurm.folder.parent / "job.sh"
    script.write_text("#!/bin/sh\n#SBATCH --job-name=mine.k3f9x2m1qa\n")
    subprocess.run(["sbatch", str(script)], check=True, capture_output=True)
    make_run("mine", run_id="k3f9x2m1qa", steps=5, job_id="1", status=SILENT)


def test_a_preview_shows_what_would_be_sent_and_needs_no_login(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    # One point for each tracking.log_every steps.
    make_run("mine", steps=20, done=True, job_id="1")
    make_run("unbegun", job_id="2")
    shown = hpcft("sync", "--dry-run")
    assert shown.code == 0
    head, mine, unbegun = shown.out.splitlines()
    assert head.split() == ["run", "to", "send", "points", "model", "project", "what"]
    assert mine.split()[:3] == ["mine", "1", "1"]
    assert unbegun.endswith("it has not begun")
    told = json.loads(hpcft("sync", "--dry-run", "--json").out)["runs"]
    assert [row["run"] for row in told] == ["mine", "unbegun"]
    assert set(told[0]) == {
        "run", "run_id", "project", "entity", "job_type", "points", "to_send", "waiting", "model", "ended", "why_not",
    }  # fmt: skip
    assert (told[0]["points"], told[0]["ended"], told[0]["why_not"]) == (1, True, None)


def test_what_became_of_each_run_is_one_document(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads
) -> None:
    make_run("mine", steps=5, done=True, job_id="1")
    make_run("sweep/0000", steps=5, done=True, job_id="2")
    make_run("unbegun", job_id="3")
    done = hpcft("sync", "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert [row["run"] for row in told["runs"]] == ["mine", "sweep/0000"]
    assert set(told["runs"][0]) == {*SENT, "run"}
    assert told["left_out"] == {"unbegun": "it has not begun"}
    assert told["not_tried"] == []
    assert "mine: 5 of 5 points sent" in done.err


@pytest.mark.parametrize("code", [1, 69, 75, 77])
def test_the_exit_code_is_that_of_the_gravest_trouble(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, code: int
) -> None:
    make_run("a", steps=5, done=True, job_id="1")
    make_run("b", steps=5, done=True, job_id="2")
    uploads.code = code
    done = hpcft("sync", "--json")
    assert done.code == code
    told = json.loads(done.out)
    assert told["runs"][0] == {"run": "a", "error": "it is said why", "code": code}
    assert told["not_tried"] == (["b"] if code in (69, 77) else [])
    shown = hpcft("sync")
    assert "not synced" in shown.out
    assert "and what to do" in shown.err


def test_without_a_login_nothing_is_tried(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("mine", steps=5, done=True, job_id="1")
    monkeypatch.delenv("WANDB_API_KEY")
    done = hpcft("sync")
    assert (done.code, "wandb login" in done.err, uploads.rounds) == (77, True, [])


def test_a_run_that_cannot_be_read_is_told_and_the_others_are_sent(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads
) -> None:
    make_run("mine", steps=5, done=True, job_id="1").synced.mkdir(parents=True)
    make_run("sound", steps=5, done=True, job_id="2")
    done = hpcft("sync")
    assert "mine: cannot be read" in done.err
    assert list(uploads.rounds[0]) == ["sound"]


def test_runs_are_chosen_by_name_group_id_and_age(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads
) -> None:
    make_run("old", steps=5, done=True, job_id="11", age_s=3 * 86400)
    make_run("new", steps=5, done=True, job_id="12")
    make_run("sweep/0000", steps=5, done=True, job_id="13_0")
    for words, names in (
        (["sweep", "11"], ["0000", "old"]),
        (["--since", "2d"], ["new", "0000"]),
        ([], ["new", "old", "0000"]),
    ):
        uploads.rounds.clear()
        assert hpcft("sync", *words).code == 0
        assert list(uploads.rounds[0]) == names
    assert hpcft("sync", "nosuch").code == 2
    assert hpcft("sync", "--since", "yesterdayish").code == 2
    assert hpcft("sync", "--results", "elsewhere").code == 2


def test_watch_ends_when_slurm_says_that_the_job_will_not_go_on(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, pauses: Any
) -> None:
    queued(make_run, fake_slurm)
    fake_slurm.set_state(1, "RUNNING")
    pauses.happens += [
        # It is preempted, waits, and goes on: no end.
        lambda: fake_slurm.set_state(1, "PENDING", reason="BeginTime"),
        lambda: fake_slurm.set_state(1, "RUNNING"),
        lambda: fake_slurm.set_state(1, "FAILED", end=LONG_AGO, exit_code="1:0"),
    ]
    done = hpcft("sync", "--watch", "--every", "7", "--json")
    assert done.code == 0
    assert [round["mine"] for round in uploads.rounds] == [False, False, False, True]
    assert pauses.slept == [7, 7, 7]
    # What the rounds have sent is one sum.
    assert json.loads(done.out)["runs"][0]["sent"] == 20


def test_watch_goes_on_while_slurm_does_not_answer(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, pauses: Any
) -> None:
    queued(make_run, fake_slurm)
    fake_slurm.set_state(1, "FAILED", end=LONG_AGO)
    fake_slurm.fault(controller="down", accounting="down")
    pauses.happens += [lambda: None, lambda: fake_slurm.fault(controller=None, accounting=None)]
    assert hpcft("sync", "--watch").code == 0
    assert [round["mine"] for round in uploads.rounds] == [False, False, True]


def test_watch_asks_a_server_that_is_away_less_and_less_often_and_a_refused_login_never_again(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, pauses: Any
) -> None:
    make_run("mine", steps=5, done=True, job_id="1")
    uploads.code = 69
    pauses.happens += [lambda: None, lambda: None, lambda: None, lambda: setattr(uploads, "code", 0)]
    assert hpcft("sync", "--watch", "--every", "60").code == 0
    assert pauses.slept == [120, 240, 480, 600]
    uploads.code = 77
    assert hpcft("sync", "--watch").code == 77


@pytest.mark.parametrize("code", [1, 65, 78])
def test_watch_ends_when_all_that_is_left_cannot_be_mended_by_another_try(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, pauses: Any, code: int
) -> None:
    paths = make_run("mine", steps=5, job_id="1", status={**SILENT, "time": time.time()})
    uploads.code = code
    pauses.happens += [lambda: write_json(paths.done, {"step": 5})]
    assert hpcft("sync", "--watch", "--every", "7").code == code
    assert pauses.slept == [7]


def test_trials_that_are_made_while_it_watches_are_sent_too(
    hpcft: Call, make_run: Call, fake_slurm: Any, uploads: Uploads, pauses: Any
) -> None:
    paths = make_run("sweep/0000", steps=5, job_id="1", status={**SILENT, "time": time.time()})

    def next_trial() -> None:
        write_json(paths.done, {"step": 5})
        make_run("sweep/0001", steps=5, done=True, job_id="2")

    pauses.happens += [next_trial]
    assert hpcft("sync", "sweep", "--watch").code == 0
    assert [list(round) for round in uploads.rounds] == [["0000"], ["0000", "0001"]]

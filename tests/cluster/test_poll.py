"""Slurm is asked rarely: one answer for all processes of a user, with its age, whatever Slurm does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hpcft.cluster.poll import Poll
from hpcft.cluster.queue import JobState
from hpcft.cluster.slurm import Answer

START = 1_000_000.0


class Slurm:
    """squeue and sacct as two texts, and a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START
        self.queue: dict[str, str] = {}
        self.accounting: dict[str, str] = {}
        self.expected: dict[str, str] = {}
        self.queue_error = ""
        self.accounting_error = ""
        self.calls: list[tuple[float, str]] = []

    def clock(self) -> float:
        return self.now

    def __call__(self, command: list[str]) -> Answer:
        self.calls.append((self.now, command[0]))
        table, error = (
            (self.queue, self.queue_error) if command[0] == "squeue" else (self.accounting, self.accounting_error)
        )
        if error:
            return Answer(1, "", f"{command[0]}: error: {error}\n")
        third = "None" if command[0] == "squeue" else "0:0"
        lines = [
            f"{job}|{state}|{third}|{self.expected.get(job, 'N/A')}|N/A|N/A||run.k{job}" for job, state in table.items()
        ]
        if command[0] == "sacct":
            wanted = command[-1].partition("=")[2].split(",")
            lines = [line for line in lines if line.partition("|")[0] in wanted]
        return Answer(0, "\n".join(lines) + "\n", "")

    def count(self, command: str) -> int:
        return sum(name == command for _, name in self.calls)


@pytest.fixture
def slurm() -> Slurm:
    return Slurm()


@pytest.fixture
def poll(slurm: Slurm, tmp_path: Path) -> Callable[[], Poll]:
    """Another process that looks."""
    return lambda: Poll(tmp_path / "cache", slurm.clock, slurm)


def test_g6_many_processes_ask_once_in_ten_seconds(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "RUNNING"}
    pages = [poll() for _ in range(20)]
    for second in range(60):
        slurm.now = START + second
        slurm.queue["1"] = "RUNNING" if second % 20 < 10 else "PENDING"
        for page in pages:
            page.look(["1"])
            assert page.of("1").state in (JobState.RUNNING, JobState.PENDING)
    times = [at for at, _ in slurm.calls]
    assert len(times) <= 6
    assert min(b - a for a, b in pairwise(times)) >= 10


def test_g6_thousands_of_jobs_that_change_all_the_time_cost_seventy_calls_an_hour(
    slurm: Slurm, poll: Callable[[], Poll]
) -> None:
    page = poll()
    ids = [str(n) for n in range(4_000)]
    slurm.queue = dict.fromkeys(ids, "RUNNING")
    for second in range(0, 3600, 5):
        slurm.now = START + second
        slurm.queue[ids[second]] = "COMPLETED"
        slurm.queue.pop(ids[max(0, second - 300)], None)
        page.look(ids)
    assert len(slurm.calls) <= 70


def test_it_is_asked_less_often_while_nothing_changes(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "RUNNING"}
    page = poll()
    for second in range(3600):
        slurm.now = START + second
        page.look(["1"])
    assert slurm.count("squeue") <= 70
    slurm.queue = {"1": "COMPLETED"}
    slurm.now += 60
    page.look(["1"])
    assert page.of("1").state is JobState.COMPLETED


def test_a_jobs_end_is_kept_when_squeue_has_forgotten_it(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "FAILED"}
    poll().look(["1"])
    slurm.queue = {}
    slurm.now += 60
    page = poll()
    page.look(["1"])
    found = page.of("1")
    assert (found.state, found.seen_final) == (JobState.FAILED, START)
    assert slurm.count("sacct") == 0


def test_a_job_that_left_unseen_is_looked_for_in_accounting_once(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.accounting = {"1": "TIMEOUT"}
    page = poll()
    for _ in range(20):
        page.look(["1"])
        assert page.of("1").state is JobState.TIMEOUT
        slurm.now += 30
    assert slurm.count("sacct") == 1


def test_accounting_that_is_behind_is_asked_again(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.accounting = {"1": "RUNNING"}
    page = poll()
    page.look(["1"])
    assert page.of("1").state is JobState.RUNNING
    slurm.accounting = {"1": "COMPLETED"}
    slurm.now += 30
    page.look(["1"])
    assert page.of("1").state is JobState.COMPLETED


def test_trap_accounting_off_is_no_failure_and_is_not_asked_again_and_again(
    slurm: Slurm, poll: Callable[[], Poll]
) -> None:
    slurm.accounting_error = "Slurm accounting storage is disabled"
    page = poll()
    for _ in range(100):
        page.look(["1"])
        slurm.now += 10
    found = page.of("1")
    assert (found.state, found.answered) == (JobState.UNKNOWN, True)
    assert slurm.count("sacct") <= 4


def test_with_sacct_only_states_are_known(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue_error = "command not found"
    slurm.accounting = {"1": "RUNNING"}
    page = poll()
    page.look(["1"])
    assert page.of("1").state is JobState.RUNNING
    slurm.accounting = {"1": "FAILED"}
    slurm.now += 300
    page.look(["1"])
    assert page.of("1").state is JobState.FAILED


def test_with_neither_a_job_is_unknown_and_the_reason_is_told(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue_error, slurm.accounting_error = "Unable to contact slurm controller (connect failure)", "refused"
    page = poll()
    page.look(["1"])
    found = page.of("1")
    assert (found.state, found.answered) == (JobState.UNKNOWN, False)
    assert "Unable to contact" in page.trouble


def test_an_old_answer_is_kept_and_marked_while_the_controller_is_away(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "RUNNING"}
    page = poll()
    page.look(["1"])
    slurm.queue_error = "Socket timed out on send/recv operation"
    slurm.accounting_error = "Connection refused"
    for _ in range(60):
        slurm.now += 10
        page.look(["1"])
    found = page.of("1")
    assert (found.state, found.answered, found.as_of) == (JobState.RUNNING, False, START)
    # Ten minutes of trouble: asked ever more rarely.
    assert slurm.count("squeue") <= 8


def test_trap_a_job_that_was_queued_again_after_its_end_is_in_the_queue(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "FAILED"}
    page = poll()
    page.look(["1"])
    slurm.queue = {"1": "PENDING"}
    slurm.now += 60
    page.look(["1"])
    assert page.of("1").state is JobState.PENDING
    slurm.queue = {}
    slurm.accounting = {"1": "COMPLETED"}
    slurm.now += 60
    page.look(["1"])
    assert page.of("1").state is JobState.COMPLETED


def test_g6_a_controller_that_has_never_answered_is_asked_less_and_less_often(
    slurm: Slurm, poll: Callable[[], Poll]
) -> None:
    slurm.queue_error = slurm.accounting_error = "Unable to contact slurm controller"
    pages = [poll() for _ in range(3)]
    for second in range(1200):
        slurm.now = START + second
        for page in pages:
            page.look(["1"])
    times = [at for at, name in slurm.calls if name == "squeue"]
    pauses = [b - a for a, b in pairwise(times)]
    assert len(times) <= 8
    assert pauses == sorted(pauses)
    assert not pages[0].of("1").answered


def test_news_cuts_a_grown_pause_short(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "RUNNING"}
    page = poll()
    for second in range(600):
        slurm.now = START + second
        page.look(["1"])
    before = slurm.count("squeue")
    slurm.now += 15
    slurm.queue["2"] = "PENDING"
    page.look(["1", "2"])
    assert page.of("2").state is JobState.PENDING
    assert slurm.count("squeue") == before + 1


def test_a_file_that_is_damaged_or_cannot_be_written_is_done_without(
    slurm: Slurm, tmp_path: Path, poll: Callable[[], Poll]
) -> None:
    slurm.queue = {"1": "RUNNING"}
    poll().look(["1"])
    file = next((tmp_path / "cache").glob("*.json"))
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("{")
    slurm.now += 20
    page = poll()
    page.look(["1"])
    assert page.of("1").state is JobState.RUNNING
    (tmp_path / "in the way").write_text("")
    alone = Poll(tmp_path / "in the way", slurm.clock, slurm)
    for _ in range(5):
        alone.look(["1"])
    assert alone.of("1").state is JobState.RUNNING
    assert slurm.count("squeue") == 3


def test_two_clusters_of_one_home_do_not_share_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hpcft.cluster.poll import cluster_key

    keys = set()
    for name in ("alpha", "beta"):
        (tmp_path / f"{name}.conf").write_text(f"# comment\nClusterName={name}\n")
        monkeypatch.setenv("SLURM_CONF", str(tmp_path / f"{name}.conf"))
        keys.add(cluster_key())
    assert len(keys) == 2


def test_a_waiting_job_has_a_place_among_the_user_s_own(slurm: Slurm, poll: Callable[[], Poll]) -> None:
    slurm.queue = {"1": "RUNNING", "2": "PENDING", "3": "PENDING", "4": "PENDING"}
    slurm.expected = {"3": "2026-11-30T10:00:00", "4": "2026-11-30T09:00:00"}
    one = poll()
    one.look(["2"])
    assert [one.place(job) for job in ("4", "3", "2")] == [(1, 3), (2, 3), (3, 3)]
    assert one.place("1") is one.place("9") is None

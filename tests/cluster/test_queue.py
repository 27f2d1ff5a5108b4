"""Slurm's answers, parsed: real samples, and anything at all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.cluster.queue import Jobs, JobState, ask, ask_local, parse_moment, parse_state, start_time

SAMPLES = Path(__file__).parent.parent / "data" / "slurm"


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


def test_a_waiting_jobs_reason_and_expected_start_are_told() -> None:
    jobs = Jobs("5|PENDING|Resources|2026-11-20T20:57:49|N/A|2026-11-20T20:47:50||mine.k3f9x2m1qa\n")
    job = jobs.get("5")
    assert job is not None
    assert (job.state, job.reason, job.start) == (JobState.PENDING, "Resources", parse_moment("2026-11-20T20:57:49"))
    assert job.end is None


def test_real_answers_are_read() -> None:
    jobs = Jobs(sample("jobs_in_squeue"))
    requeued, ragged = jobs.by_key("k3f9x2m1qa"), jobs.by_key("r1t8y6o3ic")
    assert requeued is not None
    assert requeued.is_active
    assert requeued.name == "größe|x.k3f9x2m1qa"
    assert ragged is not None
    base = ragged.job_id.partition("_")[0]
    assert [n for n in range(100) if f"{base}_{n}" in jobs] == [*range(0, 41, 2), 41, 43, 90]
    held = jobs.by_key("h2j5n8q1zr")
    assert held is not None
    assert held.state is JobState.CANCELLED


def test_tasks_of_an_array_are_told_apart() -> None:
    jobs = Jobs(sample("jobs_in_squeue"))
    base = next(row for row in jobs if "[" in row and jobs.line(row).endswith("s7d2k9p4ax")).partition("_")[0]
    states = {n: jobs.state(f"{base}_{n}") for n in range(10)}
    assert JobState.RUNNING in states.values()
    assert states[9] is JobState.PENDING
    # One waiting task was cancelled: Slurm has no line of its own for it any more.
    assert [n for n, state in states.items() if state is JobState.UNKNOWN] == [7]
    assert f"{base}_10" not in jobs
    cancelled = Jobs(sample("cancelled_array_in_sacct"))
    assert cancelled.state(f"{base}_9") is JobState.CANCELLED


def test_trap_a_long_list_of_waiting_tasks_that_slurm_cut_short_hides_none() -> None:
    jobs = Jobs("7_[1,3,5-9,...%4]|PENDING|Priority|N/A|N/A|N/A||sweep.abc\n")
    assert jobs.state("7_5000") is JobState.PENDING


def test_trap_of_a_requeued_jobs_rows_the_last_one_counts_and_the_others_are_its_restarts() -> None:
    jobs = Jobs(sample("attempts_in_sacct"), counts_restarts=True)
    job = next(jobs.get(row) for row in jobs if jobs.line(row).endswith("k3f9x2m1qa"))
    assert job is not None
    assert job.restarts == 1
    assert job.is_active


def test_trap_a_job_id_that_is_used_again_is_told_by_the_runs_id_in_the_name() -> None:
    text = "7|FAILED|1:0|N/A|N/A|2026-01-01T00:00:00|node1|old.aaaaaaaaaa\n"
    text += "7|COMPLETED|0:0|N/A|N/A|2026-06-01T00:00:00|node1|new.bbbbbbbbbb\n"
    jobs = Jobs(text, counts_restarts=True)
    old, new = jobs.get("7", "aaaaaaaaaa"), jobs.get("7", "bbbbbbbbbb")
    assert old is not None
    assert new is not None
    assert (old.state, new.state) == (JobState.FAILED, JobState.COMPLETED)
    assert old.restarts == 0


def test_who_cancelled_a_job_and_with_which_code_it_ended_is_kept() -> None:
    job = Jobs("8|CANCELLED by 1000|0:15|N/A|N/A|N/A|None assigned|a.b\n").get("8")
    assert job is not None
    assert (job.state, job.cancelled_by, job.exit_code, job.nodes) == (JobState.CANCELLED, "1000", "0:15", "")


@given(st.text(), st.text())
def test_any_answer_is_parsed_without_an_error(text: str, wanted: str) -> None:
    jobs = Jobs(text, counts_restarts=True)
    for job_id in [wanted, *jobs]:
        jobs.get(job_id, wanted)
        assert jobs.state(job_id) in JobState
    jobs.by_key(wanted)
    assert parse_state(text) in JobState
    parse_moment(text)


_TASKS = st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True)


@given(_TASKS, st.integers(1, 9))
def test_a_list_of_tasks_has_those_and_no_others(tasks: list[int], limit: int) -> None:
    jobs = Jobs(f"7_[{','.join(map(str, sorted(tasks)))}%{limit}]|PENDING|x|N/A|N/A|N/A||a.b\n")
    assert {n for n in range(301) if f"7_{n}" in jobs} == set(tasks)


def test_thousands_of_scattered_waiting_tasks_are_looked_up_in_no_time() -> None:
    tasks = ",".join(str(n) for n in range(0, 20_000, 2))
    jobs = Jobs(f"7_[{tasks}]|PENDING|x|N/A|N/A|N/A||a.b\n")
    began = time.monotonic()
    assert sum(f"7_{n}" in jobs for n in range(20_000)) == 10_000
    assert time.monotonic() - began < 5


def test_more_jobs_than_one_command_takes_are_asked_about_in_several(
    fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(10**9 + n) for n in range(15_000)]
    found = ask(ids)
    assert list(found) == ids
    assert all(info.answered for info in found.values())
    fake_slurm.fault(controller="down", accounting="down")
    asked = len(fake_slurm.calls("squeue"))
    assert not any(info.answered for info in ask(ids).values())
    assert len(fake_slurm.calls("squeue")) == asked + 1


def test_when_the_controller_does_not_answer_that_is_said(fake_slurm: Any) -> None:
    fake_slurm.fault(controller="down", accounting="down")
    job = ask(["7"])["7"]
    assert (job.state, job.answered) == (JobState.UNKNOWN, False)
    fake_slurm.fault(controller=None, accounting=None)
    job = ask(["7"])["7"]
    assert (job.state, job.answered) == (JobState.UNKNOWN, True)


def test_a_local_job_is_told_from_a_later_process_of_the_same_number() -> None:
    pid = os.getpid()
    assert ask_local(f"{pid}-{start_time(pid)}").state is JobState.RUNNING
    assert ask_local(f"{pid}-1").is_final
    assert ask_local("nonsense").is_final

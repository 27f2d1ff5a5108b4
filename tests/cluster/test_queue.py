"""Slurm's answers, parsed: real samples, and anything at all."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hpcft.cluster.queue import JobState, ask_local, parse_sacct, parse_squeue, parse_state, start_time

SAMPLES = Path(__file__).parent.parent / "data" / "slurm"


def test_states_of_real_samples() -> None:
    text = (SAMPLES / "squeue_format.txt").read_text()
    shortened = "\n".join("|".join([*line.split("|")[:2], "None", ""]) for line in text.splitlines())
    states = {job: info.state for job, info in parse_squeue(shortened).items()}
    assert states["4"] is JobState.RUNNING
    assert states["5"] is JobState.PENDING
    assert "6_[0-9%2]" in states


def test_of_a_requeued_jobs_rows_the_last_one_counts() -> None:
    rows = "7|REQUEUED|node1|0:0\n7|COMPLETED|node2|0:0\n7.batch|FAILED|node1|1:0\n8|CANCELLED by 1000|None|0:0\n"
    found = parse_sacct(rows)
    assert found["7"].state is JobState.COMPLETED
    assert found["8"].state is JobState.CANCELLED
    assert set(found) == {"7", "8"}


@given(st.text())
def test_any_answer_is_parsed_without_an_error(text: str) -> None:
    parse_squeue(text)
    parse_sacct(text)
    assert parse_state(text) in JobState


def test_a_local_job_is_told_from_a_later_process_of_the_same_number() -> None:
    pid = os.getpid()
    assert ask_local(f"{pid}-{start_time(pid)}").state is JobState.RUNNING
    assert ask_local(f"{pid}-1").is_final
    assert ask_local("nonsense").is_final

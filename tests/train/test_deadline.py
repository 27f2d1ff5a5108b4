"""The time limit is known without a signal, and saving begins in time for what it took before."""

from __future__ import annotations

import time

from hpcft.train.deadline import Deadline, end_of_job


def test_without_an_end_it_is_never_near() -> None:
    assert not Deadline(None, 10.0, 120).near
    assert end_of_job({}) is None
    assert end_of_job({"SLURM_JOB_END_TIME": ""}) is None
    assert end_of_job({"SLURM_JOB_END_TIME": "1795000000"}) == 1795000000.0


def test_a_signal_that_comes_in_time_comes_first() -> None:
    deadline = Deadline(time.time() + 120, None, 120)
    assert not deadline.near
    deadline.saved(10.0)
    assert not deadline.near


def test_it_is_near_when_one_more_step_and_a_save_might_not_fit() -> None:
    deadline = Deadline(time.time() + 100, None, 120)
    assert not deadline.near
    deadline.stepped(25.0)
    assert deadline.near


def test_it_learns_that_saves_take_longer_than_the_signal_was_asked_for() -> None:
    deadline = Deadline(time.time() + 600, 300.0, 120)
    assert not deadline.near
    deadline.saved(400.0)
    assert deadline.near
    assert deadline.needed_s == 605.0


def test_one_slow_step_is_forgotten_again() -> None:
    deadline = Deadline(None, 0.0, 120)
    deadline.stepped(100.0)
    for _ in range(60):
        deadline.stepped(1.0)
    assert deadline.needed_s == 7.0

"""One attempt at a time: a second one is refused while another lives, and a stale one writes nothing."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hpcft.errors import SecondAttemptError
from hpcft.runs.attempt import Attempt, Holder, holder_of, require_newest
from hpcft.runs.create import begin_attempt
from hpcft.runs.paths import RunPaths
from hpcft.train.finish import mark_done
from hpcft.train.recorder import Recorder


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


def left_by(paths: RunPaths, holder: Holder, silent_s: float = 0) -> None:
    """An attempt of another process, which did not end by itself."""
    number = begin_attempt(paths)
    paths.holder(number).write_text(json.dumps(asdict(holder)))
    paths.pulse(number).touch()
    os.utime(paths.pulse(number), (time.time() - silent_s,) * 2)


def elsewhere(job_id: str | None = None) -> Holder:
    return Holder("node9", "another boot", 4711, 1.0, job_id)


def test_attempts_are_numbered_and_say_who_holds_them(paths: RunPaths) -> None:
    first = Attempt(paths)
    assert first.number == 1
    holder = holder_of(paths, 1)
    assert holder is not None
    assert (holder.pid, holder.lives()) == (os.getpid(), True)
    first.end()
    assert not paths.pulse(1).exists()
    second = Attempt(paths)
    assert second.number == 2
    second.end()


def test_while_one_lives_on_this_machine_a_second_is_refused_at_once(paths: RunPaths) -> None:
    first = Attempt(paths)
    with pytest.raises(SecondAttemptError, match=f"attempt 1 of this run is alive .*process {os.getpid()}"):
        Attempt(paths)
    assert paths.attempt_numbers() == [1]
    first.end()


def test_one_whose_process_is_gone_is_dead_at_once(paths: RunPaths) -> None:
    # The number is this process's, of another one that had it before.
    left_by(paths, replace(Holder.this(), began=1.0))
    Attempt(paths).end()
    left_by(paths, replace(Holder.this(), pid=2**22 + 1))
    Attempt(paths).end()


def test_on_another_machine_it_is_its_pulse_that_counts(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(paths, elsewhere(), silent_s=300)
    Attempt(paths).end()
    left_by(paths, elsewhere())

    def beat(_: float) -> None:
        os.utime(paths.pulse(3))

    monkeypatch.setattr("hpcft.runs.attempt.time.sleep", beat)
    with pytest.raises(SecondAttemptError, match="on node9, process 4711"):
        Attempt(paths)


def test_one_that_falls_silent_while_it_is_watched_is_dead(paths: RunPaths) -> None:
    left_by(paths, elsewhere())
    began = time.monotonic()
    Attempt(paths, silent_s=1.0).end()
    assert 0.9 < time.monotonic() - began < 10


def test_a_requeued_job_s_next_start_does_not_wait(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(paths, elsewhere(job_id="17"))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    Attempt(paths).end()
    left_by(paths, elsewhere(job_id="16"))
    monkeypatch.setattr("hpcft.runs.attempt.time.sleep", lambda _: os.utime(paths.pulse(3)))
    with pytest.raises(SecondAttemptError, match="Slurm job 16"):
        Attempt(paths)


def test_fencing_a_stale_attempt_writes_neither_heartbeat_nor_end_marker(paths: RunPaths) -> None:
    recorder = Recorder(paths, begin_attempt(paths), 20)
    recorder.status("training", step=3)
    before = paths.status.read_text()
    require_newest(paths, 1, "go on")
    begin_attempt(paths)
    with pytest.raises(SecondAttemptError):
        recorder.status("training", step=4)
    with pytest.raises(SecondAttemptError):
        mark_done(paths, 1, 4, {})
    recorder.close()
    assert paths.status.read_text() == before
    assert not paths.done.exists()

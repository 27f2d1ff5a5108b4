"""`hpcft cancel` and `requeue`: which run is meant, what is done, and what is written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.steering import STOPPED, TRAINING, Call, begin, noted, until

from hpcft.cluster import steer
from hpcft.cluster.queue import ask_local, start_time
from hpcft.runs.events import EventLog, read_log
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import submissions

# Which run is meant


@pytest.mark.parametrize("text", ["mine", "k3f9x2m1qa", "k3f9", "4711", "results/mine", "min"])
def test_a_run_is_named_by_its_name_run_id_job_id_path_or_a_unique_beginning(
    hpcft: Call, make_run: Call, fake_slurm: Any, text: str
) -> None:
    make_run("mine", run_id="k3f9x2m1qa", job_id="4711", done=True)
    make_run("other", run_id="z3f9x2m1qa", job_id="4811", done=True)
    assert hpcft("cancel", text).out == "mine: left alone: finished\n"


@pytest.mark.parametrize("verb", ["cancel", "requeue", "resume"])
def test_a_beginning_that_fits_two_runs_is_told_and_nothing_is_done(
    hpcft: Call, submit: Call, fake_slurm: Any, verb: str
) -> None:
    submit("study-a"), submit("study-b")
    done = hpcft(verb, "study")
    assert done.code == 2
    assert "'study' fits 2 runs: study-a, study-b" in done.err
    assert [job["state"] for job in fake_slurm.jobs()] == ["PENDING", "PENDING"]
    assert fake_slurm.submissions == 2


def test_one_name_that_is_wrong_among_several_cancels_none(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    submit()
    done = hpcft("cancel", "mine", "nosuch")
    assert done.code == 2
    assert fake_slurm.job(1)["state"] == "PENDING"


# Cancel


def test_a_cancelled_job_is_gone_and_who_did_it_stands_in_the_journal(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    paths = submit()
    done = hpcft("cancel", "mine", "--json")
    assert done.code == 0
    assert json.loads(done.out) == [{"name": "mine", "done": True, "words": "cancelled job 1"}]
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")
    record = read_log(paths.client).records[-1]
    assert (record["kind"], record["job_id"]) == ("cancelled", "1")
    assert record["by"]
    assert hpcft("status", "mine").out == f"mine: CANCELLED, cancelled by {record['by']}\n"


def test_a_pipeline_or_sweep_is_cancelled_by_its_name_with_one_call_and_what_is_over_is_left(
    hpcft: Call, make_run: Call, submit: Call, fake_slurm: Any
) -> None:
    submit("group/job1"), submit("group/job2")
    make_run("group/job3", job_id="77", done=True)
    submit("apart")
    done = hpcft("cancel", "group")
    assert done.code == 0
    assert sorted(done.out.splitlines()) == [
        "group/job1: cancelled job 1",
        "group/job2: cancelled job 2",
        "group/job3: left alone: finished",
    ]
    assert fake_slurm.calls("scancel") == [["1", "2"]]
    assert fake_slurm.job(3)["state"] == "PENDING"


def test_of_a_sweep_its_arrays_end_with_the_trials_that_have_not_started(
    hpcft: Call, make_run: Call, fake_slurm: Any, tmp_path: Path
) -> None:
    script = tmp_path / "array.sh"
    script.write_text("#!/bin/sh\n#SBATCH --array=0-3\n")
    subprocess.run(["sbatch", str(script)], check=True, capture_output=True)
    make_run("sweep/0000", job_id="1_0", status=TRAINING)
    sweep = RunPaths(Path("results/sweep").absolute())
    with EventLog(sweep.client) as journal:
        journal.append("intent", submission=1, run_id="s3f9x2m1qa", scheduler="slurm")
        journal.append("submitted", submission=1, job_id="1")
    (sweep.root / "manifest.jsonl").touch()
    done = hpcft("cancel", "sweep")
    assert done.code == 0, done.err
    assert "sweep: cancelled array 1" in done.out
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")
    assert noted(sweep) == ["submitted", "cancelled"]


@pytest.mark.parametrize("over", [{"done": True}, {"status": {"state": "failed", "message": "no such file"}}])
def test_a_run_that_is_over_is_left_alone_and_that_is_no_error(
    hpcft: Call, make_run: Call, fake_slurm: Any, over: dict[str, Any]
) -> None:
    paths = make_run("mine", job_id="1", **over)
    done = hpcft("cancel", "mine")
    assert (done.code, "left alone" in done.out) == (0, True)
    assert fake_slurm.calls("scancel") == []
    assert noted(paths) == ["submitted"]


@pytest.mark.parametrize("controller", ["down", "timed_out"])
@pytest.mark.parametrize("words", [["cancel", "mine"], ["requeue", "mine"], ["requeue", "mine", "--now"]])
def test_a_controller_that_does_not_answer_is_an_error_and_nothing_is_told_as_done(
    hpcft: Call, submit: Call, fake_slurm: Any, words: list[str], controller: str
) -> None:
    paths = submit()
    begin(paths, fake_slurm)
    fake_slurm.fault(controller=controller)
    done = hpcft(*words)
    assert done.code == 69
    assert "Slurm d" in done.err
    assert "try again" in done.err
    assert done.out == ""
    assert noted(paths) == ["submitted"]
    fake_slurm.fault(controller=None)
    assert fake_slurm.job(1)["state"] == "RUNNING"
    assert hpcft("cancel", "mine").code == 0
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")


def test_what_was_cancelled_before_slurm_fell_silent_is_noted(
    hpcft: Call, submit: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit("group/job1"), submit("group/job2")
    monkeypatch.setattr("hpcft.cluster.queue._AT_ONCE", 1)
    cancelling = steer.scancel

    def once(ids: list[str]) -> None:
        if fake_slurm.calls("scancel"):
            fake_slurm.fault(controller="down")
        cancelling(ids)

    monkeypatch.setattr(steer, "scancel", once)
    assert hpcft("cancel", "group").code == 69
    assert (noted(first), noted(second)) == (["submitted", "cancelled"], ["submitted"])


def test_a_job_that_sbatch_never_confirmed_is_found_and_cancelled(
    hpcft: Call, submit: Call, make_run: Call, fake_slurm: Any
) -> None:
    paths = submit()
    paths.client.write_bytes(paths.client.read_bytes().splitlines(keepends=True)[0])
    assert [s.kind for s in submissions(paths)] == ["intent"]
    assert hpcft("cancel", "mine").out == "mine: cancelled job 1\n"
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")


def test_a_local_run_is_asked_to_stop_and_is_not_taken_for_a_failure(
    hpcft: Call, make_run: Call, sleeper: subprocess.Popen[bytes]
) -> None:
    job_id = f"{sleeper.pid}-{start_time(sleeper.pid)}"
    make_run("here", job_id=job_id, scheduler="local", status=TRAINING)
    assert hpcft("cancel", "here").out == "here: stops as soon as it has saved\n"
    assert sleeper.wait(10) == -signal.SIGTERM
    status = hpcft("status", "here").out
    assert status.startswith("here: CANCELLED")
    assert "cancelled by" in status
    assert "left alone" in hpcft("cancel", "here").out


def test_a_local_run_of_another_machine_is_named_with_it(
    hpcft: Call, make_run: Call, sleeper: subprocess.Popen[bytes]
) -> None:
    job_id = f"{sleeper.pid}-{start_time(sleeper.pid)}"
    paths = make_run("there", job_id=job_id, scheduler="local", status=TRAINING)
    paths.client.write_bytes(b"")
    with EventLog(paths.client) as journal:
        journal.append("intent", submission=1, run_id="k3f9x2m1qa", scheduler="local", cluster="local", host="login7")
        journal.append("submitted", submission=1, job_id=job_id)
    assert "it was started on login7; cancel it there" in hpcft("cancel", "there").out
    assert sleeper.poll() is None


# Ctrl-C in an allocation

# Like srun it is what the ranks can be reached by. No shell script: dash loses a signal that comes as it starts a
# command.
SRUN = """#!{python} -S
import os, signal, sys, time
def got(number, frame):
    with open(os.environ["SIGNALS"], "a") as file:
        file.write(signal.Signals(number).name[3:] + "\\n")
    if number == signal.SIGQUIT or {saves}:
        sys.exit(137 if number == signal.SIGQUIT else 75)
for number in (signal.SIGUSR2, signal.SIGQUIT):
    signal.signal(number, got)
open(os.environ["SIGNALS"], "a").close()
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize(("times", "got"), [(1, "USR2"), (2, "QUIT")])
def test_ctrl_c_in_an_allocation_reaches_the_ranks_and_a_second_one_ends_them(
    hpcft: Call, fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, got: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN.format(python=sys.executable, saves=times == 1))
    (tmp_path / "bin" / "srun").chmod(0o700)
    signals = tmp_path / "signals"
    allocation = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1"}
    for name, value in {"SIGNALS": str(signals), **allocation}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    waits: list[str] = []

    def wait(launched: Any) -> None:
        waits.append(launched.submitted.job_id)
        until(lambda: signals.exists() and (len(waits) == 1 or signals.read_text()))
        if len(waits) <= times:
            raise KeyboardInterrupt

    monkeypatch.setattr("hpcft.cli.launch.wait", wait)
    done = hpcft("run", "--preset", "quickstart", "--name", "inside", "--cluster", "slurm")
    assert (done.code, "Ctrl-C again ends it at once" in done.err) == (0 if times == 1 else 130, True)
    until(lambda: ask_local(waits[0]).is_final)
    assert signals.read_text().split()[-1] == got


# Requeue


def test_a_job_that_trains_saves_first_and_one_that_hangs_is_queued_again_at_once(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    paths = submit()
    begin(paths, fake_slurm)
    done = hpcft("requeue", "mine")
    assert done.code == 0, done.err
    assert "job 1 saves and is queued again" in done.out
    assert fake_slurm.calls("scancel") == [["--signal=USR2", "1"]]
    assert fake_slurm.job(1)["restarts"] == 0
    done = hpcft("requeue", "mine", "--now")
    assert done.out == "mine: job 1 is queued again, from its newest checkpoint\n"
    assert (fake_slurm.job(1)["restarts"], fake_slurm.job(1)["state"]) == (1, "PENDING")
    assert [r["saves_first"] for r in read_log(paths.client).records if r["kind"] == "requeued"] == [True, False]
    assert fake_slurm.submissions == 1


def test_what_cannot_be_queued_again_says_why_and_what_to_do_instead(
    hpcft: Call, make_run: Call, submit: Call, fake_slurm: Any
) -> None:
    make_run("finished", job_id="8", done=True)
    make_run("forgotten", job_id="9", status=STOPPED)
    submit("waits")
    for name, words in {
        "finished": "finished has finished; there is nothing left to do",
        "forgotten": "hpcft resume forgotten",
        "waits": "job 1 of waits is in the queue already",
    }.items():
        done = hpcft("requeue", name)
        assert done.code == 2
        assert words in done.err
    assert fake_slurm.job(1)["restarts"] == 0


def test_a_cancelled_job_that_is_queued_again_is_not_cancelled_any_more(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    submit()
    hpcft("cancel", "mine")
    assert hpcft("requeue", "mine").code == 0
    assert hpcft("status", "mine").out.startswith("mine: PENDING")

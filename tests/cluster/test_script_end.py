"""The end of the batch script: after 75 the job goes on, and after a failure that another try may mend, unless somebody
cancelled it.

What `scontrol show job` says in each case was read from a cluster at the moment when srun had returned.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcft.cluster.profile import Profile
from hpcft.cluster.render import render
from hpcft.runs.paths import RunPaths
from hpcft.spec.job import Job

RUNNING = "JobState=RUNNING Reason=None Requeue=1 Restarts=0"
PREEMPTED_WITH_GRACE = RUNNING + " PreemptEligibleTime=2026-11-20T21:23:33 PreemptTime=2026-11-20T21:23:39"
PREEMPTED_AT_ONCE = PREEMPTED_WITH_GRACE.replace("RUNNING", "COMPLETING")
TIME_LIMIT = "JobState=COMPLETING Reason=TimeLimit Requeue=1 Restarts=0"
CANCELLED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=0"
CANCELLED_PREEMPTIBLE = CANCELLED + " PreemptEligibleTime=2026-11-20T21:23:33 PreemptTime=None"


def end(
    tmp_path: Path, code: int, job: str, requeue: str = "exit 0", retry: int = 1, srun: str = "", **environment: str
) -> tuple[int, list[str]]:
    """Run the script where srun ends with `code`, and the question whether to try again with `retry`; its exit code,
    and what it asked for."""
    bin_, calls = tmp_path / "bin", tmp_path / "calls"
    bin_.mkdir()
    calls.write_text("")
    show = f'case "$1 $2" in "show job") echo "{job}"; exit;; "show hostnames") echo node1; exit;; esac'
    stubs = {
        "srun": srun or f"exit {code}",
        "sleep": f'echo "sleep $1" >> "{calls}"',
        "squeue": "echo 2026-11-21T07:44:01",
        "python": f'echo "$*" >> "{calls}"; exit {retry}',
        "scontrol": f'{show}\necho "$*" >> "{calls}"\n{requeue}',
    }
    for name, body in stubs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_ / name).chmod(0o700)
    paths = RunPaths(tmp_path)
    paths.script.write_text(
        render(Job(), Profile.model_validate({"name": "site", "python": str(bin_ / "python")}), paths, "k3f9x2m1qa")
    )
    own = {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node1",
        "CALLS": str(calls),
    }
    done = subprocess.run(
        ["bash", str(paths.script)], env=own | environment, capture_output=True, text=True, check=False
    )
    return done.returncode, [line for line in calls.read_text().splitlines() if line != "sleep 0"]


@pytest.mark.parametrize("job", [RUNNING, PREEMPTED_WITH_GRACE, PREEMPTED_AT_ONCE, TIME_LIMIT, ""])
def test_a_job_that_saved_goes_on(tmp_path: Path, job: str) -> None:
    assert end(tmp_path, 75, job) == (75, ["requeue 7"])


@pytest.mark.parametrize("job", [CANCELLED, CANCELLED_PREEMPTIBLE])
def test_a_job_that_was_cancelled_stays_cancelled(tmp_path: Path, job: str) -> None:
    assert end(tmp_path, 75, job) == (75, [])


def test_a_job_that_has_finished_is_left_alone(tmp_path: Path) -> None:
    assert end(tmp_path, 0, RUNNING) == (0, [])


@pytest.mark.parametrize("code", [1, 78, 137])
def test_after_another_failure_it_is_asked_whether_another_try_may_help(tmp_path: Path, code: int) -> None:
    question = f"-P -m hpcft.cluster.retry {tmp_path} {code}"
    for retry, then in ((1, []), (0, ["requeue 7"])):
        folder = tmp_path / str(retry)
        folder.mkdir()
        asked = question.replace(str(tmp_path), str(folder))
        assert end(folder, code, RUNNING, retry=retry) == (code, [asked, *then])


@pytest.mark.parametrize("job", [CANCELLED, CANCELLED_PREEMPTIBLE])
def test_a_failure_of_a_job_that_was_cancelled_stays_one(tmp_path: Path, job: str) -> None:
    assert end(tmp_path, 137, job, retry=0)[1] == [f"-P -m hpcft.cluster.retry {tmp_path} 137"]


@pytest.mark.parametrize(("given", "expected"), [("", "1795247041"), ("1795000000", "1795000000")])
def test_the_ranks_learn_when_their_time_is_over(tmp_path: Path, given: str, expected: str) -> None:
    (tmp_path / "job").mkdir()
    own = {"TZ": "UTC", **({"SLURM_JOB_END_TIME": given} if given else {})}
    _, calls = end(tmp_path / "job", 1, RUNNING, srun='echo "end $SLURM_JOB_END_TIME" >> "$CALLS"; exit 1', **own)
    assert calls[0] == f"end {expected}"


def test_a_controller_that_is_away_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    code, calls = end(tmp_path, 75, "", requeue="exit 1")
    assert code == 75
    assert calls == ["requeue 7", "sleep 10", "requeue 7", "sleep 30", "requeue 7"]


def test_in_an_allocation_nothing_is_queued_again(tmp_path: Path) -> None:
    assert end(tmp_path, 75, RUNNING, HPCFT_FOREGROUND="1") == (75, [])
    (tmp_path / "again").mkdir()
    assert end(tmp_path / "again", 1, RUNNING, retry=0, HPCFT_FOREGROUND="1") == (1, [])

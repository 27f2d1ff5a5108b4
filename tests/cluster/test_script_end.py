"""The end of the batch script: after 75 the job goes on, unless somebody cancelled it.

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


def end(tmp_path: Path, code: int, job: str, requeue: str = "exit 0", **environment: str) -> tuple[int, list[str]]:
    """Run the script where srun ends with `code`; its exit code, and the requeues that it asked for."""
    bin_, calls = tmp_path / "bin", tmp_path / "calls"
    bin_.mkdir()
    calls.write_text("")
    show = f'case "$1 $2" in "show job") echo "{job}"; exit;; "show hostnames") echo node1; exit;; esac'
    stubs = {
        "srun": f"exit {code}",
        "sleep": f'echo "sleep $1" >> "{calls}"',
        "scontrol": f'{show}\necho "$*" >> "{calls}"\n{requeue}',
    }
    for name, body in stubs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_ / name).chmod(0o700)
    paths = RunPaths(tmp_path)
    paths.script.write_text(render(Job(), Profile.model_validate({"name": "site"}), paths, "k3f9x2m1qa"))
    own = {"PATH": f"{bin_}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"}
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


@pytest.mark.parametrize("code", [0, 1, 78, 137])
def test_other_endings_are_endings(tmp_path: Path, code: int) -> None:
    assert end(tmp_path, code, RUNNING) == (code, [])


def test_a_controller_that_is_away_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    code, calls = end(tmp_path, 75, "", requeue="exit 1")
    assert code == 75
    assert calls == ["requeue 7", "sleep 10", "requeue 7", "sleep 30", "requeue 7"]


def test_in_an_allocation_nothing_is_queued_again(tmp_path: Path) -> None:
    assert end(tmp_path, 75, RUNNING, HPCFT_FOREGROUND="1") == (75, [])

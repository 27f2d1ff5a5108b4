"""`hpcft drill` on a real cluster: its verdict on the settings as they are, and on those that cost jobs their life."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HPCFT = str(Path(sys.executable).with_name("hpcft"))
PROFILE = """\
scheduler: slurm
resources: {accelerator: cpu, time: "00:10:00", cpus_per_task: 1, mem_gb: 3, account: acme, partition: low}
env: {OMP_NUM_THREADS: "1"}
"""
REFUSES = """\
#!/bin/sh
[ "$1" = requeue ] && {{ echo "slurm_requeue: Access/permission denied for job $2" >&2; exit 1; }}
exec {scontrol} "$@"
"""
SIGNAL = ("SlurmctldParameters=preempt_send_user_signal", "PreemptParameters=send_user_signal")
LOW = "PriorityTier=1 PreemptMode=REQUEUE GraceTime=30"
Drill = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def drill(slurm_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Drill:
    """`hpcft drill` in a folder that every node sees, with a profile for CPU ranks in the preemptible partition."""
    if not hasattr(slurm_cluster, "pid"):
        pytest.skip("this needs a cluster whose settings are ours to change")
    site = tmp_path_factory.mktemp("drill")
    (site / "lab.yaml").write_text(PROFILE)
    # A site that lets nobody queue a job again.
    (site / "bin").mkdir()
    refuses = site / "bin/scontrol"
    refuses.write_text(REFUSES.format(scontrol=shutil.which("scontrol")))
    refuses.chmod(0o700)
    path = f"{refuses.parent}{os.pathsep}{os.environ['PATH']}"
    (site / "never.yaml").write_text(PROFILE.replace('"1"}', f'"1", PATH: "{path}"}}'))

    def call(*words: str, profile: str = "lab.yaml") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"HPCFT_CLUSTER": profile, "OMP_NUM_THREADS": "1"}
        command = [HPCFT, "drill", "--minutes", "12", *words]
        return subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=900)

    return call


@contextmanager
def slurm_conf(cluster: Any, *changes: tuple[str, str]) -> Iterator[None]:
    """Change lines of slurm.conf, and let the controller read it; as it was afterwards."""
    path = cluster.root / "etc/slurm.conf"
    before = path.read_text()
    text = before
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    try:
        path.write_text(text)
        subprocess.run(["scontrol", "reconfigure"], check=True, capture_output=True)
        yield
    finally:
        path.write_text(before)
        subprocess.run(["scontrol", "reconfigure"], check=True, capture_output=True)


def signal_off(cluster: Any) -> tuple[str, str]:
    text = (cluster.root / "etc/slurm.conf").read_text()
    return next(line for line in SIGNAL if line in text), ""


def test_the_settings_alone_are_told_in_seconds(drill: Drill) -> None:
    done = drill("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "By its settings this cluster lets jobs survive preemption and the time limit. Not tried" in done.stdout
    assert "to change" not in done.stdout
    assert "REQUEUE" in done.stdout
    assert "not preempted" in drill("--dry-run", "--partition", "debug").stdout


def test_each_setting_that_was_switched_off_is_named_with_the_line_to_change(drill: Drill, slurm_cluster: Any) -> None:
    signal = signal_off(slurm_cluster)
    cancel = (LOW, LOW.replace("REQUEUE", "CANCEL"))
    for change, names, line in (
        (("JobRequeue=1", "JobRequeue=0"), "JobRequeue", "slurm.conf, by the site: JobRequeue=1"),
        (signal, signal[0].partition("=")[0], f"slurm.conf, by the site: {signal[0]}"),
        (cancel, "PreemptMode of low", "profile: resources.partition, one whose PreemptMode is REQUEUE or OFF"),
    ):
        with slurm_conf(slurm_cluster, change):
            done = drill("--dry-run")
        assert done.returncode == 0, done.stderr
        assert f"  {line}" in done.stdout.partition("to change:\n")[2]
        assert f"with what is said of {names}." in done.stdout


@pytest.mark.slow
def test_a_drill_says_in_three_minutes_that_jobs_survive(drill: Drill, slurm_cluster: Any) -> None:
    slurm_cluster.wait_idle()
    alone = os.getloadavg()[0] < 1
    began = time.monotonic()
    done = drill()
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "the signal reaches the ranks         ok  saved at step",
        "the job is queued again and goes on  ok  at step",
        "scontrol requeue from outside        ok  at step",
        "each step is done and recorded once  ok  300 steps",
        "the losses are those of the twin     ok  the same to the last bit",
        "the weights are those of the twin    ok  bit for bit",
        "the time limit                       ok  at step",
    ):
        assert line in done.stdout
    assert "Jobs survive preemption and the time limit here." in done.stdout
    assert "Traceback" not in done.stderr
    # Beside other work on this machine a job's start alone may take a minute.
    assert seconds < 180 or not alone
    slurm_cluster.wait_idle()


@pytest.mark.slow
def test_with_requeue_and_the_signal_off_it_says_so_and_that_jobs_survive_all_the_same(
    drill: Drill, slurm_cluster: Any
) -> None:
    signal = signal_off(slurm_cluster)
    with slurm_conf(slurm_cluster, ("JobRequeue=1", "JobRequeue=0"), signal):
        done = drill("--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {check["ok"] for check in told["checks"]} == {True}
    minded = [finding["setting"] for finding in told["settings"] if finding["level"] == "mind"]
    assert minded == ["JobRequeue", signal[0].partition("=")[0]]


@pytest.mark.slow
def test_a_job_that_is_never_queued_again_does_not_survive_and_the_verdict_comes_soon(drill: Drill) -> None:
    done = drill(profile="never.yaml")
    assert done.returncode == 1
    assert "Jobs do not survive everything here; the first reason:" in done.stdout
    assert "shaken ended as FAILED before the second attempt: it had saved, and was not queued again" in done.stdout
    assert "slurm_requeue: Access/permission denied" in done.stdout
    assert "kept:" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr

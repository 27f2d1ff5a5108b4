"""The cluster of this folder is what the other Slurm tests take it for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import AS_ROOT, DAEMONS, LONGEST_ROOT, ClusterError, SlurmCluster
from machine import temporary_folder


@pytest.fixture(autouse=True)
def _own_cluster(slurm_cluster: object) -> None:
    if not isinstance(slurm_cluster, SlurmCluster):
        pytest.skip("tests the cluster of cluster.py, and another one is used")


@pytest.fixture
def second_root() -> Path:
    return Path(tempfile.mkdtemp(prefix="hpcft-", dir=temporary_folder(LONGEST_ROOT - 20)))


def call(*command: str, cwd: Path | None = None) -> str:
    """Output of a command that must succeed."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()


def refusal(*command: str) -> str:
    """Error output of a command that must fail."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    return answer.stderr


def submit(folder: Path, script: str, *options: str) -> str:
    """Submit a batch script that writes to `out` in its folder; gives its job id."""
    (folder / "job.sh").write_text(f"#!/bin/bash\n{script}\n")
    return call("sbatch", "--parsable", "--output=out", "--open-mode=append", *options, "job.sh", cwd=folder)


def wait_for(condition: Callable[[], object], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


def recorded(job: str) -> list[str]:
    """States of a job's attempts in the accounting database."""
    return call("sacct", "-X", "-D", "-n", "-P", "-j", job, "-o", "State").split()


def said(folder: Path) -> list[str]:
    """What a job of `submit` wrote, without what Slurm adds to a log."""
    out = folder / "out"
    lines = out.read_text().splitlines() if out.exists() else []
    return [line for line in lines if not line.startswith("slurmstepd")]


def test_both_nodes_are_idle(slurm_cluster: SlurmCluster) -> None:
    slurm_cluster.wait_idle()
    nodes = call("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T %c %m %G").splitlines()
    assert nodes == [f"node{i} idle 4 16000 gpu:h100:4" for i in (1, 2)]
    assert call("sinfo", "-h", "-o", "%P").split() == ["debug*", "gpu", "low"]


def test_srun_starts_four_ranks_on_two_nodes(slurm_cluster: SlurmCluster) -> None:
    show = 'echo "$SLURM_PROCID $SLURMD_NODENAME $(hostname) $CUDA_VISIBLE_DEVICES"'
    lines = call("srun", "-N2", "--ntasks-per-node=2", "--gpus-per-node=2", "sh", "-c", show).splitlines()
    ranks, nodes, hosts, gpus = zip(*(line.split() for line in lines), strict=True)
    assert sorted(ranks) == ["0", "1", "2", "3"]
    assert sorted(nodes) == ["node1", "node1", "node2", "node2"]
    assert hosts == nodes if AS_ROOT else set(hosts) == {socket.gethostname()}
    assert set(gpus) == {"0,1"}


@pytest.mark.skipif(not os.access("/etc/hosts", os.W_OK), reason="/etc/hosts is not ours to write")
def test_node_names_resolve_for_master_addr(slurm_cluster: SlurmCluster) -> None:
    assert socket.gethostbyname("node1") == "127.0.77.1"
    assert socket.gethostbyname("node2") == "127.0.77.2"


def test_a_batch_job_is_completed_in_accounting(slurm_home: Path) -> None:
    job = submit(slurm_home, "echo done", "--account=acme")
    wait_for(lambda: recorded(job) == ["COMPLETED"])
    assert said(slurm_home) == ["done"]


def test_a_job_that_exits_75_can_requeue_itself(slurm_home: Path) -> None:
    script = 'echo "attempt ${SLURM_RESTART_COUNT:-0}"\n' + (
        'if [ -z "$SLURM_RESTART_COUNT" ]; then scontrol requeue "$SLURM_JOB_ID"; exit 75; fi'
    )
    job = submit(slurm_home, script, "--requeue")
    wait_for(lambda: recorded(job)[-1:] == ["COMPLETED"])
    assert said(slurm_home) == ["attempt 0", "attempt 1"]
    assert recorded(job) == ["REQUEUED", "COMPLETED"]


def test_preemption_sends_the_signal_that_the_job_asked_for(slurm_home: Path) -> None:
    script = "trap 'echo warned; exit 0' USR2\necho up\nsleep 60 & wait"
    job = submit(slurm_home, script, "--partition=low", "-N2", "--exclusive", "--signal=B:USR2@60")
    wait_for(lambda: said(slurm_home) == ["up"])
    call("srun", "-N2", "--exclusive", "true")
    assert said(slurm_home) == ["up", "warned"]
    call("scancel", job)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--partition=nope", "invalid partition specified: nope"),
        ("--account=nope", "Invalid account or account/partition combination specified"),
        ("--qos=nope", "Invalid qos specification"),
        ("--nodes=3", "Node count specification invalid"),
        ("--gres=gpu:v100:1", "Requested node configuration is not available"),
        ("--time=2-0", "Requested time limit is invalid"),
        ("--qos=short --time=10", "QOSMaxWallDurationPerJobLimit"),
    ],
)
def test_what_cannot_run_is_refused_at_submission(slurm_cluster: SlurmCluster, option: str, words: str) -> None:
    assert words in refusal("sbatch", *option.split(), "--wrap=true")


def test_start_leaves_a_running_cluster_alone(slurm_cluster: SlurmCluster) -> None:
    before = [slurm_cluster.pid(daemon) for daemon in DAEMONS]
    slurm_cluster.start()
    assert all(before)
    assert [slurm_cluster.pid(daemon) for daemon in DAEMONS] == before


def test_a_node_out_of_service_and_a_dead_daemon_are_mended(
    slurm_cluster: SlurmCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    call("scontrol", "update", "nodename=node1", "state=drain", "reason=a-test")
    slurmd = slurm_cluster.pid("node2")
    assert slurmd is not None
    os.kill(slurmd, signal.SIGKILL)
    slurm_cluster.heal()
    slurm_cluster.wait_idle()
    assert "a-test" in capfd.readouterr().err
    assert slurm_cluster.pid("node2") not in (None, slurmd)


def test_stop_leaves_nothing_behind(second_root: Path) -> None:
    cluster = SlurmCluster(second_root)
    cluster.start()
    environment = os.environ | cluster.env()
    try:
        # A job that ignores SIGTERM.
        job = ["sbatch", "--wrap", "trap '' TERM; while :; do sleep 1; done", "--output=/dev/null"]
        subprocess.run(job, env=environment, check=True, capture_output=True)
        wait_for(lambda: "RUNNING" in subprocess.check_output(["squeue", "-o%T"], env=environment, text=True))
        processes = [cluster.pid(daemon) for daemon in DAEMONS]
    finally:
        cluster.stop()
    assert not second_root.exists()
    assert str(second_root) not in Path("/etc/hosts").read_text()
    assert all(processes)
    mine = f"SLURM_CONF={second_root}/etc/slurm.conf"
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            assert mine not in environ.read_text(errors="replace"), environ
        except OSError:  # another process that has ended
            continue


def test_a_daemon_that_does_not_start_is_named_with_its_log(second_root: Path) -> None:
    cluster = SlurmCluster(second_root)
    (second_root / "cluster.json").write_text('{"port": 31000}')
    (second_root / "munge").mkdir()
    (second_root / "munge/key").write_bytes(b"too short")
    with pytest.raises(ClusterError) as error:
        cluster.start()
    assert f"munged ended with code 1\n{second_root}/log/munged.log ends with:" in str(error.value)
    assert "key" in str(error.value).lower()
    assert str(second_root) not in Path("/etc/hosts").read_text()
    cluster.stop()
    assert not second_root.exists()


def test_a_folder_of_other_things_is_neither_used_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    short = Path(tempfile.mkdtemp(dir="/tmp")) / "link"
    short.symlink_to(tmp_path)
    for verb in (SlurmCluster(short).start, SlurmCluster(short).stop):
        with pytest.raises(ClusterError, match="not a folder that this command made"):
            verb()
    assert (tmp_path / "thesis.tex").exists()
    short.unlink()
    short.parent.rmdir()

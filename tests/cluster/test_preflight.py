"""A job held against its partition, its user and its folders, by what Slurm and the file system say."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fakes.fixtures import FakeSlurm

from hpcft.cluster import preflight
from hpcft.cluster.admission import admission_findings, ask_sbatch, read_admission
from hpcft.cluster.findings import Finding, Light
from hpcft.cluster.folders import clock, existing, file_system, locks, read_quota, space, umask, writable
from hpcft.cluster.gpus import gpu_memory
from hpcft.cluster.preflight import hold, partition_findings, read_partitions
from hpcft.cluster.profile import Profile
from hpcft.cluster.slurm import Answer
from hpcft.spec.job import Job, ResourcesSection

SAMPLES = Path(__file__).parents[1] / "data/slurm"
SHOW = (SAMPLES / "scontrol_show_partition.txt").read_text()
NODES = (SAMPLES / "sinfo_kinds.txt").read_text()


def asked(**values: object) -> ResourcesSection:
    return ResourcesSection.model_validate({"accelerator": "cpu", "time": "01:00:00", **values})


def reds(found: list[Finding]) -> list[str]:
    return [f.check for f in found if f.light is Light.RED]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    preflight._ask.cache_clear()


@pytest.mark.parametrize(
    ("values", "check", "mend"),
    [
        ({"partition": "nope"}, "partition", "--partition debug"),
        ({"time": "2-00:00:00"}, "time", "--time 1-00:00:00"),
        ({"nodes": 3}, "nodes", "--nodes 2"),
        ({"cpus_per_task": 5}, "CPUs", "resources.cpus_per_task=4"),
        ({"mem_gb": 64}, "memory", "resources.mem_gb=15"),
        ({"accelerator": "cuda", "gpus_per_node": 8}, "GPUs", "--gpus-per-node 4"),
        ({"accelerator": "cuda", "gpu_type": "a100"}, "GPUs", "resources.gpu_type=h100"),
    ],
)
def test_what_would_wait_for_ever_is_red_with_its_mend(values: dict[str, object], check: str, mend: str) -> None:
    found = hold(asked(**values), int(values.get("gpus_per_node", 1)), read_partitions(SHOW, NODES))  # type: ignore[call-overload]
    assert check in reds(found)
    assert mend in next(f.mend for f in found if f.check == check)


def test_what_the_partition_has_is_green() -> None:
    found = hold(
        asked(accelerator="cuda", gpu_type="h100", gpus_per_node=4, mem_gb=15), 4, read_partitions(SHOW, NODES)
    )
    assert [f.light for f in found] == [Light.GREEN]


def test_accounts_and_states_of_a_partition_count() -> None:
    text = SHOW.replace("AllowAccounts=ALL", "AllowAccounts=chem,phys").replace("State=UP", "State=INACTIVE")
    found = hold(asked(account="acme"), 1, read_partitions(text, NODES))
    assert reds(found) == ["partition", "account"]
    drained = hold(asked(), 1, read_partitions(SHOW.replace("State=UP", "State=DRAIN"), NODES))
    assert reds(drained) == ["partition"], "jobs that are in it go on, and no other is taken"
    down = hold(asked(), 1, read_partitions(SHOW.replace("State=UP", "State=DOWN"), NODES))
    assert down[0].light is Light.YELLOW


def test_two_questions_are_asked_once_in_a_process(fake_slurm: FakeSlurm) -> None:
    job = Job.model_validate({"resources": {"accelerator": "cpu", "time": "3-00"}})
    assert reds(partition_findings(job, timeout_s=30)) == ["time"]
    partition_findings(job, timeout_s=30)
    assert len(fake_slurm.calls("scontrol")) == len(fake_slurm.calls("sinfo")) == 1


def test_a_cluster_that_does_not_answer_blocks_nobody(fake_slurm: FakeSlurm) -> None:
    fake_slurm.fault(hang_s=30)
    began = time.monotonic()
    found = partition_findings(Job(), timeout_s=0.5)
    assert time.monotonic() - began < 5
    assert [f.light for f in found] == [Light.GREY]
    assert "did not answer" in found[0].message


def test_an_unknown_account_or_qos_is_named_with_those_that_are_open(fake_slurm: FakeSlurm) -> None:
    job = Job.model_validate({"resources": {"account": "nope", "qos": "nah", "accelerator": "cpu"}})
    found = {f.check: f for f in admission_findings(job)}
    assert found["account"].light in (Light.RED, Light.YELLOW)
    assert "--account acme" in found["account"].mend
    assert found["qos"].light is Light.RED
    assert "--qos normal" in found["qos"].mend
    assert found["submissions"].light is Light.GREEN


def test_the_limits_of_account_and_qos_are_held_against_the_job() -> None:
    config = Answer(0, "AccountingStorageEnforce = associations,limits,qos\n", "")
    own = Answer(0, "acme||normal,short|normal|02:00:00|\n", "")
    qos = Answer(0, "normal||||\nshort|00:05:00|gres/gpu=2|||DenyOnLimit\n".replace("|||Deny", "||Deny"), "")
    job = asked(account="acme", qos="short", time="03:00:00", accelerator="cuda", gpus_per_node=4)
    found = read_admission(job, 4, config, own, qos)
    assert reds(found) == ["time", "time", "GPUs"]
    assert "00:05:00" in found[-2].message


def test_without_accounting_nothing_is_claimed(fake_slurm: FakeSlurm) -> None:
    fake_slurm.fault(accounting="disabled")
    found = admission_findings(Job.model_validate({"resources": {"account": "any"}}))
    assert found[0].light is Light.GREY


def test_test_only_gives_the_estimate_or_the_refusal(fake_slurm: FakeSlurm) -> None:
    script = "#!/bin/bash\n#SBATCH --job-name=x\nhostname\n"
    assert "would start at 20" in ask_sbatch(script).message
    assert fake_slurm.submissions == 0
    fake_slurm.fault(sbatch="refuse_partition")
    found = ask_sbatch(script)
    assert (found.light, found.where) == (Light.RED, "resources.partition")
    fake_slurm.fault(sbatch=None, controller="down")
    assert ask_sbatch(script).light is Light.GREY


def test_a_folder_without_the_right_or_the_room_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert writable("results", tmp_path / "new" / "runs", "").light is Light.GREEN
    assert existing(tmp_path / "new" / "runs") == tmp_path
    monkeypatch.chdir(tmp_path)
    # Of a user that there is not, as a shell takes it.
    assert existing(Path("~nosuchuser/x")) == tmp_path
    assert not (tmp_path / "new").exists()
    assert space(tmp_path, 1e18, 1e18, "elsewhere").light is Light.RED
    assert space(tmp_path, 1e18, 1.0, "elsewhere").light is Light.YELLOW
    assert space(tmp_path, 1.0, 1.0, "elsewhere").light is Light.GREEN
    if os.getuid():
        tmp_path.chmod(0o500)
        assert writable("results", tmp_path, "elsewhere").light is Light.RED


def test_a_quota_is_read_as_quota_and_lfs_print_it() -> None:
    lfs = "  /scratch  900000* 800000 1000000 - 12 0 0 -"
    quota = "Disk quotas for user me (uid 1):\n Filesystem blocks quota limit grace\n /home 100 200 300 0 5 0 0 0\n"
    assert read_quota(lfs) == {"/scratch": -100_000 * 1024}
    assert read_quota(quota) == {"/home": 100 * 1024}
    assert read_quota("/home 100 0 0 0 5 0 0 0") == {}


def test_a_clock_that_is_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock(tmp_path).light is Light.GREEN
    now = time.time
    monkeypatch.setattr("hpcft.cluster.folders.time.time", lambda: now() + 120)
    found = clock(tmp_path)
    assert found.light is Light.YELLOW
    assert "-120 s" in found.message


def test_locks_file_system_and_umask_are_told(tmp_path: Path) -> None:
    assert locks(tmp_path).light is Light.GREEN
    assert tmp_path.is_relative_to(file_system(tmp_path)[0])
    assert umask().check == "umask"


@pytest.mark.parametrize(
    ("name", "gb"),
    [
        ("h100", 79),
        ("nvidia_h200", 139),
        ("a100_80gb", 76.8),
        ("a100", 39),
        ("gh200", 94),
        ("2g.20gb", 19.2),
        ("l40s", 44),
    ],
)
def test_a_gpus_memory_is_told_from_its_name(name: str, gb: float) -> None:
    profile = Profile(name="site")
    assert gpu_memory(profile, name)[0] == gb


def test_the_profile_knows_its_gpus_better() -> None:
    profile = Profile.model_validate({"name": "site", "gpu_memory_gb": {"a100": "79", "weird": "12"}})
    assert gpu_memory(profile, "a100")[0] == 79
    assert gpu_memory(profile, "weird")[0] == 12
    assert gpu_memory(Profile(name="site"), "weird")[0] is None
    assert gpu_memory(Profile(name="site"), None)[0] is None

"""What a cluster says of itself, read from real answers, and the profile that is written from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.site_facts import facts, sample

from hpcft.cluster.probe import Facts, Partition, parse_config, parse_partitions, parse_user, profile_text
from hpcft.cluster.profile import load_profile


def written(tmp_path: Path, found: Facts) -> Any:
    path = tmp_path / "site.yaml"
    path.write_text(profile_text(found))
    return load_profile(str(path))


def test_partitions_are_read_from_a_real_answer() -> None:
    debug, gpu, low = facts().partitions
    assert (debug.name, debug.is_default, debug.time, debug.preempt) == ("debug", True, "1-00:00:00", "OFF")
    assert (debug.gpus, debug.cpus, debug.memory_mb, debug.nodes) == ({"h100": 4}, 4, 16000, 2)
    assert (low.preempt, low.grace_s) == ("REQUEUE", 30)
    assert not gpu.is_default


def test_the_configuration_is_read_from_a_real_answer() -> None:
    config = parse_config(sample("scontrol_show_config"))
    assert config["SLURM_VERSION"].startswith("22.05")
    assert config["MaxArraySize"] == "1001"


def test_accounts_and_qos_are_read_from_a_real_answer() -> None:
    assert parse_user(sample("sacctmgr_user")) == ("acme", ["normal", "short"])


@given(st.text(), st.text())
def test_no_answer_of_slurm_is_too_strange_to_read(first: str, second: str) -> None:
    parse_config(first)
    parse_partitions(first, second)
    parse_user(second)


def test_the_profile_is_one_that_loads_with_partition_account_and_gpus(tmp_path: Path) -> None:
    profile = written(tmp_path, facts())
    assert profile.resources["partition"] == "debug"
    assert profile.resources["account"] == "acme"
    assert profile.resources["gpu_type"] == "h100"
    assert profile.resources["accelerator"] == "cuda"
    assert profile.gpu_types == {"h100": {"partition": "debug"}}


def test_a_cluster_without_gpus_gets_a_profile_for_its_cpus(tmp_path: Path) -> None:
    partitions = [replace(p, gpus={}) for p in facts().partitions]
    profile = written(tmp_path, facts(partitions=partitions))
    assert profile.resources["accelerator"] == "cpu"
    assert "gpu_type" not in profile.resources
    assert profile.gpu_types == {}


def test_a_preempted_partition_is_taken_only_where_there_is_no_other(tmp_path: Path) -> None:
    low = Partition("low", True, "1:00:00", "REQUEUE", 0, 4, gpus={"a100": 8}, cpus=64)
    steady = Partition("gpu", False, "2-00:00:00", "OFF", 0, 4, gpus={"a100": 4}, cpus=32)
    assert written(tmp_path, facts(partitions=[low, steady])).resources["partition"] == "gpu"
    alone = written(tmp_path, facts(partitions=[low])).resources
    assert (alone["partition"], alone["time"]) == ("low", "01:00:00")


def test_gpus_whose_type_has_no_name_are_asked_for_without_one(tmp_path: Path) -> None:
    nameless = Partition("gpu", True, "UNLIMITED", "OFF", 0, 4, gpus={"": 4}, cpus=32)
    profile = written(tmp_path, facts(partitions=[nameless]))
    assert profile.resources["accelerator"] == "cuda"
    assert "gpu_type" not in profile.resources
    assert profile.resources["time"] == "04:00:00"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_signal": True}, "they get the warning signal"),
        ({"user_signal": False}, "rolling checkpoint"),
        ({"preempt_type": "preempt/none"}, "jobs are not preempted"),
        ({"accounting": False, "accounts": [], "qos": []}, "no accounting"),
        ({"containers": ["apptainer", "pyxis"]}, "containers: apptainer, pyxis"),
        ({"requeue": False}, "unless the job asks"),
    ],
)
def test_the_profile_says_what_was_found_and_what_it_means(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in profile_text(facts(**changes))
    written(tmp_path, facts(**changes))

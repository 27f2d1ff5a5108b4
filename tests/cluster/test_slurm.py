"""sinfo's answers, and what is made of them."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.cluster.probe import probe
from hpcft.cluster.slurm import gpus, parse_partitions, partitions, time_limits
from hpcft.runs.paths import RunPaths
from hpcft.runs.provenance import record_provenance
from hpcft.runs.submission import this_user


def test_the_default_partition_comes_first_and_gpus_are_counted_by_type() -> None:
    text = "cpu|2:00:00|(null)\ngpu*|infinite|gpu:a100:4(S:0-1),gpu:v100:2,nvme:1\nold|1-00:00:00|gpu:8\n"
    found = parse_partitions(text)
    assert [p.name for p in found] == ["gpu", "cpu", "old"]
    assert [p.gpus for p in found] == [{"a100": 4, "v100": 2}, {}, {"": 8}]
    assert found[0].time == "infinite"


@given(st.text())
def test_any_answer_of_sinfo_is_parsed_without_an_error(text: str) -> None:
    parse_partitions(text)


def test_a_cluster_is_asked_for_what_is_valid(fake_slurm: Any) -> None:
    assert partitions()[0] == "debug"
    assert "gpu: 4 × h100" in gpus()
    assert "debug: 1-00:00:00" in time_limits()


def test_a_user_without_a_name_is_a_number_everywhere(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    number = str(os.getuid())
    assert this_user() == number
    probe()
    asked = [words[3:] for words in fake_slurm.calls("sacctmgr")]
    assert [number in asked[0], f"user={number}" in asked[1]] == [True, True], asked
    record_provenance(RunPaths(tmp_path), tmp_path, {})
    assert json.loads(RunPaths(tmp_path).provenance.read_text())["user"] == number


@pytest.mark.parametrize("ask", [partitions, gpus, time_limits])
def test_a_cluster_that_does_not_answer_names_nothing(fake_slurm: Any, ask: Any) -> None:
    fake_slurm.fault(controller="down")
    assert ask() == []

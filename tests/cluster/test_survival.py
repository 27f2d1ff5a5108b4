"""What a cluster's own settings mean for a job that is preempted or runs out of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcft.cluster.probe import parse_config
from hpcft.cluster.slurm import parse_partition_values
from hpcft.cluster.survival import Meaning, Settings, findings, parse_qos, read_settings
from hpcft.errors import ConfigError, UnavailableError

SAMPLES = Path(__file__).parents[1] / "data/slurm"
CONFIG = parse_config((SAMPLES / "scontrol_show_config.txt").read_text())
PARTITIONS = parse_partition_values((SAMPLES / "scontrol_show_partition.txt").read_text())


def found(
    config: dict[str, str] | None = None,
    partition: dict[str, str] | None = None,
    *,
    name: str = "low",
    qos: dict[str, str] | None = None,
    needed_s: float | None = 1.0,
    signal_s: int = 120,
) -> dict[str, Meaning]:
    """Meanings by setting, from the recorded settings with some of them changed."""
    settings = Settings(CONFIG | (config or {}), PARTITIONS[name] | (partition or {}), qos or {}, ("debug", "gpu"))
    return {finding.setting: finding for finding in findings(settings, needed_s, signal_s)}


def test_the_settings_as_recorded_let_jobs_survive_and_ask_for_no_change() -> None:
    assert {f.level for f in found().values()} == {"good"}
    assert [f.change for f in found().values() if f.change] == []
    assert found()["GraceTime of low"].value == "30 s"
    assert found()["AuthInfo"].words == "a job that is queued again starts 5 s later at the earliest"


@pytest.mark.parametrize(
    ("config", "partition", "needed_s", "setting", "level", "says", "change"),
    [
        pytest.param(
            {"JobRequeue": "0"}, {}, 1.0, "JobRequeue", "mind", "only if they ask",
            "slurm.conf, by the site: JobRequeue=1", id="requeue is off",
        ),
        pytest.param(
            {"SlurmctldParameters": "(null)"}, {}, 1.0, "SlurmctldParameters", "mind", "SIGTERM instead",
            "slurm.conf, by the site: SlurmctldParameters=preempt_send_user_signal", id="the signal is off",
        ),
        pytest.param(
            {"SlurmctldParameters": "(null)", "SLURM_VERSION": "24.05.3"}, {}, 1.0, "PreemptParameters", "mind",
            "switched off", "slurm.conf, by the site: PreemptParameters=send_user_signal",
            id="the signal is off, and its newer name is told",
        ),
        pytest.param(
            {"SlurmctldParameters": "(null)"}, {"GraceTime": "0"}, 1.0, "SlurmctldParameters", "mind",
            "with KillWait to save in", "preempt_send_user_signal", id="the signal is off, and there is no grace",
        ),
        pytest.param(
            {}, {"PreemptMode": "CANCEL"}, 1.0, "PreemptMode of low", "mind", "if it has saved and left in time",
            "profile: resources.partition, one whose PreemptMode is REQUEUE or OFF (here: debug, gpu)", id="CANCEL",
        ),
        pytest.param(
            {}, {"PreemptMode": "CANCEL", "GraceTime": "0"}, 1.0, "PreemptMode of low", "bad", "does not queue",
            "profile: resources.partition", id="CANCEL, and no time to save",
        ),
        pytest.param(
            {}, {"GraceTime": "10"}, 12.0, "GraceTime of low", "mind", "goes on from its last rolling checkpoint",
            "the job: a lower training.save_minutes", id="the grace is too short",
        ),
        pytest.param(
            {}, {"GraceTime": "0"}, 12.0, "KillWait", "mind", "small model took 12.0 s",
            "the job: a lower training.save_minutes", id="no grace, and KillWait is too short",
        ),
    ],
)  # fmt: skip
def test_what_may_cost_a_job_is_named_with_the_line_to_change(
    config: dict[str, str],
    partition: dict[str, str],
    needed_s: float,
    setting: str,
    level: str,
    says: str,
    change: str,
) -> None:
    finding = found(config, partition, needed_s=needed_s)[setting]
    assert finding.level == level
    assert says in finding.words
    assert change in finding.change


@pytest.mark.parametrize(
    ("config", "partition", "setting", "value", "says"),
    [
        ({"PreemptType": "preempt/none"}, {}, "PreemptType", "preempt/none", "no job is preempted on this cluster"),
        ({"PreemptType": "(null)"}, {}, "PreemptType", "(null)", "no job is preempted on this cluster"),
        ({}, {"PreemptMode": "OFF"}, "PreemptMode of low", "OFF", "not preempted"),
        ({}, {"PreemptMode": "SUSPEND"}, "PreemptMode of low", "SUSPEND", "goes on by itself"),
        ({}, {"PreemptMode": "GANG,SUSPEND"}, "PreemptMode of low", "SUSPEND", "goes on by itself"),
        ({}, {"PreemptMode": "GANG,REQUEUE"}, "PreemptMode of low", "REQUEUE", "queues a preempted job again"),
        ({"PreemptExemptTime": "00:10:00"}, {}, "PreemptExemptTime", "600 s", "so long a job is left alone"),
        ({"OverTimeLimit": "5 min"}, {}, "OverTimeLimit", "300 s", "run on beyond its time limit"),
        ({"OverTimeLimit": "5 min"}, {"OverTimeLimit": "2"}, "OverTimeLimit", "120 s", "beyond its time limit"),
        ({"AuthInfo": "(null)"}, {}, "AuthInfo", "(default)", "120 s later at the earliest"),
        ({"KillWait": "30 sec"}, {"GraceTime": "0"}, "KillWait", "30 s", "so long has a preempted job to save"),
    ],
)
def test_what_costs_nothing_is_told_and_no_change_is_asked_for(
    config: dict[str, str], partition: dict[str, str], setting: str, value: str, says: str
) -> None:
    finding = found(config, partition)[setting]
    assert (finding.value, finding.level, finding.change) == (value, "good", "")
    assert says in finding.words


def test_where_nothing_is_preempted_nothing_more_is_said_of_it() -> None:
    for changed in ({"PreemptType": "preempt/none"}, {}):
        said = found(changed, name="debug")
        assert not any(name.startswith(("GraceTime", "KillWait", "Slurmctld")) for name in said)


def test_a_signal_that_comes_too_late_for_a_save_is_bad_and_the_profiles_line_is_named() -> None:
    finding = found(needed_s=100.0, signal_s=60)["resources.signal_seconds"]
    assert (finding.level, finding.change) == ("bad", "profile: resources.signal_seconds: 200")


def test_what_was_not_tried_is_compared_with_nothing() -> None:
    said = found({}, {"GraceTime": "1"}, needed_s=None)
    assert said["GraceTime of low"].words == "so long has a preempted job to save"
    assert {finding.level for finding in said.values()} == {"good"}


@pytest.mark.parametrize(
    ("mode", "grace", "setting", "level"),
    [
        ("cancel", "00:02:00", "PreemptMode of QOS spare", "mind"),
        ("requeue", "00:02:00", "PreemptMode of QOS spare", "good"),
        ("cluster", "00:02:00", "PreemptMode of QOS spare", "good"),
        ("requeue", "00:00:10", "GraceTime of QOS spare", "mind"),
    ],
)
def test_where_the_qos_decides_the_partitions_mode_and_grace_count_for_nothing(
    mode: str, grace: str, setting: str, level: str
) -> None:
    qos = parse_qos(f"normal|cluster|00:00:00\nspare|{mode}|{grace}\n")["spare"]
    by_qos = {"PreemptType": "preempt/qos"}
    said = found(by_qos, {"PreemptMode": "OFF", "GraceTime": "1"}, qos=qos, needed_s=60.0)
    assert said[setting].level == level
    assert "GraceTime of low" not in said
    assert (said["PreemptMode of QOS spare"].value == "CANCEL") == (mode == "cancel")


def test_settings_are_read_of_the_jobs_partition_or_the_default_one(fake_slurm: Any) -> None:
    assert read_settings("low").partition["GraceTime"] == "30"
    assert read_settings(None).partition["PartitionName"] == "debug"
    assert read_settings("low,gpu").safer == ("debug", "gpu")
    with pytest.raises(ConfigError, match="no partition 'nope'") as caught:
        read_settings("nope")
    assert "--partition: debug, gpu, low" in str(caught.value)


@pytest.mark.parametrize("fault", ["down", "timed_out"])
def test_a_controller_that_does_not_answer_is_an_error_and_no_verdict(fake_slurm: Any, fault: str) -> None:
    fake_slurm.fault(controller=fault)
    with pytest.raises(UnavailableError, match="does not say how it is set up"):
        read_settings("low")

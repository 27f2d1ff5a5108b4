"""What a probe of the tests' own two-node cluster finds, from its recorded answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcft.cluster.probe import Facts, parse_partitions

SAMPLES = Path(__file__).parent.parent / "data" / "slurm"


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


def facts(**changes: Any) -> Facts:
    plain = Facts(
        cluster="lab",
        version="22.05.8",
        partitions=parse_partitions(sample("scontrol_show_partition"), sample("sinfo_kinds")),
        accounting=True,
        accounts=["acme", "root"],
        default_account="acme",
        qos=["normal"],
        preempt_mode="REQUEUE",
        preempt_type="preempt/partition_prio",
        user_signal=True,
        requeue=True,
        max_array_size=1001,
        max_jobs=10000,
        containers=[],
    )
    return replace(plain, **changes)

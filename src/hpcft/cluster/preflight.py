"""What a job asks, held against the partition that it asks, in two questions that are put to Slurm at once.

`sbatch` refuses some of it by itself, at some sites; elsewhere such a job waits for ever. So it is looked at before,
within seconds, and a cluster that does not answer stops nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from hpcft.cluster.findings import Finding, green, grey, red, yellow
from hpcft.cluster.slurm import Answer, call, parse_gpus, parse_partition_values
from hpcft.spec.job import Job, ResourcesSection
from hpcft.spec.types import parse_time

# A submission waits no longer than this for both answers together.
PATIENCE_S = 3.0
_NO_LIMIT = ("UNLIMITED", "INFINITE", "NONE", "N/A", "ALL", "")


@dataclass(frozen=True)
class Node:
    """A kind of node: GPUs type → number, CPUs, and GB of 1024³ bytes."""

    gpus: Mapping[str, int]
    cpus: int
    memory_gb: float


@dataclass(frozen=True)
class Partition:
    """A partition: Slurm's own values by their names, and its kinds of nodes."""

    values: Mapping[str, str]
    nodes: Sequence[Node]

    @property
    def name(self) -> str:
        """Its name."""
        return self.values["PartitionName"]

    def limit(self, key: str) -> str | None:
        """A value, or None where it is no limit."""
        text = self.values.get(key, "")
        return None if text.upper() in _NO_LIMIT or text == "(null)" else text


def read_partitions(text: str, nodes: str) -> list[Partition]:
    """The partitions that may be seen.

    Args:
        text: of `scontrol show partition --oneliner`.
        nodes: of `sinfo --noheader --format=%P|%G|%c|%m`.
    """
    kinds: dict[str, list[Node]] = {}
    for line in nodes.splitlines():
        parts = line.split("|")
        if len(parts) == 4 and (cpus := re.match(r"\d+", parts[2])) and (memory := re.match(r"\d+", parts[3])):
            node = Node(parse_gpus(parts[1]), int(cpus[0]), int(memory[0]) / 1024)
            kinds.setdefault(parts[0].rstrip("*"), []).append(node)
    return [Partition(values, kinds.get(name, [])) for name, values in parse_partition_values(text).items()]


@cache
def _ask(timeout_s: float) -> tuple[Answer, Answer]:
    commands = (
        ["scontrol", "show", "partition", "--oneliner"],
        ["sinfo", "--noheader", "--format=%P|%G|%c|%m"],
    )
    with ThreadPoolExecutor(len(commands)) as pool:
        first, second = pool.map(lambda command: call(command, timeout_s=timeout_s), commands)
    return first, second


def partition_findings(job: Job, timeout_s: float = PATIENCE_S) -> list[Finding]:
    """Hold a job against its partition; asked once in a process.

    Args:
        timeout_s: how long Slurm may think.
    """
    show, nodes = _ask(timeout_s)
    if not show.ok:
        return [grey("partition", f"Slurm does not say: {' '.join(show.err.split()) or 'no answer'}")]
    return hold(job.resources, job.ranks_per_node, read_partitions(show.out, nodes.out))


def hold(asked: ResourcesSection, ranks_per_node: int, partitions: Sequence[Partition]) -> list[Finding]:
    """The findings about one partition, from what was read."""
    names = [p.name for p in partitions]
    if not partitions:
        return [grey("partition", "Slurm names no partition")]
    wanted = asked.partition
    chosen = next(
        (p for p in partitions if p.name == wanted or (wanted is None and p.values.get("Default") == "YES")), None
    )
    if chosen is None and wanted is None:
        return [
            red(
                "partition",
                "none is named, and this cluster has no default one",
                f"--partition {names[0]}    # or one of {', '.join(names)}",
                "resources.partition",
            )
        ]
    if chosen is None:
        return [
            red(
                "partition",
                f"there is no partition '{wanted}'",
                f"--partition {names[0]}    # or one of {', '.join(names)}",
                "resources.partition",
            )
        ]
    found = [*_state(chosen), *_time(asked, chosen), *_number_of_nodes(asked, chosen), *_who(asked, chosen)]
    found += _nodes(asked, ranks_per_node, chosen)
    return found or [green("partition", f"{chosen.name} has what the job asks for")]


def _state(partition: Partition) -> list[Finding]:
    state = partition.values.get("State", "UP")
    if state == "UP":
        return []
    message = f"partition {partition.name} is {state}"
    if state in ("INACTIVE", "DRAIN"):
        return [red("partition", f"{message} and takes no jobs", "--partition of another one", "resources.partition")]
    return [yellow("partition", f"{message}: jobs in it wait until it is up again")]


def _time(asked: ResourcesSection, partition: Partition) -> list[Finding]:
    limit = partition.limit("MaxTime")
    if limit is None or parse_time(asked.time) <= parse_time(limit):
        return []
    return [
        red(
            "time",
            f"{asked.time} is more than partition {partition.name} allows ({limit})",
            f"--time {limit}    # the job goes on in its next turn where it was",
            "resources.time",
        )
    ]


def _number_of_nodes(asked: ResourcesSection, partition: Partition) -> list[Finding]:
    limits = [int(n) for key in ("MaxNodes", "TotalNodes") if (n := partition.limit(key)) and n.isdecimal()]
    most = min(limits, default=None)
    if most is None or asked.nodes <= most:
        return []
    message = f"{asked.nodes} nodes are asked for, and partition {partition.name} gives at most {most}"
    return [red("nodes", message, f"--nodes {most}", "resources.nodes")]


def _who(asked: ResourcesSection, partition: Partition) -> list[Finding]:
    found = []
    for key, allow, deny in (("account", "AllowAccounts", "DenyAccounts"), ("qos", "AllowQos", "DenyQos")):
        own = getattr(asked, key)
        allowed, denied = partition.limit(allow), partition.limit(deny)
        if own and allowed and own not in allowed.split(","):
            message = f"partition {partition.name} is not open to {key} '{own}'"
            found.append(red(key, message, f"--{key} {allowed.split(',')[0]}    # of {allowed}", f"resources.{key}"))
        elif own and denied and own in denied.split(","):
            message = f"partition {partition.name} is closed to {key} '{own}'"
            found.append(red(key, message, "--partition of another one", "resources.partition"))
    return found


def _nodes(asked: ResourcesSection, ranks: int, partition: Partition) -> list[Finding]:
    """Whether some kind of node has all that a node must have; and if not, what none of them has."""
    cpu = asked.accelerator == "cpu"
    needs_cpus, needs_memory = ranks * (asked.cpus_per_task or 1), asked.mem_gb or 0

    def gpus(node: Node) -> int:
        return node.gpus.get(asked.gpu_type, 0) if asked.gpu_type else max(node.gpus.values(), default=0)

    def takes(node: Node) -> bool:
        enough_gpus = cpu or gpus(node) >= asked.gpus_per_node
        return enough_gpus and node.cpus >= needs_cpus and node.memory_gb >= needs_memory

    if not partition.nodes or any(takes(node) for node in partition.nodes):
        return []
    found = []
    most = max(map(gpus, partition.nodes))
    if not cpu and most < asked.gpus_per_node:
        kinds = sorted({f"{n} × {kind or 'GPU'}" for node in partition.nodes for kind, n in node.gpus.items()})
        what = f"{asked.gpus_per_node} × {asked.gpu_type or 'GPU'} a node"
        message = f"no node of partition {partition.name} has {what}; they have {', '.join(kinds) or 'no GPU'}"
        mend = f"--gpus-per-node {most}" if most else "--partition of one with GPUs"
        if not most and kinds and asked.gpu_type:
            mend = f"--set resources.gpu_type={next(k for node in partition.nodes for k in node.gpus) or 'null'}"
        found.append(red("GPUs", message, mend, "resources.gpu_type" if asked.gpu_type else "resources.gpus_per_node"))
    cpus = max(node.cpus for node in partition.nodes)
    if cpus < needs_cpus:
        message = (
            f"{ranks} ranks of {asked.cpus_per_task or 1} CPUs are more than a node of {partition.name} has ({cpus})"
        )
        found.append(
            red("CPUs", message, f"--set resources.cpus_per_task={max(1, cpus // ranks)}", "resources.cpus_per_task")
        )
    memory = max(node.memory_gb for node in partition.nodes)
    if memory < needs_memory:
        message = f"{needs_memory:g} GB are more than a node of partition {partition.name} has ({memory:.1f})"
        found.append(red("memory", message, f"--set resources.mem_gb={int(memory)}", "resources.mem_gb"))
    return found or [yellow("nodes", f"no node of partition {partition.name} has the GPUs, CPUs and memory together")]

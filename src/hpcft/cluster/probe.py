"""What a cluster says of itself: asked with Slurm's own commands, read from their answers, written as a profile."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field

from hpcft.cluster.slurm import Answer, accounts, call, parse_gpus, parse_partition_values
from hpcft.errors import UnavailableError
from hpcft.runs.submission import this_user
from hpcft.spec.types import parse_time

_CONTAINERS = ("apptainer", "singularity", "enroot")
_HOURS = 4


@dataclass(frozen=True)
class Partition:
    """A partition as `scontrol show partition` and `sinfo` tell it.

    Attributes:
        time: its limit as Slurm writes it; `UNLIMITED` for none.
        preempt: OFF, REQUEUE, CANCEL, SUSPEND …, of jobs in it.
        grace_s: seconds that a preempted job has.
        gpus: what a node has, type → number. cpus, memory_mb: of a node, the smallest.
    """

    name: str
    is_default: bool
    time: str
    preempt: str
    grace_s: int
    nodes: int
    tier: int = 1
    gpus: dict[str, int] = field(default_factory=dict)
    cpus: int | None = None
    memory_mb: int | None = None

    @property
    def limit_s(self) -> int | None:
        """The time limit in seconds; None without one."""
        return None if self.time.upper() in ("UNLIMITED", "INFINITE", "NONE") else parse_time(self.time)


@dataclass(frozen=True)
class Facts:
    """What was found.

    Attributes:
        accounting: whether `sacct` has something to ask.
        user_signal: whether the job's own signal is sent at preemption.
        containers: programs found in PATH, and `pyxis` where srun knows it.
    """

    cluster: str
    version: str
    partitions: list[Partition]
    accounting: bool
    accounts: list[str]
    default_account: str | None
    qos: list[str]
    preempt_mode: str
    preempt_type: str
    user_signal: bool
    requeue: bool
    max_array_size: int | None
    max_jobs: int | None
    containers: list[str]


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config`: name → value.

    >>> parse_config("MaxArraySize            = 1001\\nPreemptMode             = REQUEUE\\n")["MaxArraySize"]
    '1001'
    """
    found = {}
    for line in text.splitlines():
        name, mark, value = line.partition(" = ")
        if mark and name.strip().replace("_", "").isalnum():
            found[name.strip()] = value.strip()
    return found


def parse_partitions(text: str, nodes: str) -> list[Partition]:
    """The partitions, the default one first.

    Args:
        text: of `scontrol show partition --oneliner`.
        nodes: of `sinfo --noheader --format=%P|%G|%c|%m`, a line for each kind of node in a partition.
    """
    kinds: dict[str, list[tuple[dict[str, int], int | None, int | None]]] = {}
    for line in nodes.splitlines():
        parts = line.split("|")
        if len(parts) == 4:
            node = (parse_gpus(parts[1]), _whole(parts[2]), _whole(parts[3]))
            kinds.setdefault(parts[0].rstrip("*"), []).append(node)
    found = []
    for name, values in parse_partition_values(text).items():
        own = kinds.get(name, [])
        # Of nodes of several kinds, the numbers that every one of them has; of GPUs, those of a kind that has some.
        gpus: dict[str, int] = {}
        for kind, _, _ in own:
            for gpu, count in kind.items():
                gpus[gpu] = min(count, gpus.get(gpu, count))
        found.append(
            Partition(
                name=name,
                is_default=values.get("Default") == "YES",
                time=values.get("MaxTime", "UNLIMITED"),
                preempt=values.get("PreemptMode", "OFF").split(",")[0],
                grace_s=_whole(values.get("GraceTime", "0")) or 0,
                nodes=_whole(values.get("TotalNodes", "0")) or 0,
                tier=_whole(values.get("PriorityTier", "1")) or 1,
                gpus=gpus,
                cpus=min((c for _, c, _ in own if c), default=None),
                memory_mb=min((m for _, _, m in own if m), default=None),
            )
        )
    return sorted(found, key=lambda p: not p.is_default)


def _whole(text: str) -> int | None:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else None


def parse_user(text: str) -> tuple[str | None, list[str]]:
    """`sacctmgr show associations format=defaultaccount… `: lines of `default account|account|qos,qos`.

    Returns:
        The default account, or None, and all QoS of all associations.
    """
    default: str | None = None
    qos: set[str] = set()
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 3:
            default = default or parts[0] or None
            qos |= {name for name in parts[2].split(",") if name}
    return default, sorted(qos)


def probe() -> Facts:
    """Ask the cluster that this shell belongs to.

    Raises:
        UnavailableError: there is no Slurm here, or no controller that answers.
    """
    answer = call(["scontrol", "show", "config"])
    if not answer.ok:
        raise UnavailableError(
            f"Slurm does not say what it is: {answer.err.strip() or 'no answer'}",
            hint="run this on a login node of the cluster; is its Slurm module loaded?",
        )
    config = parse_config(answer.out)
    partitions = parse_partitions(
        call(["scontrol", "show", "partition", "--oneliner"]).out,
        call(["sinfo", "--noheader", "--format=%P|%G|%c|%m"]).out,
    )
    accounting = "slurmdbd" in config.get("AccountingStorageType", "") or "mysql" in config.get(
        "AccountingStorageType", ""
    )
    user = call(_ask_user())
    default, qos = parse_user(user.out if accounting and user.ok else "")
    sends = f"{config.get('SlurmctldParameters', '')},{config.get('PreemptParameters', '')}"
    return Facts(
        cluster=config.get("ClusterName", "cluster"),
        version=config.get("SLURM_VERSION", "unknown"),
        partitions=partitions,
        accounting=accounting and user.ok,
        accounts=accounts() if accounting else [],
        default_account=default,
        qos=qos,
        preempt_mode=config.get("PreemptMode", "OFF"),
        preempt_type=config.get("PreemptType", "(null)"),
        user_signal="preempt_send_user_signal" in sends or "send_user_signal" in sends,
        requeue=config.get("JobRequeue", "1") == "1",
        max_array_size=_whole(config.get("MaxArraySize", "")),
        max_jobs=_whole(config.get("MaxJobCount", "")),
        containers=_containers(call(["srun", "--help"])),
    )


def _ask_user() -> list[str]:
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "user", this_user(), "withassoc"]
    return [*command, "format=defaultaccount,account,qos"]


def _containers(srun_help: Answer) -> list[str]:
    found = [name for name in _CONTAINERS if shutil.which(name)]
    return found + (["pyxis"] if "--container-image" in srun_help.out else [])


def profile_text(facts: Facts) -> str:
    """The profile in YAML, with what was found and what it means in comments."""
    lines = [f"# The cluster '{facts.cluster}', Slurm {facts.version}, as `hpcft cluster probe` found it."]
    lines += [f"description: {facts.cluster}, Slurm {facts.version}", "scheduler: slurm", ""]
    lines += _resources(facts)
    lines += _gpu_types(facts)
    lines += [
        "",
        "# Whether compute nodes reach the internet cannot be seen from here. false: models and data must be in the",
        "# cache, and wandb records offline.",
        "internet: false",
        "",
        "# What the jobs find in their environment.",
        "# env:",
        "#   HF_HOME: /scratch/me/huggingface",
        "#   NCCL_SOCKET_IFNAME: ib0",
        "# modules: [cuda]",
        "",
    ]
    lines += _remarks(facts)
    return "\n".join(lines) + "\n"


def _home(facts: Facts) -> Partition | None:
    """The partition of jobs that say nothing: with GPUs where there are some, not preempted where that can be."""
    steady = [p for p in facts.partitions if p.preempt == "OFF"] or facts.partitions
    with_gpus = [p for p in steady if p.gpus] or [p for p in facts.partitions if p.gpus]
    return next(iter(with_gpus or steady), None)


def _resources(facts: Facts) -> list[str]:
    home = _home(facts)
    if home is None:
        return ["# No partition is open to you; ask for one with --partition.", "resources:", "  time: 04:00:00"]
    lines = ["# What a job gets that asks for nothing else; options on the command line win.", "resources:"]
    lines.append(f"  partition: {home.name}")
    if facts.accounts:
        account = facts.default_account if facts.default_account in facts.accounts else facts.accounts[0]
        lines.append(f"  account: {account}    # yours: {', '.join(facts.accounts)}")
    if facts.qos:
        lines.append(f"  # qos: yours are {', '.join(facts.qos)}; Slurm takes the default one")
    seconds = min(_HOURS * 3600, home.limit_s or _HOURS * 3600)
    hours, rest = divmod(seconds, 3600)
    lines.append(f"  time: {hours:02d}:{rest // 60:02d}:{rest % 60:02d}    # the partition's limit: {home.time}")
    if home.gpus:
        kind, count = next(iter(home.gpus.items()))
        lines.append("  accelerator: cuda    # a job that sees no GPU stops at once")
        if kind:
            lines.append(f"  gpu_type: {kind}")
        lines.append(f"  gpus_per_node: 1    # ranks; a node has {count}")
        if home.cpus and home.cpus // count:
            lines.append(f"  cpus_per_task: {home.cpus // count}    # a rank: {home.cpus} CPUs over {count} GPUs")
    else:
        lines.append("  accelerator: cpu    # no node of yours has a GPU")
        lines.append("  gpus_per_node: 1    # ranks a node")
    if home.memory_mb:
        lines.append(f"  # mem_gb: a node has {home.memory_mb / 1024:.0f}; without it Slurm gives its default")
    return lines


def _gpu_types(facts: Facts) -> list[str]:
    chosen: dict[str, Partition] = {}
    for partition in sorted(facts.partitions, key=lambda p: p.preempt != "OFF"):
        for kind in filter(None, partition.gpus):
            chosen.setdefault(kind, partition)
    if not chosen:
        return []
    lines = ["", "# What goes with a type of GPU: --set resources.gpu_type=NAME takes it.", "gpu_types:"]
    for kind, partition in sorted(chosen.items()):
        lines.append(f"  {kind}: {{partition: {partition.name}}}    # {partition.gpus[kind]} a node")
    return lines


def _remarks(facts: Facts) -> list[str]:
    lines = ["# What was found, for you to know:"]
    for p in facts.partitions:
        gpus = ", ".join(f"{n} × {kind or 'GPU'}" for kind, n in p.gpus.items()) or "no GPU"
        lines.append(f"# - partition {p.name}: {p.nodes} nodes, {gpus}, limit {p.time}, preemption {p.preempt}")
    preempted = [p for p in facts.partitions if p.preempt != "OFF"]
    if facts.preempt_type.endswith("none") or not preempted:
        lines.append("# - jobs are not preempted")
    else:
        grace = ", ".join(f"{p.grace_s} s in {p.name}" for p in preempted)
        lines.append(f"# - preempted jobs: {facts.preempt_mode}, grace {grace}")
        if facts.user_signal:
            lines.append("#   and they get the warning signal, so they save and are queued again")
        else:
            lines.append(
                "#   and they get SIGTERM; with a grace of 0 s there is no time to save after it, so a job goes"
            )
            lines.append("#   on from its last rolling checkpoint (training.save_minutes)")
    lines.append(f"# - jobs may be queued again: {'yes' if facts.requeue else 'no, unless the job asks, as ours do'}")
    if facts.accounting:
        lines.append("# - accounting answers (sacct)")
    else:
        lines.append("# - no accounting: a job's end is known from its run directory and the queue alone")
    lines.append(f"# - arrays of up to {facts.max_array_size} jobs, {facts.max_jobs} jobs in the queue")
    lines.append(f"# - containers: {', '.join(facts.containers) or 'none found'}")
    return lines

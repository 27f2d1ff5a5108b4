"""Whether a cluster lets jobs live through preemption and the time limit, read from its own settings.

The names are those of slurm.conf and of `scontrol show partition`. What each one does was tried on 22.05 (see
docs/surviving-preemption.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hpcft.cluster.probe import parse_config
from hpcft.cluster.slurm import call, parse_partition_values
from hpcft.errors import ConfigError, UnavailableError

# Slurm's own, where the configuration does not say: seconds before a requeued job may start again.
_HOLD_OFF_S = 120
# From saved to asked for, on a busy node: the ranks end, and the batch script calls Slurm.
_LEAVE_S = 10
_BY_QOS = "preempt/qos"


@dataclass(frozen=True)
class Meaning:
    """What one setting means for a job.

    Attributes:
        setting: its name and where it stands. value: as Slurm writes it.
        level: `good`, `mind` (jobs survive, with a loss or a condition), `bad` (they do not).
        words: what it means, a sentence.
        change: what to change, and where; empty when nothing has to be.
    """

    setting: str
    value: str
    level: Literal["good", "mind", "bad"]
    words: str
    change: str = ""


@dataclass(frozen=True)
class Settings:
    """A cluster's configuration, and the partition that a job is for.

    Attributes:
        qos: of the job's QOS, where those decide who is preempted; with its `Name`.
        safer: other partitions, whose jobs are not preempted, or are queued again.
    """

    config: Mapping[str, str]
    partition: Mapping[str, str]
    qos: Mapping[str, str] = field(default_factory=dict)
    safer: tuple[str, ...] = ()


def read_settings(partition: str | None, qos: str | None = None) -> Settings:
    """Ask the controller, and accounting where its QOS decide.

    Args:
        partition: the job's; None for the cluster's default one.
        qos: the job's; None for the one that Slurm takes.

    Raises:
        UnavailableError: no controller answers. ConfigError: there is no such partition.
    """
    config = call(["scontrol", "show", "config"])
    shown = call(["scontrol", "show", "partition", "--oneliner"])
    if not config.ok or not shown.ok:
        raise UnavailableError(f"Slurm does not say how it is set up: {(config.err or shown.err).strip()}")
    partitions = parse_partition_values(shown.out)
    default = next((name for name, values in partitions.items() if values.get("Default") == "YES"), None)
    chosen = (partition or default or "").split(",")[0]
    if chosen not in partitions:
        raise ConfigError(
            f"there is no partition '{chosen}'" if chosen else "this cluster has no default partition",
            where="resources.partition",
            hint=f"name one with --partition: {', '.join(partitions)}",
        )
    values = parse_config(config.out)
    safer = [n for n, p in partitions.items() if n != chosen and _base(p.get("PreemptMode", "")) in ("OFF", "REQUEUE")]
    of_qos: dict[str, str] = {}
    if values.get("PreemptType") == _BY_QOS:
        command = ["sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=name,preemptmode,gracetime"]
        of_qos = parse_qos(call(command).out).get(qos or "normal", {})
    return Settings(values, partitions[chosen], of_qos, tuple(safer))


def parse_qos(text: str) -> dict[str, dict[str, str]]:
    """Lines of `sacctmgr show qos format=name,preemptmode,gracetime`, by the name.

    >>> parse_qos("normal|cluster|00:00:00\\nspare|requeue|00:01:00\\n")["spare"]["PreemptMode"]
    'REQUEUE'
    """
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    return {name: {"Name": name, "PreemptMode": mode.upper(), "GraceTime": grace} for name, mode, grace in rows}


def seconds(value: str) -> int:
    """Seconds in a value as `scontrol show config` writes one.

    >>> seconds("30 sec"), seconds("2 min"), seconds("00:05:00"), seconds("1-00:00:00"), seconds("(null)")
    (30, 120, 300, 86400, 0)
    """
    if clock := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", value.strip()):
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + rest
    number = re.match(r"\d+", value)
    return int(number[0]) * (60 if "min" in value else 1) if number else 0


def findings(settings: Settings, needed_s: float | None, signal_s: int) -> list[Meaning]:
    """What the settings mean for a job.

    Args:
        needed_s: seconds that a step and a save take; None when that was not tried.
        signal_s: seconds before its time limit at which the job wants its signal.
    """
    return [*_requeue(settings), *_preemption(settings, needed_s), *_time_limit(settings, needed_s, signal_s)]


def _requeue(settings: Settings) -> list[Meaning]:
    value = settings.config.get("JobRequeue", "1")
    if value != "0":
        found = Meaning("JobRequeue", value, "good", "jobs may be queued again")
    else:
        found = Meaning(
            "JobRequeue",
            value,
            "mind",
            "jobs are queued again only if they ask for it; those of this tool ask, with --requeue",
            "slurm.conf, by the site: JobRequeue=1; only needed where the drill's job is not queued again",
        )
    expire = re.search(r"cred_expire=(\d+)", settings.config.get("AuthInfo", ""))
    wait = int(expire[1]) if expire else _HOLD_OFF_S
    text = f"a job that is queued again starts {wait} s later at the earliest"
    return [found, Meaning("AuthInfo", f"cred_expire={wait}" if expire else "(default)", "good", text)]


def _base(mode: str) -> str:
    """What happens to a preempted job, without what else stands in the word.

    >>> _base("GANG,REQUEUE"), _base("SUSPEND,GANG"), _base("GANG"), _base("OFF")
    ('REQUEUE', 'SUSPEND', 'SUSPEND', 'OFF')
    """
    words = mode.upper().split(",")
    known = [word for word in words if word in ("OFF", "CANCEL", "REQUEUE", "SUSPEND")]
    return known[0] if known else "SUSPEND" if "GANG" in words else mode


def _preemption(settings: Settings, needed_s: float | None) -> list[Meaning]:
    config = settings.config
    kind = config.get("PreemptType", "(null)")
    if kind in ("(null)", "preempt/none"):
        return [Meaning("PreemptType", kind, "good", "no job is preempted on this cluster")]
    by_qos = kind == _BY_QOS
    rank = "QOS" if by_qos else "partition's PriorityTier"
    by = Meaning("PreemptType", kind, "good", f"jobs are preempted by those of a higher {rank}")
    decides = settings.qos if by_qos else settings.partition
    name = f"QOS {decides.get('Name', 'normal')}" if by_qos else settings.partition["PartitionName"]
    mode = decides.get("PreemptMode", "CLUSTER")
    mode = _base(config.get("PreemptMode", "OFF") if mode in ("CLUSTER", "") else mode)
    if mode == "OFF":
        return [by, Meaning(f"PreemptMode of {name}", mode, "good", "jobs of it are not preempted")]
    if mode == "SUSPEND":
        words = "a preempted job stops where it is, and goes on by itself"
        return [by, Meaning(f"PreemptMode of {name}", mode, "good", words)]
    grace, kill_wait = seconds(decides.get("GraceTime", "0")), seconds(config.get("KillWait", "30 sec"))
    time_s, source = (grace, f"GraceTime of {name}") if grace else (kill_wait, "KillWait")
    enough = needed_s is None or time_s >= needed_s
    return [
        by,
        _mode(name, mode, settings, enough=time_s >= (needed_s or 0) + _LEAVE_S),
        _signal(config, grace),
        Meaning(
            source,
            f"{time_s} s",
            "good" if enough else "mind",
            f"so long has a preempted job to save{_compared(needed_s)}"
            + ("" if enough else ", so it goes on from its last rolling checkpoint"),
            "" if enough else "the job: a lower training.save_minutes",
        ),
        *_exempt(config),
    ]


def _compared(needed_s: float | None) -> str:
    return "" if needed_s is None else f"; a step and a save of the drill's small model took {needed_s:.1f} s"


def _mode(name: str, mode: str, settings: Settings, *, enough: bool) -> Meaning:
    setting = f"PreemptMode of {name}"
    if mode == "CANCEL":
        words = "Slurm does not queue a preempted job again; it does so itself, if it has saved and left in time"
        kind = "qos" if name.startswith("QOS ") else "partition"
        named = f" (here: {', '.join(settings.safer)})" if settings.safer and kind == "partition" else ""
        change = f"profile: resources.{kind}, one whose PreemptMode is REQUEUE or OFF{named}"
        return Meaning(setting, mode, "mind" if enough else "bad", words, change)
    return Meaning(setting, mode, "good", "Slurm queues a preempted job again")


def _signal(config: Mapping[str, str], grace: int) -> Meaning:
    for name, flag in (("SlurmctldParameters", "preempt_send_user_signal"), ("PreemptParameters", "send_user_signal")):
        if flag in config.get(name, "").split(","):
            words = "a preempted job gets the signal that it asked for (--signal=USR2), and saves"
            return Meaning(name, flag, "good", words)
    old = config.get("SLURM_VERSION", "") < "24"
    name, flag = (
        ("SlurmctldParameters", "preempt_send_user_signal") if old else ("PreemptParameters", "send_user_signal")
    )
    return Meaning(
        name,
        f"without {flag}",
        "mind",
        "the signal at preemption is switched off; a preempted job gets SIGTERM instead, which is taken as well"
        + (", with GraceTime to save in" if grace else ", with KillWait to save in"),
        f"slurm.conf, by the site: {name}={flag}",
    )


def _exempt(config: Mapping[str, str]) -> list[Meaning]:
    time_s = seconds(config.get("PreemptExemptTime", "0"))
    return [Meaning("PreemptExemptTime", f"{time_s} s", "good", "so long a job is left alone")] if time_s else []


def _time_limit(settings: Settings, needed_s: float | None, signal_s: int) -> list[Meaning]:
    name = settings.partition["PartitionName"]
    own = settings.partition.get("OverTimeLimit", "NONE")
    over = seconds(settings.config.get("OverTimeLimit", "0") if own == "NONE" else own + " min")
    enough = needed_s is None or signal_s >= needed_s
    found = [
        Meaning(f"MaxTime of {name}", settings.partition.get("MaxTime", "UNLIMITED"), "good", "the longest attempt"),
        Meaning(
            "resources.signal_seconds",
            f"{signal_s} s",
            "good" if enough else "bad",
            f"so long before its time limit a job saves{_compared(needed_s)}",
            "" if enough else f"profile: resources.signal_seconds: {2 * round(needed_s or 0)}",
        ),
    ]
    if over:
        found.append(Meaning("OverTimeLimit", f"{over} s", "good", "so long may a job run on beyond its time limit"))
    return found

"""How many jobs may be submitted at once: what the cluster, the association and the QOS say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hpcft.cluster.probe import parse_config
from hpcft.cluster.queue import FINAL, parse_state
from hpcft.cluster.slurm import Answer, call
from hpcft.runs.submission import this_user
from hpcft.spec.job import Job

# Slurm's own default, of a cluster that does not say.
_ARRAY_SIZE = 1001


@dataclass(frozen=True)
class Limits:
    """What holds for this user now.

    Attributes:
        array_size: an array's task numbers lie below it.
        array_tasks: most tasks of one array.
        room: tasks that may be submitted now; None without a limit.
        reason: which limit leaves that room, in words.
    """

    array_size: int = _ARRAY_SIZE
    array_tasks: int = _ARRAY_SIZE
    room: int | None = None
    reason: str = ""


def limits(job: Job) -> Limits:
    """Ask the cluster, all questions at once; where it does not answer there is no limit but Slurm's default.

    Args:
        job: with its account and QOS.
    """
    user = this_user()
    show = ["sacctmgr", "--noheader", "--parsable2", "show"]
    commands = [
        ["scontrol", "show", "config"],
        ["squeue", "--noheader", "--all", "--states=all", "--array", "--format=%u|%T|%a|%q"],
        [*show, "associations", f"user={user}", "format=account,defaultqos,maxsubmitjobs,grpsubmitjobs"],
        [*show, "qos", "format=name,maxsubmitjobsperuser,maxsubmitjobsperaccount,grpsubmitjobs"],
    ]
    with ThreadPoolExecutor(len(commands)) as pool:
        config, queue, associations, qos = pool.map(call, commands)
    return read_limits(config, queue, associations, qos, user, job.resources.account, job.resources.qos)


def read_limits(
    config: Answer,
    queue: Answer,
    associations: Answer,
    qos: Answer,
    user: str,
    account: str | None,
    wanted: str | None,
) -> Limits:
    """The limits in the answers to `limits`' four questions.

    Args:
        user: whose jobs count.
        account, wanted: account and QOS that the job names; None: the user's default, so all accounts are looked at.
    """
    known = parse_config(config.out)
    size = _number(known.get("MaxArraySize", "")) or _ARRAY_SIZE
    tasks = re.search(r"max_array_tasks=(\d+)", known.get("SchedulerParameters", ""))
    known_jobs = _rows(queue, 4)
    # (account, QOS) of the user's own that wait or run.
    own = [row[2:] for row in known_jobs if row[0] == user and parse_state(row[1]) not in FINAL]
    # (most, in the queue already, what it is called)
    found: list[tuple[int, int, str]] = []
    if most := _number(known.get("MaxJobCount", "")):
        # Everybody's, and those that have ended some minutes ago: when it is reached sbatch does not refuse but waits.
        found.append((most, len(known_jobs), f"MaxJobCount={most} of the cluster"))
    names = set()
    for charged, default, *counts in _rows(associations, 4):
        if account not in (None, charged):
            continue
        names |= {name for name in (wanted or default or "normal",) if name}
        used = sum(row[0] == charged for row in own)
        for word, count in zip(("MaxSubmitJobs", "GrpSubmitJobs"), counts, strict=True):
            if most := _number(count):
                found.append((most, used, f"{word}={most} of the account {charged}"))
    for name, *counts in _rows(qos, 4):
        if name not in names:
            continue
        used = sum(row[1] == name for row in own)
        for word, count in zip(
            ("MaxSubmitJobsPerUser", "MaxSubmitJobsPerAccount", "GrpSubmitJobs"), counts, strict=True
        ):
            if most := _number(count):
                found.append((most, used, f"{word}={most} of the QOS {name}"))
    least = min(found, key=lambda item: item[0] - item[1], default=None)
    room = None if least is None else max(0, least[0] - least[1])
    reason = "" if least is None else f"{least[2]}, and {least[1]} are in the queue"
    return Limits(size, min(size, int(tasks[1]) if tasks else size), room, reason)


def chunks(numbers: Iterable[int], array_size: int, most: int) -> list[list[int]]:
    """Ascending numbers, as arrays: each of at most `most` tasks, and within `array_size` of its first number.

    >>> chunks(range(5), 3, 2), chunks([0, 1, 5], 3, 3)
    ([[0, 1], [2, 3], [4]], [[0, 1], [5]])
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and len(found[-1]) < most and number - found[-1][0] < array_size:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def _rows(answer: Answer, width: int) -> list[list[str]]:
    rows = [line.strip().split("|") for line in answer.out.splitlines()] if answer.ok else []
    return [row for row in rows if len(row) == width]


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None

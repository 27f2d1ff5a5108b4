"""What Slurm knows of a run's job: how its starts ended, the memory it used, and the queue's reason."""

from __future__ import annotations

import pwd
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpcft.cluster.queue import JobState, QueueInfo, parse_moment, parse_state
from hpcft.cluster.slurm import Answer, call

# The name is the last, since it may have any character in it.
_FIELDS = ("JobID", "State", "ExitCode", "NodeList", "End", "MaxRSS", "AllocTRES", "JobName")
_UNITS_GB = {"": 2.0**-30, "K": 2.0**-20, "M": 2.0**-10, "G": 1.0, "T": 2.0**10}


@dataclass(frozen=True)
class Facts:
    """A job as its scheduler knows it.

    Attributes:
        queue: its state now; UNKNOWN when nobody answers or knows it.
        source, said: the command that told, and its answer as a line of evidence; "" when there is none.
        nodes: names of its nodes, in the order of the ranks.
        starts: words that its starts ended with, oldest first (`PREEMPTED`, `REQUEUED`, …).
        peak_gb: most memory that a task was seen to use. asked_gb: memory of each node.
        cancelled_by: name of the user who cancelled it.
        silent: why nothing is known, when the scheduler did not answer.
    """

    queue: QueueInfo
    source: str = ""
    said: str = ""
    nodes: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    peak_gb: float | None = None
    asked_gb: float | None = None
    cancelled_by: str = ""
    silent: str = ""


def facts_of(queue: QueueInfo | None, key: str) -> Facts:
    """What the scheduler says of a job.

    Args:
        queue: its state, as just asked for; None where nobody could be asked.
        key: what the job's name ends with.
    """
    if queue is None:
        return Facts(QueueInfo("", JobState.UNKNOWN))
    if not re.fullmatch(r"\d+(?:_\d+)?", queue.job_id):
        # A process of this machine.
        return Facts(queue)
    answer = call([
        "sacct", "--noheader", "--parsable2", "--duplicates", f"--jobs={queue.job_id}", "--format=" + ",".join(_FIELDS),
    ])  # fmt: skip
    found = parse_accounting(answer.out, queue.job_id, key)
    if found is None:
        said = "" if queue.state is JobState.UNKNOWN else f"State={queue.state.value} Reason={queue.reason or 'None'}"
        known = Facts(
            queue, f"squeue --jobs={queue.job_id}", said, host_names(queue.nodes), silent=_silent(queue, answer)
        )
        return replace(known, cancelled_by=_user(queue.cancelled_by))
    reason = f" Reason={queue.reason}" if queue.reason else ""
    if queue.state is JobState.UNKNOWN or (queue.is_final and found.queue.is_final):
        queue = replace(found.queue, reason=queue.reason, answered=queue.answered)
    return replace(found, queue=queue, said=found.said + reason, nodes=host_names(found.queue.nodes or queue.nodes))


def _silent(queue: QueueInfo, answer: Answer) -> str:
    if queue.state is not JobState.UNKNOWN:
        return ""
    return _first_line(queue.reason) or ("" if answer.ok else _first_line(answer.err))


def parse_accounting(text: str, job_id: str, key: str) -> Facts | None:
    """Facts from `sacct --duplicates` with the fields above; None when it does not know the job.

    Numbers of jobs are used again after a while, and an older job of the same number is told by its name.
    """
    starts: list[list[str]] = []
    peak = 0.0
    for line in text.splitlines():
        cells = line.split("|", len(_FIELDS) - 1)
        if len(cells) != len(_FIELDS):
            continue
        if cells[0] == job_id and (not key or cells[-1].endswith(key)):
            starts.append(cells)
            peak = 0.0
        elif cells[0].startswith(f"{job_id}.") and starts:
            # The steps of a start stand below it.
            peak = max(peak, size_gb(cells[5]) or 0.0)
    if not starts:
        return None
    _, word, code, nodes, end, _, resources, _ = starts[-1]
    nodes = "" if nodes == "None assigned" else nodes
    memory, count = re.search(r"\bmem=([\d.]+[KMGT]?)", resources), re.search(r"\bnode=(\d+)", resources)
    asked = size_gb(memory[1]) if memory else None
    return Facts(
        QueueInfo(job_id, parse_state(word), "", nodes, code, end=parse_moment(end)),
        f"sacct --jobs={job_id}",
        f"State={word} ExitCode={code} NodeList={nodes or 'none'} End={end}",
        starts=tuple(row[1].partition(" ")[0] for row in starts),
        peak_gb=peak or None,
        asked_gb=asked / int(count[1]) if asked and count and int(count[1]) else None,
        cancelled_by=_user(word.partition(" by ")[2].strip()),
    )


def size_gb(text: str) -> float | None:
    """A size as Slurm writes it, in GB of 1024³ bytes.

    >>> size_gb("512M"), size_gb("1572864K"), size_gb("")
    (0.5, 1.5, None)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)[nc]?", text.strip())
    return float(found[1]) * _UNITS_GB[found[2]] if found else None


def host_names(nodes: str) -> tuple[str, ...]:
    """The names in `node[1-3]`; Slurm's own command takes them apart, without asking its controller."""
    if "[" not in nodes and "," not in nodes:
        return (nodes,) if nodes else ()
    answer = call(["scontrol", "show", "hostnames", nodes])
    return tuple(answer.out.split()) if answer.ok else ()


def node_of(rank: int | None, nodes: Sequence[str], ranks_per_node: int) -> str | None:
    """The node that a rank runs on: ranks fill one node after another."""
    if rank is None or ranks_per_node < 1 or not 0 <= rank // ranks_per_node < len(nodes):
        return None
    return nodes[rank // ranks_per_node]


def _user(uid: str) -> str:
    if not uid.isdecimal():
        return uid
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")

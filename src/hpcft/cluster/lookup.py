"""Finding jobs by their keys: Slurm is asked once for all of them, and its silence is told from a no."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from hpcft.cluster.slurm import call

# Accounting is asked from this long before the oldest intent on: the clocks of two machines differ.
_MARGIN_S = 3600.0


@dataclass(frozen=True)
class Lookup:
    """What Slurm knows of some keys.

    Attributes:
        jobs: key → job id, of those that it knows.
        queue_answers: whether squeue answered; it knows every job that waits or runs.
        accounting: whether sacct answered, is not kept here, or should and did not.
    """

    jobs: dict[str, str] = field(default_factory=dict)
    queue_answers: bool = False
    accounting: Literal["answers", "absent", "silent"] = "silent"

    @property
    def is_sure(self) -> bool:
        """Whether a key that is not among `jobs` has no job that waits or runs, and none that ended lately."""
        return self.queue_answers and self.accounting != "silent"


def look_up(keys: Collection[str], since: float) -> Lookup:
    """Find jobs by their keys, by one squeue and, for those that it does not know, one sacct.

    A key stands at the end of the job's name, after its last dot, and in its comment. Neither is asked for by name:
    accounting databases in an older character set fail at a name that is not ASCII and give it back with question
    marks, and keep a comment only where the site wants it.

    Args:
        since: when the oldest of them was submitted, in seconds since the epoch.
    """
    queue = call(["squeue", "--noheader", "--all", "--me", "--states=all", "--format=%F|%j|%k"])
    found = _pick(queue.out, keys)
    if len(found) == len(set(keys)):
        return Lookup(found, queue.ok, "silent")
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - _MARGIN_S))
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,JobName,Comment"]
    answer = call([*command, f"--starttime={start}"])
    absent = "disabled" in answer.err or "not found" in answer.err
    return Lookup(
        {**_pick(answer.out, keys), **found} if answer.ok else found,
        queue.ok,
        "answers" if answer.ok else "absent" if absent else "silent",
    )


def parse_keys(text: str) -> Iterator[tuple[str, str]]:
    """(key, job id) of lines `id|name|comment`; an array's tasks have the id of their array.

    >>> list(parse_keys("7|mine.k3f9x2m1qa|\\n8_[1-9]|sweep.abc|hpcft:abc\\n9_2|renamed|hpcft:xyz\\n"))
    [('k3f9x2m1qa', '7'), ('abc', '8'), ('abc', '8'), ('xyz', '9')]
    """
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) < 3 or not (number := re.match(r"\d+", parts[0])):
            continue
        yield parts[1].rpartition(".")[2], number[0]
        if parts[2].startswith("hpcft:"):
            yield parts[2].removeprefix("hpcft:"), number[0]


def _pick(text: str, keys: Collection[str]) -> dict[str, str]:
    """The first job of each key: one that the user submitted again by hand has a higher number."""
    found: dict[str, str] = {}
    for key, job_id in sorted(parse_keys(text), key=lambda pair: int(pair[1])):
        if key in keys:
            found.setdefault(key, job_id)
    return found

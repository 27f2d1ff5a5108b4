"""What the scheduler says of jobs: its answers, parsed, and never a guess when it does not answer."""

from __future__ import annotations

import contextlib
import enum
import os
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from hpcft.cluster.slurm import call


class JobState(enum.StrEnum):
    """Slurm's states, the long tail of them under the one that matters for us."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    UNKNOWN = "UNKNOWN"


_OTHER_WORDS = {
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "SUSPENDED": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.COMPLETING,
    "BOOT_FAIL": JobState.NODE_FAIL,
    "DEADLINE": JobState.TIMEOUT,
    "REVOKED": JobState.CANCELLED,
}
FINAL = frozenset(
    (
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.TIMEOUT,
        JobState.OUT_OF_MEMORY,
        JobState.NODE_FAIL,
        JobState.PREEMPTED,
    )
)


@dataclass(frozen=True)
class QueueInfo:
    """One job as the scheduler sees it. Times are seconds since the epoch, None where none is given.

    Attributes:
        job_id: as Slurm writes it, `123`, or `123_4` for a task of an array.
        reason: why it waits; of UNKNOWN, why nothing is known.
        exit_code: `code:signal`, from accounting.
        name: the job's name; what follows its last dot is the run's id.
        submit: when it was submitted, or queued again.
        start: when it started, or is expected to.
        end: when it ended, or has to by its time limit.
        restarts: how often it was queued again, where accounting tells.
        cancelled_by: user number.
        answered: false when the scheduler does not answer now: what is said here is old, and UNKNOWN says nothing.
        as_of: when it was asked.
        seen_final: when this state, being final, was first seen.
    """

    job_id: str
    state: JobState
    reason: str = ""
    nodes: str = ""
    exit_code: str = ""
    name: str = ""
    submit: float | None = None
    start: float | None = None
    end: float | None = None
    restarts: int | None = None
    cancelled_by: str = ""
    answered: bool = True
    as_of: float | None = None
    seen_final: float | None = None

    @property
    def is_final(self) -> bool:
        """It will not run again by itself."""
        return self.state in FINAL

    @property
    def is_active(self) -> bool:
        """It waits or runs."""
        return self.state in (JobState.PENDING, JobState.RUNNING, JobState.COMPLETING)


@lru_cache(maxsize=256)
def parse_state(word: str) -> JobState:
    """A state's word, whatever stands behind it (`CANCELLED by 1000`).

    >>> parse_state("CANCELLED by 1000"), parse_state("REQUEUED"), parse_state("???")
    (<JobState.CANCELLED: 'CANCELLED'>, <JobState.PENDING: 'PENDING'>, <JobState.UNKNOWN: 'UNKNOWN'>)
    """
    name = word.strip().split(" ")[0].rstrip("+").upper()
    if name in JobState.__members__:
        return JobState[name]
    return _OTHER_WORDS.get(name, JobState.UNKNOWN)


def parse_moment(text: str) -> float | None:
    """A time as Slurm writes it, in this machine's zone; None for `N/A`, `Unknown`, `None`.

    >>> parse_moment("N/A"), parse_moment("2026-11-21T07:37:45") == parse_moment("2026-11-21T07:37:45\\n")
    (None, True)
    """
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


# So many ids stand in one command: an argument may have 128 KiB.
_AT_ONCE = 1000
# Both answers have the same eight fields, but for the third one: why it waits, or `code:signal`. The name is the last,
# since it may have any character in it.
_FIELDS = 8
SQUEUE = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r|%S|%e|%V|%N|%j"]
SACCT = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates"]
SACCT += ["--format=JobID,State,ExitCode,Start,End,Submit,NodeList,JobName"]
_EXIT_CODE = re.compile(r"\d+:\d+")


def _read(line: str, restarts: int | None = None) -> QueueInfo | None:
    parts = line.split("|", _FIELDS - 1)
    if len(parts) != _FIELDS:
        return None
    job_id, state, third, start, end, submit, nodes, name = parts
    exit_code = third if _EXIT_CODE.fullmatch(third) else ""
    reason = "" if exit_code or third == "None" else third.strip("()")
    return QueueInfo(
        job_id.strip(),
        parse_state(state),
        reason,
        "" if nodes == "None assigned" else nodes,
        exit_code,
        name,
        parse_moment(submit),
        parse_moment(start),
        parse_moment(end),
        restarts,
        state.partition(" by ")[2].strip(),
    )


class Jobs:
    """Jobs of an answer by their ids. A line is read when its job is asked for: of ten thousand, few are.

    Args:
        text: what squeue or sacct said. Of a requeued job's several lines the last one counts.
        counts_restarts: there is a line for each attempt.
    """

    def __init__(self, text: str, *, counts_restarts: bool = False) -> None:
        self._counts_restarts = counts_restarts
        self._lines: dict[str, str] = {}
        self._earlier: dict[str, list[str]] = {}
        lines, earlier = self._lines, self._earlier
        # Not splitlines, which also splits at characters that a job's name may have.
        for line in text.split("\n"):
            job_id = line.partition("|")[0]
            if job_id in lines:
                earlier.setdefault(job_id, []).append(lines[job_id])
            lines[job_id] = line
        lines.pop("", None)
        self._waiting: dict[str, list[str]] = {}
        for job_id in [i for i in lines if "[" in i] if "[" in text else []:
            self._waiting.setdefault(job_id.partition("_")[0], []).append(job_id)
        self._tasks: dict[str, _Tasks] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, job_id: str) -> bool:
        return self.row(job_id) is not None

    def get(self, job_id: str, key: str = "") -> QueueInfo | None:
        """A job, or None when it is not in the answer.

        Args:
            key: the run's id. Job ids are used again after some time; of several jobs of the number the one that
                carries the key is meant.
        """
        row = self.row(job_id)
        if row is None:
            return None
        lines = [*self._earlier.get(row, []), self._lines[row]]
        own = [line for line in lines if line.endswith("." + key)] if key else []
        info = _read((own or lines)[-1], len(own or lines) - 1 if self._counts_restarts else None)
        return info if info is None or info.job_id == job_id else replace(info, job_id=job_id)

    def row(self, job_id: str) -> str | None:
        """The id of the line that a job stands in: its own, or that of waiting tasks of its array."""
        if job_id in self._lines:
            return job_id
        base, mark, task = job_id.partition("_")
        if mark and task.isdecimal():
            if base not in self._tasks:
                self._tasks[base] = _Tasks(self._waiting.get(base, []))
            return self._tasks[base].row(int(task))
        return None

    def state(self, job_id: str) -> JobState:
        """The state alone, which is all that counting needs."""
        row = self.row(job_id)
        return JobState.UNKNOWN if row is None else parse_state(self._lines[row].partition("|")[2].partition("|")[0])

    def line(self, row: str) -> str:
        """A line, by its own id."""
        return self._lines[row]

    def by_key(self, key: str) -> QueueInfo | None:
        """The job whose name ends with a run's id."""
        found = [line for line in self._lines.values() if line.endswith("." + key)]
        return _read(found[-1]) if found else None


class _Tasks:
    """The waiting tasks of an array, taken from its rows once."""

    def __init__(self, rows: Iterable[str]) -> None:
        self._single: dict[int, str] = {}
        self._spans: list[tuple[range, str]] = []
        for row in rows:
            for span in _spans(row):
                if span[0] == span[-1]:
                    self._single[span[0]] = row
                else:
                    self._spans.append((span, row))

    def row(self, task: int) -> str | None:
        """The row that a task is in."""
        return self._single.get(task) or next((row for span, row in self._spans if task in span), None)


def _spans(waiting: str) -> Iterator[range]:
    """The tasks of `123_[0-100:2,200%4]`. Slurm may end a long list with `...`: then any may be in it.

    >>> [list(span) for span in _spans("7_[2-6:2,9%2]")]
    [[2, 4, 6], [9]]
    """
    inside = waiting.partition("[")[2].partition("]")[0].partition("%")[0]
    for part in inside.split(","):
        if part == "...":
            yield range(2**62)
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        if all(number.isdecimal() for number in (first, last or first, step or "1")):
            low, high, stride = int(first), int(last or first), max(1, int(step or 1))
            if low <= high:
                yield range(low, high + 1, stride)


def in_chunks(job_ids: Iterable[str]) -> Iterator[list[str]]:
    """As many ids at a time as one command takes."""
    ids = list(job_ids)
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def ask(job_ids: Sequence[str]) -> dict[str, QueueInfo]:
    """States of Slurm jobs now, by one `squeue` for a thousand and one `sacct` for those that it does not know any
    more.

    For acting on a job; to look at one again and again is the matter of `cluster.poll`. A job that neither knows, or
    about which neither answers, is UNKNOWN: that is a state, not a failure.
    """
    found: dict[str, QueueInfo] = {}
    for ids in in_chunks(job_ids):
        found |= _ask(ids)
        if any(not info.answered for info in found.values()):
            # Each of the others would be waited for as long.
            silent = QueueInfo("", JobState.UNKNOWN, "the scheduler does not answer", answered=False)
            return {job: replace(silent, job_id=job) for job in job_ids} | found
    return found


def _ask(job_ids: Sequence[str]) -> dict[str, QueueInfo]:
    answer = call([*SQUEUE, "--jobs=" + ",".join(job_ids)])
    # squeue exits 1 for a single job that it has forgotten, and answers for the others all the same.
    queued, answered = Jobs(answer.out), answer.ok or "invalid job id" in answer.err.lower()
    found = {job: queued.get(job) for job in job_ids}
    if gone := [job for job in job_ids if found[job] is None]:
        accounted = call([*SACCT, "--jobs=" + ",".join(gone)])
        ended = Jobs(accounted.out, counts_restarts=True)
        found |= {job: ended.get(job) for job in gone}
    unknown = "" if answered else answer.err.strip()
    return {job: info or QueueInfo(job, JobState.UNKNOWN, unknown, answered=answered) for job, info in found.items()}


def start_time(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, which tells it from a later one of the same number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] == "Z" else fields[19]


def ask_local(job_id: str) -> QueueInfo:
    """State of a local job; its id is `pid-starttime`. Whether an ended one succeeded the run directory tells."""
    pid, _, began = job_id.partition("-")
    alive = pid.isdecimal() and began != "" and start_time(int(pid)) == began
    return QueueInfo(job_id, JobState.RUNNING if alive else JobState.COMPLETED)


def signal_local(job_id: str, number: signal.Signals, *, whole: bool) -> None:
    """Signal a local job, if it is still the same process.

    Args:
        whole: the other processes of its group too, all of which are the job's.
    """
    if ask_local(job_id).state is JobState.RUNNING:
        pid = int(job_id.partition("-")[0])
        with contextlib.suppress(ProcessLookupError):
            if whole:
                os.killpg(os.getpgid(pid), number)
            else:
                os.kill(pid, number)

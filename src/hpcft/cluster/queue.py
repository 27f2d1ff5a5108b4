"""What the scheduler says of jobs: one question for all of them, and never a guess when it does not answer."""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
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
_FINAL = frozenset(
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
    """One job as the scheduler sees it."""

    job_id: str
    state: JobState
    reason: str = ""
    nodes: str = ""
    exit_code: str = ""

    @property
    def is_final(self) -> bool:
        """It will not run again by itself."""
        return self.state in _FINAL


def parse_state(word: str) -> JobState:
    """A state's word, whatever stands behind it (`CANCELLED by 1000`).

    >>> parse_state("CANCELLED by 1000"), parse_state("REQUEUED"), parse_state("???")
    (<JobState.CANCELLED: 'CANCELLED'>, <JobState.PENDING: 'PENDING'>, <JobState.UNKNOWN: 'UNKNOWN'>)
    """
    name = word.strip().split(" ")[0].rstrip("+").upper()
    if name in JobState.__members__:
        return JobState[name]
    return _OTHER_WORDS.get(name, JobState.UNKNOWN)


_SQUEUE = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r|%N"]
_SACCT = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList,ExitCode"]


def parse_squeue(text: str) -> dict[str, QueueInfo]:
    """Lines of `squeue --format=%i|%T|%r|%N`; others are stepped over."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 4 and parts[0]:
            found[parts[0]] = QueueInfo(parts[0], parse_state(parts[1]), parts[2].strip("()"), parts[3])
    return found


def parse_sacct(text: str) -> dict[str, QueueInfo]:
    """Lines of `sacct --format=JobID,State,NodeList,ExitCode`; of a requeued job's several, the last one."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 4 and parts[0] and "." not in parts[0]:
            nodes = "" if parts[2] == "None assigned" else parts[2]
            found[parts[0]] = QueueInfo(parts[0], parse_state(parts[1]), "", nodes, parts[3])
    return found


def ask(job_ids: Sequence[str]) -> dict[str, QueueInfo]:
    """States of Slurm jobs, by one `squeue` for all and one `sacct` for those that it does not know any more.

    A job that neither knows, or about which neither answers, is UNKNOWN: that is a state, not a failure.
    """
    if not job_ids:
        return {}
    answer = call([*_SQUEUE, "--jobs=" + ",".join(job_ids)])
    # squeue exits 1 for a single job that it has forgotten, and answers for the others all the same.
    found = parse_squeue(answer.out)
    gone = [job for job in job_ids if job not in found]
    if gone:
        found |= parse_sacct(call([*_SACCT, "--jobs=" + ",".join(gone)]).out)
    return {job: found.get(job, QueueInfo(job, JobState.UNKNOWN)) for job in job_ids}


def find_by_name(job_name: str) -> str | None:
    """The id of the job of that name, as far as squeue or sacct know one; its run id after the last dot decides.

    sacct is not asked by name: accounting databases in an older character set fail at one that is not ASCII, and
    give it back with question marks.
    """
    answer = call(["squeue", "--noheader", "--states=all", "--format=%A", f"--name={job_name}"])
    ids = answer.out.split() if answer.ok else []
    if not ids:
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,JobName"]
        answer = call([*command, "--starttime=now-1days"])
        run_id = "." + job_name.rpartition(".")[2]
        ids = [line.partition("|")[0] for line in answer.out.splitlines() if answer.ok and line.endswith(run_id)]
    return ids[0] if ids else None


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


def stop_local(job_id: str, number: signal.Signals = signal.SIGTERM) -> None:
    """Signal a local job, if it is still the same process."""
    if ask_local(job_id).state is JobState.RUNNING:
        os.kill(int(job_id.partition("-")[0]), number)

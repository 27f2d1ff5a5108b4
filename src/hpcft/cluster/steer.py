"""Cancelling jobs and queueing them again: written into the run's journal, with who did it."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcft.cluster.lookup import look_up
from hpcft.cluster.queue import JobState, ask, in_chunks, signal_local
from hpcft.cluster.slurm import Answer, call
from hpcft.cluster.state import Standing
from hpcft.errors import UnavailableError, UsageError
from hpcft.runs.events import EventLog
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import Record
from hpcft.runs.submission import Submission, submissions, this_host, this_user

# What scontrol says when nobody has heard it. The last is 22.05's word at a requeue while the controller is away.
_NO_ANSWER = ("unable to contact", "timed out", "unexpected message")


@dataclass(frozen=True)
class Steered:
    """What was done with a run.

    Attributes:
        done: something was done; false when there was nothing to do.
        words: what, in a sentence.
    """

    root: Path
    done: bool
    words: str


def cancel(standings: Sequence[Standing]) -> list[Steered]:
    """Cancel the jobs of runs. A run that is over is left alone.

    Args:
        standings: their states, asked for just now.

    Raises:
        UnavailableError: Slurm does not answer. What it had cancelled before, a thousand jobs at a time, is noted.
    """
    found: list[Steered] = []
    jobs: dict[str, Standing] = {}
    for standing in standings:
        record = standing.record
        if standing.state.is_over:
            found.append(Steered(record.root, False, f"left alone: {standing.words}"))
        elif record.is_process:
            found.append(_stop_process(standing))
        elif job_id := record.job_id or _job_in_doubt(record.submission):
            jobs[job_id] = standing
        else:
            found.append(Steered(record.root, False, f"left alone: no job of it is known ({standing.words})"))
    for ids in in_chunks(jobs):
        scancel(ids)
        for job_id in ids:
            root = jobs[job_id].record.root
            note(root, "cancelled", job_id=job_id)
            found.append(Steered(root, True, f"cancelled job {job_id}"))
    return found


def cancel_arrays(folder: Path) -> list[Steered]:
    """Cancel the arrays of a sweep, with the trials that have not started.

    Raises:
        UnavailableError: Slurm does not answer.
    """
    paths = RunPaths(folder)
    ids = [job_id for s in submissions(paths) if (job_id := s.job_id or (_job_in_doubt(s) if s.is_open else None))]
    if not ids:
        return []
    answer = call(["squeue", "--noheader", "--format=%F", "--jobs=" + ",".join(ids)])
    if not answer.ok and "invalid job id" not in answer.err.lower():
        raise UnavailableError(f"Slurm does not answer: {_said(answer)}", hint="try again in a while")
    waiting = [job for job in ids if job in answer.out.split()]
    scancel(waiting)
    for job_id in waiting:
        note(folder, "cancelled", job_id=job_id)
    return [Steered(folder, True, f"cancelled array {job_id}") for job_id in waiting]


def scancel(job_ids: Iterable[str], *options: str) -> None:
    """Cancel or signal Slurm jobs; of an array's task `123_4` only that one.

    Raises:
        UnavailableError: Slurm does not answer, or refuses.
    """
    for ids in in_chunks(job_ids):
        answer = call(["scancel", *options, *ids])
        if not answer.ok:
            raise UnavailableError(f"Slurm did not take it: {_said(answer)}", hint="try again in a while")


def requeue(standing: Standing, *, now: bool = False) -> Steered:
    """Queue a Slurm job again; it goes on from its newest checkpoint.

    Args:
        standing: its state, asked for just now.
        now: at once, without saving first: for a job that hangs.

    Raises:
        UsageError: it has finished, waits already, or Slurm has forgotten it.
        UnavailableError: Slurm does not answer.
    """
    record, queue = standing.record, standing.queue
    job_id = record.job_id
    if record.done:
        raise UsageError(f"{record.name} has finished; there is nothing left to do")
    if queue is not None and not queue.answered:
        raise UnavailableError(f"Slurm does not answer: {queue.reason}", hint="try again in a while")
    if job_id is None or queue is None or queue.state is JobState.UNKNOWN:
        raise UsageError(f"Slurm knows no job of {record.name} any more", hint=f"hpcft resume {record.name}")
    if queue.state is JobState.PENDING:
        raise UsageError(f"job {job_id} of {record.name} is in the queue already: {standing.words}")
    trains = record.about.get("job_kind", "train") == "train" and record.heartbeat is not None
    if queue.state is JobState.RUNNING and trains and not now:
        # The ranks save after this step and leave; the batch script then queues the job again.
        scancel([job_id], "--signal=USR2")
        note(record.root, "requeued", job_id=job_id, saves_first=True)
        words = f"job {job_id} saves and is queued again; if it hangs: hpcft requeue {record.name} --now"
        return Steered(record.root, True, words)
    answer = call(["scontrol", "requeue", job_id])
    if not answer.ok:
        if answer.code is None or any(words in answer.err.lower() for words in _NO_ANSWER):
            raise UnavailableError(f"Slurm did not take it: {_said(answer)}", hint="try again in a while")
        raise UsageError(
            f"Slurm does not queue job {job_id} again: {_said(answer)}", hint=f"hpcft resume {record.name}"
        )
    note(record.root, "requeued", job_id=job_id, saves_first=False)
    return Steered(record.root, True, f"job {job_id} is queued again, from its newest checkpoint")


def note(root: Path, kind: str, **facts: object) -> None:
    """Write into the run's journal what was done, by whom, and from where."""
    with EventLog(RunPaths(root).client, sync_seconds=0) as journal:
        journal.append(kind, by=this_user(), host=this_host(), **facts)


def stop_process(record: Record, *, now: bool = False) -> None:
    """Let a job of this machine save and end, or end it at once.

    Of a local job submitit's controller passes TERM on to the ranks, and dies of any other signal. In an allocation
    the ranks are srun's: it passes USR2 on and ends them at QUIT. At TERM it ends them too, without letting them save,
    and when it is killed it leaves them behind.
    """
    inside = record.in_allocation
    asking, ending = (signal.SIGUSR2, signal.SIGQUIT) if inside else (signal.SIGTERM, signal.SIGKILL)
    signal_local(record.job_id or "", ending if now else asking, whole=now or inside)


def _stop_process(standing: Standing) -> Steered:
    record, host = standing.record, str(standing.record.intent.get("host") or this_host())
    if host != this_host():
        return Steered(record.root, False, f"left alone: it was started on {host}; cancel it there")
    job_id = record.job_id or ""
    # First, so that the end of the process is never taken for a failure.
    note(record.root, "cancelled", job_id=job_id)
    stop_process(record)
    return Steered(record.root, True, "stops as soon as it has saved")


def _job_in_doubt(submission: Submission | None) -> str | None:
    """The job of a submission that was never confirmed.

    Raises:
        UnavailableError: Slurm does not answer.
    """
    if submission is None:
        return None
    looked = look_up([submission.key], submission.time)
    job_id = looked.jobs.get(submission.key)
    if job_id is None and not looked.queue_answers:
        raise UnavailableError("Slurm does not answer, so it is not known whether there is a job", hint="try again")
    return job_id if job_id is not None and ask([job_id])[job_id].is_active else None


def _said(answer: Answer) -> str:
    lines = [line.strip() for line in answer.err.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {answer.code}"

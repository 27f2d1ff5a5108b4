"""A sweep's trials as arrays of Slurm: one `sbatch` for as many as an array holds, each exactly once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from hpcft.cluster.limits import chunks, limits
from hpcft.cluster.profile import Profile
from hpcft.cluster.queue import SQUEUE, Jobs, QueueInfo
from hpcft.cluster.render import render_array
from hpcft.cluster.slurm import call
from hpcft.cluster.submit import record_intent, submit_script
from hpcft.errors import UnavailableError
from hpcft.runs.submission import Journal
from hpcft.runs.sweep import Chunk, SweepFolder, SweepPaths, number_text
from hpcft.spec.job import Job


@dataclass(frozen=True)
class Queued:
    """What became of trials that were to be submitted.

    Attributes:
        job_ids: of the arrays.
        left: numbers of the trials that the limits leave no room for.
        reason: the limit, in words.
    """

    job_ids: list[str]
    left: list[int]
    reason: str


def array_script(
    sweep: SweepPaths,
    job: Job,
    profile: Profile,
    key: str,
    numbers: Sequence[int],
    concurrency: int | None,
    behind: Sequence[str] = (),
) -> str:
    """The batch script of one array.

    Args:
        key: of the submission.
        numbers: of its trials, ascending.
        concurrency: of its tasks at a time; None: as many as the cluster starts.
        behind: ids of arrays that end first, so that they share one limit.
    """
    offset = numbers[0]
    tasks = number_text([number - offset for number in numbers])
    array = tasks if concurrency is None else f"{tasks}%{concurrency}"
    return render_array(job, profile, sweep, key, array, offset, behind)


def submit_trials(
    sweep: SweepFolder, job: Job, profile: Profile, numbers: Sequence[int], say: Callable[[str], None]
) -> Queued:
    """Submit trials, as many as the cluster's limits leave room for, by as few calls as its arrays allow.

    Args:
        job: of all trials.
        numbers: ascending.
        say: receives warnings.

    Raises:
        ConfigError: Slurm refused an array. UnavailableError: it is not known whether one was queued.
    """
    found = limits(job)
    now = list(numbers) if found.room is None else list(numbers)[: found.room]
    concurrency = sweep.settings.concurrency if not sweep.settings.controlled else None
    # A limit of its own for each array would be several times the one that was asked for.
    behind = [c.submission.job_id for c in _in_queue(sweep) if c.submission.job_id] if concurrency else []
    paths, ids = sweep.paths.as_run, []
    for chunk in chunks(now, found.array_size, found.array_tasks):
        with Journal(paths) as journal:
            facts = {"offset": chunk[0], "trials": number_text(chunk)}
            key = record_intent(journal, job, profile, paths, sweep.settings.id, **facts)
            script = array_script(sweep.paths, job, profile, key, chunk, concurrency, behind)
            ids.append(submit_script(script, key, journal, say))
        behind = ids[-1:] if concurrency else []
    return Queued(ids, list(numbers)[len(now) :], found.reason)


def task_states(found: Sequence[Chunk]) -> dict[int, QueueInfo]:
    """What squeue says of the trials of some arrays, by their numbers; those that it does not know are left out.

    Raises:
        UnavailableError: the controller does not answer.
    """
    ids = [chunk.submission.job_id for chunk in found if chunk.submission.job_id]
    if not ids:
        return {}
    answer = call([*SQUEUE, "--jobs=" + ",".join(ids)])
    if not answer.ok and "invalid job id" not in answer.err.lower():
        raise UnavailableError(f"Slurm does not say which trials wait or run: {answer.err.strip()}", hint="try again")
    jobs = Jobs(answer.out)
    states: dict[int, QueueInfo] = {}
    for chunk in found:
        for number in chunk.numbers:
            info = jobs.get(f"{chunk.submission.job_id}_{number - chunk.offset}")
            if info is not None and (info.is_active or number not in states):
                states[number] = info
    return states


def in_queue(sweep: SweepFolder, numbers: Collection[int] | None = None) -> set[int]:
    """Numbers of the trials that wait or run.

    Args:
        numbers: those that are looked at; None: all.

    Raises:
        UnavailableError: the controller does not answer.
    """
    found = [chunk for chunk in sweep.chunks() if numbers is None or set(numbers) & set(chunk.numbers)]
    return {number for number, info in task_states(found).items() if info.is_active}


def _in_queue(sweep: SweepFolder) -> list[Chunk]:
    found = sweep.chunks()
    active = {number for number, info in task_states(found).items() if info.is_active}
    return [chunk for chunk in found if active & set(chunk.numbers)]

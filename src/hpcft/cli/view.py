"""What every verb that looks at runs shows of one: the same fields, the same words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.cluster.poll import Poll
from hpcft.cluster.queue import JobState
from hpcft.cluster.state import Standing, duration, moment, stand
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, RunState, label

if TYPE_CHECKING:
    from hpcft.runs.progress import Progress


def look(runs: Iterable[Run], poll: Poll | None = None) -> list[Standing]:
    """The states of runs now, Slurm asked rarely."""
    return stand([read_record(run.paths.root) for run in runs], poll or Poll())


def facts(standing: Standing, results: Path) -> dict[str, Any]:
    """A run as data: the keys are the same for every verb. Times are seconds since the epoch."""
    record, queue, status = standing.record, standing.queue, standing.record.heartbeat
    pending = queue is not None and queue.state is JobState.PENDING
    about = record.about
    return {
        "name": label(record.root, results),
        "run_id": record.run_id,
        "job_id": record.job_id,
        "cluster": record.cluster,
        "state": str(standing.state),
        "words": standing.words,
        "kind": about.get("job_kind"),
        "variant": about.get("variant"),
        "model": about.get("model"),
        "dataset": about.get("dataset"),
        "created": record.created,
        "attempt": status.attempt if status else None,
        "step": status.step if status and status.total_steps else None,
        "total_steps": (status.total_steps or None) if status else None,
        "loss": status.loss if status else None,
        "alive": record.alive_at,
        "queue_state": str(queue.state) if queue else None,
        "queue_reason": (queue.reason or None) if queue else None,
        "expected_start": queue.start if queue and pending else None,
        "ends_by": queue.end if queue and queue.state is JobState.RUNNING else None,
        "nodes": (queue.nodes or None) if queue else None,
        "asked": queue.as_of if queue else None,
        "directory": str(record.root.absolute()),
    }


def progress_facts(progress: Progress) -> dict[str, Any]:
    """How fast it goes, as data."""
    return {
        "steps_per_s": progress.steps_per_s,
        "tokens_per_s": progress.tokens_per_s,
        "left_s": progress.left_s,
        "peak_vram_gb": progress.peak_vram_gb,
    }


def progress_of(standing: Standing) -> Progress:
    """How fast a run goes; nothing of one that does not."""
    # A list tells no rates.
    from hpcft.runs.progress import Progress, read_progress

    return read_progress(standing.record) if standing.state is RunState.STARTED else Progress()


def step_text(standing: Standing) -> str:
    """`120/500`, or nothing before the first step."""
    status = standing.record.heartbeat
    return f"{status.step}/{status.total_steps}" if status and status.total_steps else ""


def loss_text(standing: Standing) -> str:
    """The last step's loss."""
    status = standing.record.heartbeat
    # A loss that is no number stands as a word.
    return "" if status is None or status.loss is None else f"{float(status.loss):.4f}"


def age_text(standing: Standing) -> str:
    """How long ago it was submitted."""
    return duration(time.time() - standing.record.created)


def limit_text(standing: Standing) -> str:
    """When its job has to have ended, while it runs."""
    queue = standing.queue
    if queue is None or queue.state is not JobState.RUNNING or queue.end is None:
        return ""
    return f"{moment(queue.end)}, in {duration(queue.end - time.time())}"


def asked_text(standings: Sequence[Standing], poll: Poll) -> str:
    """How old the scheduler's answer is, when it was needed: a line, or nothing."""
    if not any(s.queue is not None and not s.record.is_process for s in standings):
        return ""
    if poll.trouble:
        return f"Slurm does not answer: {poll.trouble}; it is asked again in {poll.next_s:.0f} s"
    age = poll.age_s
    return "" if age is None else f"Slurm was asked {duration(age)} ago, and is again in {poll.next_s:.0f} s"

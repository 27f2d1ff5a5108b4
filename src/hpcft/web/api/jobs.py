"""Jobs: submitted, steered, watched."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from hpcft.cli import show
from hpcft.cli.logs import check_rank, reader_of
from hpcft.cli.requeue import requeued
from hpcft.cli.view import look
from hpcft.cluster.explain import verdict_of
from hpcft.cluster.resume import resume
from hpcft.cluster.state import stand
from hpcft.cluster.steer import Steered, cancel
from hpcft.runs.record import read_record
from hpcft.web.api.experiments import TrainRequest, submitted
from hpcft.web.api.ids import RunId
from hpcft.web.experiments import find
from hpcft.web.settings import Settings


class Done(BaseModel):
    """What was done with a job.

    Attributes:
        done: false when there was nothing to do.
        words: what, in a sentence.
    """

    done: bool
    words: str


class Resumed(Done):
    """A job that goes on, and what was warned of."""

    run_id: str | None
    job_id: str
    warnings: list[str]


class Requeue(BaseModel):
    """How a job is queued again."""

    model_config = ConfigDict(extra="forbid")

    now: bool = Field(False, description="without saving first, for a job that hangs")


class Resume(BaseModel):
    """What is different from now on."""

    model_config = ConfigDict(extra="forbid")

    set: dict[str, str | int | float] = Field(
        default_factory=dict, max_length=50, description="resources, such as resources.time: 08:00:00"
    )


class Lines(BaseModel):
    """The end of a log.

    Attributes:
        left_out: whether there are earlier lines.
    """

    lines: list[str]
    left_out: bool


class Which(BaseModel):
    """Which log, and how much of it."""

    model_config = ConfigDict(extra="forbid")

    lines: int = Field(100, ge=1, le=10_000)
    rank: int | None = Field(None, ge=0, le=1_000_000, description="of this rank; else what the job has printed")
    attempt: int | None = Field(None, ge=1, le=1_000_000, description="of this one; else of the newest")


def router(settings: Settings) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/jobs", tags=["jobs"])
    results = settings.results

    @router.post("", status_code=202)
    def submit(request: TrainRequest) -> dict[str, Any]:
        """Submit a job, or show its script, what it asks for, whether it fits and what it costs at the most."""
        return submitted(request, settings)

    @router.post("/{experiment_id:run}/cancel")
    def cancel_job(experiment_id: RunId) -> Done:
        """Cancel a run's job; one that is over is left alone."""
        root = find(results, experiment_id).paths.root
        return _done(cancel(stand([read_record(root)]))[0])

    @router.post("/{experiment_id:run}/requeue")
    def requeue_job(experiment_id: RunId, how: Requeue | None = None) -> Done:
        """Queue a run's job again; it saves first if it trains, and goes on where it was."""
        root = find(results, experiment_id).paths.root
        return _done(requeued(root, now=how is not None and how.now))

    @router.post("/{experiment_id:run}/resume")
    def resume_job(experiment_id: RunId, changes: Resume | None = None) -> Resumed:
        """Go on with a run that is over and has not finished, from its newest checkpoint, as a new job."""
        run = find(results, experiment_id)
        pairs = [f"{key}={value}" for key, value in (changes.set if changes else {}).items()]
        warnings: list[str] = []
        job = resume(run.paths.root, pairs, warnings.append)
        words = f"goes on as job {job.job_id}"
        return Resumed(done=True, words=words, run_id=run.id, job_id=job.job_id, warnings=warnings)

    @router.get("/{experiment_id:run}/explain")
    def explain(experiment_id: RunId) -> dict[str, Any]:
        """Why a run failed, or has not: one verdict, its evidence, and the command that mends it."""
        run = find(results, experiment_id)
        return {"run": run.name, "run_id": run.id, "job_id": run.job_id, **verdict_of(run).document()}

    @router.get("/{experiment_id:run}/logs")
    def logs(experiment_id: RunId, which: Annotated[Which, Query()]) -> Lines:
        """The end of what a run has printed; with a rank or an attempt, of that one's log."""
        run = find(results, experiment_id)
        reader = reader_of(run, which.attempt, which.rank)
        check_rank(run, which.rank, reader)
        lines, left_out = reader.last(which.lines)
        return Lines(lines=lines, left_out=left_out)

    @router.get("/{experiment_id:run}")
    def one(experiment_id: RunId) -> dict[str, Any]:
        """A run's state and why, its attempts, its place in the queue, how fast it goes and what came out."""
        run = find(results, experiment_id)
        return show.document(run, look([run])[0], results)

    return router


def _done(steered: Steered) -> Done:
    return Done(done=steered.done, words=steered.words)

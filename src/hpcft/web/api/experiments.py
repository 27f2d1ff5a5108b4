"""Tasks and experiments: the routes of an earlier program, on runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from hpcft.cli.filters import choose
from hpcft.cli.stats import statistics
from hpcft.errors import UsageError
from hpcft.runs.marks import mark, marks_of
from hpcft.runs.run import label
from hpcft.web import experiments
from hpcft.web.api.ids import RunId
from hpcft.web.settings import Settings
from hpcft.web.submission import submit


class TrainRequest(BaseModel):
    """A job: the sections and keys of a job file, or the names of earlier programs; `preset` names one that comes
    ready."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = Field(description="such as {name, preset, variant, model: {name}, data: {dataset}, …}")
    preview: bool = Field(False, description="show the script and the whole configuration, and submit nothing")


class Filter(BaseModel):
    """Which experiments."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200, description="has this in its name")
    model: str | None = Field(None, max_length=200, description="has this in its model's name")
    dataset: str | None = Field(None, max_length=200, description="has this in its data set's name")
    variant: str | None = Field(None, max_length=64)
    kind: str | None = Field(None, max_length=64)
    state: list[str] = Field(default_factory=list, max_length=10)
    tag: list[str] = Field(default_factory=list, max_length=10)
    where: list[str] = Field(default_factory=list, max_length=20, description="conditions, such as lora.r>=8")
    min_accuracy: float | None = Field(None, ge=0, le=1)
    max_accuracy: float | None = Field(None, ge=0, le=1)
    max_runtime: float | None = Field(None, gt=0, description="seconds of training")
    start_date: str | None = Field(None, max_length=40, description="2026-11-20, or 3d for the last three days")
    end_date: str | None = Field(None, max_length=40)


class Listing(Filter):
    """Which of them, in which order."""

    sort_by: experiments.SortKey = "created_at"
    desc: bool = True
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=10_000_000)


class Marks(BaseModel):
    """Changes of an experiment's tags and note."""

    model_config = ConfigDict(extra="forbid")

    add_tags: list[str] = Field(default_factory=list, max_length=50)
    remove_tags: list[str] = Field(default_factory=list, max_length=50)
    notes: str | None = Field(None, max_length=65_536, description="in place of the note that is there")


class Marked(BaseModel):
    """An experiment's tags and note."""

    id: str
    tags: list[str]
    notes: str


def router(settings: Settings) -> APIRouter:
    """The routes, which stand at the root too, where the earlier program had them."""
    router = APIRouter()
    results = settings.results

    @router.post("/train", status_code=202)
    def train(request: TrainRequest) -> dict[str, Any]:
        """Submit a job. Its `task_id` is the run's id, under which /task and /experiments know it."""
        return submitted(request, settings)

    @router.get("/task/{task_id}")
    def task(task_id: str) -> dict[str, Any]:
        """How a task goes: PENDING, STARTED, SUCCESS with its result, FAILURE with the reason."""
        return experiments.task(results, task_id)

    @router.get("/experiments")
    def listing(asked: Annotated[Listing, Query()]) -> list[dict[str, Any]]:
        """Experiments, those that wait, run and failed too."""
        found, _ = experiments.listed(
            results,
            filters_of(results, asked),
            asked.sort_by,
            descending=asked.desc,
            limit=asked.limit,
            offset=asked.offset,
        )
        return found

    @router.get("/experiments/stats")
    def stats(asked: Annotated[Filter, Query()]) -> dict[str, Any]:
        """Counts, means and bests; null where no experiment has the figure."""
        return statistics(filters_of(results, asked))

    @router.get("/experiments/{experiment_id:run}")
    def one(experiment_id: RunId) -> dict[str, Any]:
        """One experiment by its name (`run` or `group/run`) or id, with its configuration and figures."""
        return experiments.one(results, experiment_id)

    @router.patch("/experiments/{experiment_id:run}")
    def change(experiment_id: RunId, changes: Marks) -> Marked:
        """Change an experiment's tags and note."""
        run = experiments.find(results, experiment_id)
        if changes.add_tags or changes.remove_tags or changes.notes is not None:
            mark(run.paths, added=changes.add_tags, removed=changes.remove_tags, notes=changes.notes)
        tags, notes = marks_of(run)
        return Marked(id=label(run.paths.root, results), tags=tags, notes=notes)

    return router


def submitted(request: TrainRequest, settings: Settings) -> dict[str, Any]:
    """Submit a job, or show what would be submitted."""
    told = submit(request.config, results=str(settings.results), cluster=settings.cluster, preview=request.preview)
    return told if request.preview else {"task_id": told["run_id"], **told}


def filters_of(results: Path, asked: Filter) -> Any:
    if any(len(text) > 200 for text in asked.where):
        raise UsageError("is longer than 200 characters", where="where")
    return choose(
        where=asked.where,
        state=asked.state,
        variant=asked.variant,
        kind=asked.kind,
        model=asked.model,
        dataset=asked.dataset,
        group=None,
        name=asked.name,
        tag=asked.tag,
        since=asked.start_date,
        until=asked.end_date,
        min_accuracy=asked.min_accuracy,
        max_accuracy=asked.max_accuracy,
        max_runtime=asked.max_runtime,
        results=results,
    )

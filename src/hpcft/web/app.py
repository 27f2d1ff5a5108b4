"""The routes. Each is a function of the rest of this package, which the command line has too; what is served stays the
same after a restart, since tasks are runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from hpcft import __version__
from hpcft.cli.filters import choose
from hpcft.cli.stats import statistics
from hpcft.errors import UsageError
from hpcft.web import experiments
from hpcft.web.errors import BY_EXIT_CODE, handle
from hpcft.web.guard import Access, Guard
from hpcft.web.submission import RefusedError, submit


@dataclass(frozen=True)
class Settings:
    """What a service serves.

    Attributes:
        results: folder of the run directories; where every submitted run goes.
        cluster: profile of what is submitted; None for the one that a submission takes by itself.
    """

    results: Path
    cluster: str | None = None


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


def create_app(settings: Settings, access: Access) -> Guard:
    """The service as an ASGI application."""
    app = FastAPI(
        title="hpcft",
        version=__version__,
        summary="Fine-tuning jobs of one user on a Slurm cluster",
        # Its pages load scripts of other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    handle(app)

    @app.exception_handler(RefusedError)
    def _refused(_: Any, error: RefusedError) -> JSONResponse:
        status, code = BY_EXIT_CODE.get(error.exit_code, (500, "TRAINING_ERROR"))
        return JSONResponse({**error.body, "error": code}, status)

    routes = _routes(settings)
    app.include_router(routes, prefix="/api/v1")
    # Where the earlier program had them.
    app.include_router(routes, include_in_schema=False)
    return Guard(app, access)


def _routes(settings: Settings) -> APIRouter:
    router = APIRouter()
    results = settings.results

    @router.post("/train", status_code=202)
    def train(request: TrainRequest) -> dict[str, Any]:
        """Submit a job. Its `task_id` is the run's id, under which /task and /experiments know it."""
        told = submit(request.config, results=str(results), cluster=settings.cluster, preview=request.preview)
        return told if request.preview else {"task_id": told["run_id"], **told}

    @router.get("/task/{task_id}")
    def task(task_id: str) -> dict[str, Any]:
        """How a task goes: PENDING, STARTED, SUCCESS with its result, FAILURE with the reason."""
        return experiments.task(results, task_id)

    @router.get("/experiments")
    def listing(asked: Annotated[Listing, Query()]) -> list[dict[str, Any]]:
        """Experiments, those that wait, run and failed too."""
        found, _ = experiments.listed(
            results,
            _filters(results, asked),
            asked.sort_by,
            descending=asked.desc,
            limit=asked.limit,
            offset=asked.offset,
        )
        return found

    @router.get("/experiments/stats")
    def stats(asked: Annotated[Filter, Query()]) -> dict[str, Any]:
        """Counts, means and bests; null where no experiment has the figure."""
        return statistics(_filters(results, asked))

    @router.get("/experiments/{experiment_id:path}")
    def one(experiment_id: str) -> dict[str, Any]:
        """One experiment by its name (`run` or `group/run`) or id, with its configuration and figures."""
        return experiments.one(results, experiment_id)

    return router


def _filters(results: Path, asked: Filter) -> Any:
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

"""What programs ask: JSON, typed, in one version."""

from __future__ import annotations

from fastapi import FastAPI

from hpcft.web.api import data, experiments, files, jobs, pareto, stream
from hpcft.web.errors import ERRORS
from hpcft.web.settings import Settings

PREFIX = "/api/v1"


def add_api(app: FastAPI, settings: Settings) -> None:
    """Add the routes."""
    of_tasks = experiments.router(settings)
    # What is a run's own comes before the run: a name may have a slash.
    for routes in (stream, jobs, files, data, pareto):
        app.include_router(routes.router(settings), prefix=PREFIX, responses=ERRORS)
    app.include_router(of_tasks, prefix=PREFIX, responses=ERRORS)
    app.include_router(of_tasks, include_in_schema=False)

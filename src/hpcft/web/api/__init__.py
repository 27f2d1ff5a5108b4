"""What programs ask: JSON, typed, in one version."""

from __future__ import annotations

from fastapi import FastAPI

from hpcft.web.api import experiments
from hpcft.web.settings import Settings

PREFIX = "/api/v1"


def add_api(app: FastAPI, settings: Settings) -> None:
    """Add the routes."""
    of_tasks = experiments.router(settings)
    app.include_router(of_tasks, prefix=PREFIX)
    app.include_router(of_tasks, include_in_schema=False)

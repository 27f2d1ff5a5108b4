"""What readers see: pages that the service draws, whole without a script, and live with one."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from hpcft.web.desk import Desk
from hpcft.web.pages import data, pareto, records, run, submit, track
from hpcft.web.pages.render import pages, static_answer
from hpcft.web.settings import Settings


def add_pages(app: FastAPI, settings: Settings) -> None:
    """Add the pages. They are not in the OpenAPI document, which is for programs."""
    desk = Desk(settings.results)
    for routes in (
        submit.router(settings),
        track.router(settings, desk),
        records.router(settings, desk),
        pareto.router(settings, desk),
        data.router(settings),
        run.router(settings),
    ):
        app.include_router(routes, include_in_schema=False)
    app.include_router(_others(), include_in_schema=False)


def _others() -> APIRouter:
    routes = pages()

    @routes.get("/")
    def first(request: Request) -> Response:
        """The page to begin with."""
        return RedirectResponse("records", 303)

    @routes.get("/static/{name}")
    def static(name: str) -> Response:
        """What pages load."""
        return static_answer(name)

    return routes

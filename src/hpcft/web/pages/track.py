"""What waits and what runs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hpcft.cli.view import asked_text, facts, limit_text, loss_text, progress_of, step_text
from hpcft.cluster.poll import Poll
from hpcft.cluster.state import Standing, duration, moment, stand
from hpcft.runs.index.query import Condition, Query
from hpcft.runs.record import read_record
from hpcft.web.desk import Desk
from hpcft.web.pages.render import page, pages
from hpcft.web.settings import Settings

# What has not finished is asked for its state; of those that ended long ago only the newest.
_LOOKED_AT = 300


def router(settings: Settings, desk: Desk) -> APIRouter:
    """The page, and the part of it that changes."""
    routes = pages()

    @routes.get("/track")
    def track(request: Request) -> Response:
        """Runs that wait or run."""
        return page(request, "track.html.j2", active="track", **_view(settings, desk))

    @routes.get("/fragments/track")
    def part(request: Request) -> Response:
        """The table alone."""
        return page(request, "track_table.html.j2", **_view(settings, desk))

    return routes


def _view(settings: Settings, desk: Desk) -> dict[str, Any]:
    poll = Poll()
    with desk.index() as index:
        rows = index.find(Query((Condition("state", "!=", "SUCCESS"),), limit=_LOOKED_AT)).rows
    told = stand([read_record(settings.results / row["run"]) for row in rows], poll)
    going = [standing for standing in told if not standing.state.is_over]
    return {"rows": [row(standing, settings) for standing in going], "asked": asked_text(going, poll)}


def row(standing: Standing, settings: Settings) -> dict[str, Any]:
    """A run that waits or runs, as pages show it."""
    going = progress_of(standing)
    told = facts(standing, settings.results)
    start = told["expected_start"]
    return {
        **told,
        "step_text": step_text(standing),
        "loss_text": loss_text(standing),
        "expected_text": f"{moment(start)}" if start else "",
        "ends_text": limit_text(standing),
        "left_text": duration(going.left_s) if going.left_s is not None else "",
        "rate_text": f"{going.steps_per_s:.3g}/s" if going.steps_per_s else "",
    }

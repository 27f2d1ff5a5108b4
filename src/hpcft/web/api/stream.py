"""A run as it goes, as server-sent events: for pages, and for programs that would rather not ask again and again."""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import aclosing

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent

from hpcft.runs.run import Run
from hpcft.web.api.ids import RunId
from hpcft.web.experiments import find
from hpcft.web.settings import Settings
from hpcft.web.watch import Watches


def router(settings: Settings) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["jobs"])
    watches = Watches(settings.results)

    def found(experiment_id: RunId) -> Run:
        # Before the answer begins, so that none that is not there is told with its status.
        return find(settings.results, experiment_id)

    @router.get("/jobs/{experiment_id:run}/stream", response_class=EventSourceResponse)
    async def stream(run: Run = Depends(found)) -> AsyncIterable[ServerSentEvent]:
        """A run as it goes: `state` with its facts when they change; `points`, a list of the curves' new points, of
        which one with a `loss` takes the place of all from its step on; `log`, a list of new lines; `end`, after which
        nothing comes: a client closes then."""
        async with aclosing(watches.follow(run.paths.root)) as events:
            async for event in events:
                yield ServerSentEvent(event=event.kind, data=event.data)

    return router

"""The service. It keeps nothing: what it serves stays the same after a restart, since tasks are runs."""

from __future__ import annotations

from fastapi import FastAPI

from hpcft import __version__
from hpcft.web.api import PREFIX, add_api
from hpcft.web.errors import handle
from hpcft.web.guard import Access, Guard
from hpcft.web.pages import add_pages
from hpcft.web.settings import Settings


def create_app(settings: Settings, access: Access) -> Guard:
    """The service as an ASGI application."""
    app = FastAPI(
        title="hpcft",
        version=__version__,
        summary="Fine-tuning jobs of one user on a Slurm cluster",
        # Its pages load scripts of other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
    )
    app.state.read_only = access.read_only
    handle(app)
    add_api(app, settings)
    add_pages(app, settings)
    return Guard(app, access)

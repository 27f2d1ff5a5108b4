"""What is known of data sets: their versions, and what was found in each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hpcft.cluster.state import moment
from hpcft.data.care.versions import current, versions
from hpcft.report.data_page import data_html
from hpcft.web.errors import Missing
from hpcft.web.languages import chosen
from hpcft.web.pages.render import own_file, page, pages
from hpcft.web.settings import Settings


def router(settings: Settings) -> APIRouter:
    """The pages."""
    routes = pages()

    @routes.get("/data")
    def sets(request: Request) -> Response:
        """All sets with their versions."""
        found: dict[str, list[Any]] = {}
        for version in versions(settings.results):
            found.setdefault(version.dataset, []).append(version)
        shown = {
            name: [
                {
                    "version": v.version,
                    "name": v.name,
                    "rows": v.num_samples,
                    "current": v is current(of),
                    "used": moment(v.used_at),
                    "decide": [r for r in v.report.get("recommendations", ()) if r["priority"] != "low"],
                }
                for v in sorted(of, key=lambda v: -v.used_at)
            ]
            for name, of in found.items()
        }
        return page(request, "data_page.html.j2", active="data", sets=shown)

    @routes.get("/data/{dataset}/{version}")
    def report(request: Request, dataset: str, version: str) -> Response:
        """What was found in a version: the page that `hpcft data validate --html` writes."""
        for found in versions(settings.results, dataset):
            if found.version == version:
                return own_file(data_html([found.report], chosen(request)))
        raise Missing("no such version")

    return routes

"""Versions of data sets, and what checks of data found."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from hpcft.data.care.versions import as_facts, find_version, versions
from hpcft.runs.files import read_json
from hpcft.web.api.ids import RunId
from hpcft.web.errors import Missing
from hpcft.web.experiments import find
from hpcft.web.settings import Settings


def router(settings: Settings) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["data"])
    results = settings.results

    @router.get("/data")
    def known() -> list[dict[str, Any]]:
        """The versions of data sets that runs have used, or that were recorded; oldest first."""
        return [as_facts(version) for version in versions(results)]

    @router.get("/data/{dataset}/{version}")
    def report(dataset: str, version: str) -> dict[str, Any]:
        """A version by its hash, the beginning of it, or its name, with what a check found."""
        found = find_version(f"{dataset}@{version}", results)
        if found is None:
            raise Missing("no such version", hint="GET /api/v1/data has all")
        return {**as_facts(found), "report": found.report}

    @router.get("/experiments/{experiment_id:run}/data")
    def of_run(experiment_id: RunId) -> list[dict[str, Any]]:
        """What a check of an experiment's data found, a report for each set; empty where none has been made."""
        return read_json(find(results, experiment_id).paths.data_report) or []

    return router

"""Runs by several measures, and which of them no other one beats."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from hpcft.cli.pareto import compare, document
from hpcft.report.pareto import NAMES
from hpcft.runs.index.query import Index
from hpcft.web.experiments import find
from hpcft.web.settings import Settings

Text = Annotated[str, Field(max_length=200)]


class Comparison(BaseModel):
    """What is compared; the options of `hpcft pareto`."""

    model_config = ConfigDict(extra="forbid")

    measure: list[Text] = Field(
        ["f1", "latency"],
        max_length=6,
        description=f"two to six: {', '.join(NAMES)}, or KEY, KEY:max, KEY:min of the metrics",
    )
    run: list[Text] = Field(default_factory=list, max_length=1000, description="these alone")
    by_variant: bool = Field(False, description="one point a variant: the mean over its runs")
    baseline: Text | None = Field(None, description="run or variant that the others' figures are divided by")
    mix_hardware: bool = False
    mix_datasets: bool = False
    reference: list[Text] = Field(default_factory=list, max_length=6, description="MEASURE=WORST, for a hypervolume")


def router(settings: Settings) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["pareto"])

    @router.get("/pareto")
    def pareto(asked: Annotated[Comparison, Query()]) -> dict[str, Any]:
        """Runs by several measures: which of them no other one beats."""
        options = asked.model_dump(exclude={"run", "measure"})
        if asked.run:
            return document(compare([find(settings.results, key) for key in asked.run], asked.measure, **options))
        with Index(settings.results) as index:
            return document(compare(index, asked.measure, **options))

    return router

"""All runs: filtered, ordered, grouped, and some of them side by side."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Annotated, Any, get_args
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from hpcft.cli.filters import choose
from hpcft.cli.listing import STATES, Filters, figure_text, stated
from hpcft.cli.stats import statistics
from hpcft.cluster.poll import Poll
from hpcft.cluster.state import duration
from hpcft.errors import HpcftError, UsageError
from hpcft.report.page import report_html
from hpcft.runs.index import query as asking
from hpcft.runs.index.query import Index, grouped
from hpcft.runs.run import RunState
from hpcft.spec.keys import fields
from hpcft.spec.variants import VARIANTS
from hpcft.web.desk import Desk
from hpcft.web.experiments import find
from hpcft.web.languages import chosen, text
from hpcft.web.pages.render import own_file, page, pages
from hpcft.web.settings import Settings

_A_PAGE = 50
_MOST_COMPARED = 20
_MOST_COLUMNS = 8
_FIGURES = (
    "total_experiments",
    "avg_runtime",
    "min_runtime",
    "avg_accuracy",
    "best_accuracy",
    "avg_tokens_per_sec",
    "avg_cpu_percent",
    "avg_memory_gb",
)
# Columns that a heading orders by.
_ORDERED = ("run", "kind", "variant", "model", "dataset", "step", "loss", "created")


class Asked(BaseModel):
    """What the form of the page says. Empty is not said."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field("", max_length=200)
    model: str = Field("", max_length=200)
    dataset: str = Field("", max_length=200)
    variant: str = Field("", max_length=64)
    kind: str = Field("", max_length=64)
    state: str = Field("", max_length=20)
    tag: str = Field("", max_length=64)
    where: str = Field("", max_length=500)
    since: str = Field("", max_length=40)
    until: str = Field("", max_length=40)
    show: str = Field("", max_length=500)
    sort: str = Field("created", max_length=100)
    desc: bool = False
    by: str = Field("", max_length=200)
    page: int = Field(1, ge=1, le=1_000_000)


def router(settings: Settings, desk: Desk) -> APIRouter:
    """The pages."""
    routes = pages()

    @routes.get("/records")
    def records(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Runs as a table, fifty at a time."""
        return _records(request, asked)

    def _records(request: Request, asked: Asked, error: HpcftError | None = None) -> Response:
        lang = chosen(request)
        # An unticked box is not sent, so the first look has the newest on top and says so in its form.
        descending = asked.desc if "sort" in request.query_params else True
        view: dict[str, Any] = {"rows": [], "groups": None, "total": 0, "shown": [], "by": []}
        if error is None:
            try:
                with desk.index() as index:
                    view |= _view(settings, index, asked, descending)
            except HpcftError as wrong:
                error = wrong
        return page(
            request,
            "records.html.j2",
            200 if error is None else 422,
            active="records",
            asked=asked,
            descending=descending,
            link=_links(request, asked, descending),
            ordered=_ORDERED,
            variants=list(VARIANTS),
            kinds=get_args(fields()["kind"].annotation),
            states=[state.upper() for state in STATES],
            last=max(1, -(-view["total"] // _A_PAGE)),
            choose=text("choose", lang, name="{name}"),
            state_words={str(state): text(str(state), lang) for state in RunState},
            error=error,
            **view,
        )

    @routes.get("/statistics")
    def of_all(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Counts, means and bests of the runs that the filters choose."""
        told: dict[str, Any] = {}
        try:
            told = statistics(_filters(settings, asked))
        except HpcftError as error:
            return _records(request, asked, error=error)
        figures = {key: told[key] for key in _FIGURES}
        states = told["states"]
        return page(request, "statistics.html.j2", active="records", figures=figures, states=states)

    @routes.get("/compare")
    def compare(request: Request, run: Annotated[list[str], Query(max_length=_MOST_COMPARED)]) -> Response:
        """Some runs side by side: the report that `hpcft report` writes."""
        found = [find(settings.results, name) for name in run]
        return own_file(report_html(found, ", ".join(r.name for r in found[:3]), lang=chosen(request)))

    return routes


def _links(request: Request, asked: Asked, descending: bool) -> Any:
    given = [(key, value) for key, value in request.query_params.multi_items() if key not in ("page", "sort", "desc")]

    def link(number: int = 1, sort: str | None = None) -> str:
        """The same question, another page of it or in another order."""
        down = descending if sort is None else (not descending if sort == asked.sort else sort == "created")
        order = [("sort", sort or asked.sort), *([("desc", "true")] if down else [])]
        return "?" + urlencode([*given, *order, *([("page", number)] if number > 1 else [])])

    return link


def _filters(settings: Settings, asked: Asked) -> Filters:
    return choose(
        where=_words(asked.where),
        state=[asked.state] if asked.state else [],
        variant=asked.variant or None,
        kind=asked.kind or None,
        model=asked.model or None,
        dataset=asked.dataset or None,
        group=None,
        name=asked.name or None,
        tag=[asked.tag] if asked.tag else [],
        since=asked.since or None,
        until=asked.until or None,
        min_accuracy=None,
        max_accuracy=None,
        max_runtime=None,
        results=settings.results,
    )


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _view(settings: Settings, index: Index, asked: Asked, descending: bool) -> dict[str, Any]:
    filters, shown = _filters(settings, asked), _words(asked.show)
    if len(shown) > _MOST_COLUMNS:
        raise UsageError(f"more than {_MOST_COLUMNS} columns", where="show")
    query = asking.Query(sort=asked.sort, descending=descending, show=tuple(shown))
    if by := _words(asked.by):
        for key in by:
            index.known(key)
        wanted = asking.Query(where=filters.conditions, show=tuple(dict.fromkeys([*by, *shown])))
        found = index.find(wanted)
        told = list(grouped(found.rows, by, shown))
        return {"groups": told, "by": by, "shown": shown, "total": len(found.rows)}
    query = replace(query, limit=_A_PAGE, offset=(asked.page - 1) * _A_PAGE)
    rows, total = stated(index, filters, query, Poll())
    return {"rows": [_shown(*row, ["loss", *shown]) for row in rows], "total": total, "shown": shown}


def _shown(row: dict[str, Any], state: RunState, words: str, figures: list[str]) -> dict[str, Any]:
    return {
        **row,
        "state": str(state),
        "words": "" if state is RunState.SUCCESS else words,
        "address": quote(row["run"]),
        "figures": [figure_text(row[key]) for key in figures],
        "age": duration(time.time() - float(row["created"] or 0)),
        "tags": json.loads(row["tags"] or "[]"),
    }

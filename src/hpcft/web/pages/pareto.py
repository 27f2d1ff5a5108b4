"""Which runs are worth their cost, by measures that the reader chooses."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from hpcft.cli.pareto import lack
from hpcft.errors import HpcftError
from hpcft.report.palette import group_styles
from hpcft.report.pareto import (
    NAMES,
    Front,
    Group,
    Measure,
    Point,
    check_comparable,
    figure,
    front,
    group_points,
    parse_measure,
    staircase,
)
from hpcft.report.pareto_picture import axis_label
from hpcft.report.points import indexed_points
from hpcft.runs.index.query import Index
from hpcft.web.desk import Desk
from hpcft.web.languages import chosen, text
from hpcft.web.pages.render import page, pages, up
from hpcft.web.settings import Settings

# Beside the front itself; more make a picture that nobody reads, and a heavy page.
_DOMINATED = 200
_LEFT_OUT = 20


def router(settings: Settings, desk: Desk) -> APIRouter:
    """The page."""
    routes = pages()

    @routes.get("/pareto")
    def pareto(
        request: Request,
        measure: Annotated[list[str], Query(max_length=8)] = ["f1", "latency"],  # noqa: B006
        other: Annotated[str, Query(max_length=300)] = "",
        by_variant: bool = False,
        mix: bool = False,
    ) -> Response:
        """The front of all runs that have the measures."""
        texts = [*dict.fromkeys(measure), *(part.strip() for part in other.split(",") if part.strip())]
        about: dict[str, Any] = {"drawn": None, "error": None, "left_out": {}, "measures": [], "points": [], "more": 0}
        try:
            about |= _found(settings, desk, request, [parse_measure(each) for each in texts], by_variant, mix)
        except HpcftError as error:
            about["error"] = error
        return page(
            request,
            "pareto_page.html.j2",
            200 if about["error"] is None else 422,
            active="pareto",
            names={name: words for name, (_, words) in NAMES.items()},
            chosen=texts,
            other=other,
            by_variant=by_variant,
            mix=mix,
            **about,
        )

    return routes


def _found(
    settings: Settings, desk: Desk, request: Request, measures: list[Measure], by_variant: bool, mix: bool
) -> dict[str, Any]:
    with desk.index() as index:
        asked = (*measures, by_variant, mix)
        found, groups, left_out = desk.kept(asked, index, lambda: _compared(index, measures, by_variant, mix))
    shown, more = _thinned(found)
    lang = chosen(request)
    better = {p.name: by for p, by in found.dominated}

    def verdict(point: Point) -> str:
        name = better.get(point.name)
        return text("on_front", lang) if name is None else text("dominated_by", lang, name=name)

    looks = group_styles(p.group for p in shown)
    rows = [
        {
            "name": p.name,
            "group": p.group,
            "values": {m.key: p.values[m.key] for m in measures},
            "figures": [figure(p, m, groups) for m in measures],
            "verdict": verdict(p),
            "front": p.name not in better,
            **({} if by_variant else {"link": f"{up(request)}runs/{quote(_run(p, settings.results))}"}),
        }
        for p in shown
    ]
    named = [{"key": m.key, "label": m.label, "axis": axis_label(m)} for m in measures]
    # Where no other point is better in two measures, one of the whole front's members stands.
    stairs = {f"{x.key} {y.key}": staircase(found.members, x, y) for x, y in permutations(measures, 2)}
    styles = {group: {"color": style.color, "shape": style.shape} for group, style in looks.items()}
    return {
        "drawn": {"measures": named, "styles": styles, "points": rows, "stairs": stairs} if rows else None,
        "measures": named,
        "points": rows,
        "left_out": dict(list(left_out.items())[:_LEFT_OUT]),
        "left_out_count": len(left_out),
        "more": more,
    }


def _run(point: Point, results: Path) -> str:
    """The run that a point is named after; of several of one name by their paths."""
    path = Path(point.name)
    return str(path.relative_to(results)) if path.is_absolute() and path.is_relative_to(results) else point.name


def _compared(
    index: Index, measures: list[Measure], by_variant: bool, mix: bool
) -> tuple[Front, dict[str, Group], dict[str, str]]:
    """The front, the groups that its points are means of, and which runs are left out, and why."""
    points, unread = indexed_points(index, [m.key for m in measures])
    counted = [p for p in points if len(p.lacks(measures)) < (len(measures) if by_variant else 1)]
    check_comparable(counted, mix_hardware=mix, mix_datasets=mix)
    groups = {g.name: g for g in group_points(points)} if by_variant else {}
    found = front([g.point for g in groups.values()] if by_variant else points, measures)
    known = {p.name: p for p in points} | {name: g.point for name, g in groups.items()}
    return found, groups, unread | {name: lack(known[name], keys) for name, keys in found.left_out.items()}


def _thinned(found: Front) -> tuple[list[Point], int]:
    """The front, and evenly spread ones of the others; how many are left away."""
    others = [point for point, _ in found.dominated]
    kept = others if len(others) <= _DOMINATED else [others[i * len(others) // _DOMINATED] for i in range(_DOMINATED)]
    return [*found.members, *kept], len(others) - len(kept)

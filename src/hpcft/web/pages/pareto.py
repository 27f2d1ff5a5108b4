"""Which runs are worth their cost, by measures that the reader chooses."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from hpcft.cli.pareto import Comparison, compare
from hpcft.errors import HpcftError
from hpcft.report.palette import group_styles
from hpcft.report.pareto import NAMES, Front, Point, figure, staircase
from hpcft.report.pareto_picture import axis_label
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
            about |= _found(settings, desk, request, texts, by_variant, mix)
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
    settings: Settings, desk: Desk, request: Request, asked: list[str], by_variant: bool, mix: bool
) -> dict[str, Any]:
    with desk.index() as index:

        def compared() -> Comparison:
            return compare(index, asked, by_variant=by_variant, mix_hardware=mix, mix_datasets=mix)

        comparison = desk.kept((*asked, by_variant, mix), index, compared)
    measures, groups, left_out = comparison.measures, comparison.groups, comparison.left_out
    shown, more = _thinned(comparison.front)
    lang = chosen(request)
    better = comparison.dominated_by

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
    stairs = {f"{x.key} {y.key}": staircase(comparison.front.members, x, y) for x, y in permutations(measures, 2)}
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


def _thinned(found: Front) -> tuple[list[Point], int]:
    """The front, and evenly spread ones of the others; how many are left away."""
    others = [point for point, _ in found.dominated]
    kept = others if len(others) <= _DOMINATED else [others[i * len(others) // _DOMINATED] for i in range(_DOMINATED)]
    return [*found.members, *kept], len(others) - len(kept)

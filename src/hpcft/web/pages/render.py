"""Pages out of templates: in the reader's language, with addresses that hold wherever a proxy puts the service."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Coroutine
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from hpcft.errors import HpcftError
from hpcft.report import template
from hpcft.report.chart import short
from hpcft.report.palette import DASHES, LINE_COLORS
from hpcft.web.errors import BY_EXIT_CODE, Missing, NoExperiment
from hpcft.web.languages import LANGUAGES, chosen, text

_HERE = files("hpcft.web")
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
# What a page of its own may load: nothing but what its meta element names by a digest besides.
OWN_FILE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
OWN_FILE += "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# Name → the files that it is put together from.
_STATIC = {
    "style.css": (template.FOLDER / "base.css", template.FOLDER / "report.css", _HERE / "static/pages.css"),
    "pages.js": (_HERE / "static/pages.js",),
    "pareto.js": (template.FOLDER / "pareto.js",),
    "icon.svg": (_HERE / "static/icon.svg",),
}
_YEAR_S = 31_536_000
# Bytes from which packing pays.
_WORTH = 2000
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@cache
def static(name: str) -> tuple[bytes, str] | None:
    """A file that pages load, and its digest; None where there is none of this name."""
    if name not in _STATIC:
        return None
    content = b"\n".join(part.read_bytes() for part in _STATIC[name])
    return content, hashlib.sha256(content).hexdigest()[:12]


def static_answer(name: str) -> Response:
    """The answer with such a file: its address changes with it, so it may be kept for good."""
    found = static(name)
    if found is None:
        return Response(status_code=404)
    kept = {"cache-control": f"private, max-age={_YEAR_S}, immutable"}
    return Response(found[0], media_type=f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8", headers=kept)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=ChoiceLoader([FileSystemLoader(str(_HERE / "templates")), FileSystemLoader(template.FOLDER)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["short"] = lambda value: short(value) if isinstance(value, float) else str(value)
    return found


def up(request: Request) -> str:
    """What leads from a page's address to the service's top: `./`, `../`, …

    Every address in a page begins with it, so it does not matter which part of the path a proxy has added.
    """
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * (path.count("/") - 1) or "./"


def page(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page.

    Args:
        name: of the template, `records.html.j2`.
        values: what it shows; everything is escaped.
    """
    lang = chosen(request)

    def t(key: str, **given: Any) -> str:
        return text(key, lang, **given)

    def in_language(code: str) -> str:
        asked = [pair for pair in request.query_params.multi_items() if pair[0] != "lang"]
        return "?" + urlencode([*asked, ("lang", code)])

    top = up(request)
    content = (
        _environment()
        .get_template(name)
        .render(
            t=t,
            lang=lang,
            languages=LANGUAGES,
            in_language=in_language,
            up=top,
            static=lambda file: f"{top}static/{file}?v={(static(file) or ('', ''))[1]}",
            read_only=request.app.state.read_only,
            colors=LINE_COLORS,
            dashes=[" ".join(map(str, dash)) for dash in DASHES],
            **values,
        )
    )
    answer = HTMLResponse(content, status, {"content-security-policy": _PAGE})
    if request.query_params.get("lang") in LANGUAGES:
        answer.set_cookie(
            "hpcft_lang",
            lang,
            max_age=31536000,
            path=request.scope.get("root_path") or "/",
            samesite="strict",
            httponly=True,
        )
    return answer


def own_file(content: str) -> HTMLResponse:
    """A page that is one file and names its own style and script, such as a report."""
    return HTMLResponse(content, headers={"content-security-policy": OWN_FILE})


def _light(request: Request, answer: Response) -> Response:
    """The answer packed, where the browser takes it: a form of all settings is mostly the same words."""
    if len(answer.body) >= _WORTH and "gzip" in request.headers.get("accept-encoding", ""):
        answer.body = gzip.compress(answer.body, 4, mtime=0)
        answer.headers["content-encoding"] = "gzip"
        answer.headers["content-length"] = str(len(answer.body))
    answer.headers["vary"] = "accept-encoding"
    return answer


class PageRoute(APIRoute):
    """A route whose errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors as a page."""
        handler = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                told = {"message": str(first["msg"]), "where": ".".join(map(str, first["loc"][1:])), "hint": None}
                return page(request, "error.html.j2", 422, active="", error=told)
            except (Missing, NoExperiment):
                told = {"message": text("not_found", chosen(request)), "where": None, "hint": None}
                return page(request, "error.html.j2", 404, active="", error=told)
            except HpcftError as error:
                return page(
                    request, "error.html.j2", BY_EXIT_CODE.get(error.exit_code, (500, ""))[0], active="", error=error
                )

        async def handle(request: Request) -> Response:
            return _light(request, await told(request))

        return handle


def pages() -> APIRouter:
    """A router for pages."""
    return APIRouter(route_class=PageRoute)

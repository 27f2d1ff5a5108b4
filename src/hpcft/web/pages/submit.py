"""Submitting from a page: the form, what is wrong with it, the preview, and the job."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse, Response

from hpcft.errors import HpcftError
from hpcft.runs.record import settings as changed_settings
from hpcft.spec import assets
from hpcft.spec.build import build
from hpcft.spec.layers import SpecError, mapping_layer, yaml_layer
from hpcft.web.errors import RefusedError
from hpcft.web.experiments import find
from hpcft.web.pages.form import as_texts, config_of, form_fields, sent
from hpcft.web.pages.render import page, pages, up
from hpcft.web.settings import Settings
from hpcft.web.submission import flat, submit


def router(settings: Settings) -> APIRouter:
    """The pages."""
    routes = pages()

    @routes.get("/submit")
    def asked(request: Request, of: str = "") -> Response:
        """The form; `of` names a run whose settings it begins with."""
        given: dict[str, str] = {}
        if of:
            changed = changed_settings(flat(find(settings.results, of).config))
            given = as_texts({key: value for key, value in changed.items() if key != "name"})
        return _form(request, given)

    @routes.post("/submit")
    async def answered(request: Request) -> Response:
        given = await sent(request)
        return await run_in_threadpool(_answer, request, settings, given)

    @routes.post("/submit/check")
    async def checked(request: Request) -> Response:
        """What is wrong with the form as it stands, and what its empty fields stand for where a preset says so: both
        by key."""
        given = await sent(request)
        problems = await run_in_threadpool(_problems, config_of(given))
        return JSONResponse({"problems": problems, "defaults": _defaults(given)})

    return routes


def _answer(request: Request, settings: Settings, given: dict[str, str]) -> Response:
    config = config_of(given)
    preview = given.pop("do", "preview") != "submit"
    if problems := _problems(config):
        return _form(request, given, problems, status=422)
    try:
        told = submit(
            config,
            results=str(settings.results),
            cluster=given.get("cluster") or settings.cluster,
            preview=preview,
        )
    except (RefusedError, HpcftError) as error:
        about = error.body if isinstance(error, RefusedError) else vars(error)
        return _form(request, given, error={k: about.get(k) for k in ("message", "where", "hint")}, status=422)
    if preview:
        return _form(request, given, previewed=told)
    return RedirectResponse(f"{up(request)}runs/{told['run']}", 303)


def _defaults(given: dict[str, str]) -> dict[str, str]:
    """What the chosen preset says, as the form's texts."""
    try:
        path = assets.find("jobs", given.get("preset", ""), what="preset", option="preset")
        return as_texts({key: value for key, (value, _) in yaml_layer(path).values.items()})
    except HpcftError:
        # There is none, or none of this name, which is told at its field.
        return {}


def _problems(config: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a job by itself; without its cluster, its data and its model being looked at."""
    values = dict(config)
    try:
        preset = values.pop("preset", None)
        layers = [] if preset is None else [yaml_layer(assets.find("jobs", preset, what="preset", option="preset"))]
        build([*layers, mapping_layer(values, "form")])
    except SpecError as error:
        return {problem.key or problem.where: problem.message for problem in error.problems}
    except HpcftError as error:
        return {error.where or "": error.message}
    return {}


def _form(
    request: Request,
    given: dict[str, str],
    problems: dict[str, str] | None = None,
    *,
    previewed: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    basics, others = form_fields()
    return page(
        request,
        "submit.html.j2",
        status,
        active="submit",
        basics=basics,
        others=others,
        presets=assets.names("jobs"),
        clusters=assets.names("hpc"),
        given=given,
        defaults=_defaults(given),
        problems=problems or {},
        previewed=previewed,
        error=error,
    )

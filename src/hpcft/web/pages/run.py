"""A run's page: how it goes, live, what came out of it, and what can be done with it."""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from hpcft.cli.requeue import requeued
from hpcft.cli.show import attempt_rows
from hpcft.cli.view import asked_text, look
from hpcft.cluster.explain import verdict_of
from hpcft.cluster.poll import Poll
from hpcft.cluster.resume import resume
from hpcft.cluster.state import duration, moment
from hpcft.cluster.steer import cancel
from hpcft.errors import HpcftError, UsageError
from hpcft.report.chart import Chart, line_chart, short
from hpcft.report.curves import read_curves
from hpcft.report.palette import line_style
from hpcft.report.summary import result_rows
from hpcft.runs.files import read_json
from hpcft.runs.logs import LogReader
from hpcft.runs.marks import mark, marks_of
from hpcft.runs.record import settings as changed_settings
from hpcft.runs.run import Run, RunState, label
from hpcft.web.beneath import listed
from hpcft.web.experiments import find
from hpcft.web.languages import chosen, text
from hpcft.web.pages.form import sent
from hpcft.web.pages.render import page, pages, up
from hpcft.web.pages.track import row
from hpcft.web.settings import Settings
from hpcft.web.submission import flat

_LINES = 200
_PREDICTIONS = 20
_FILES = 200
_FIRST_CURVES = ("train/loss", "train/learning_rate", "train/grad_norm")
_MOST_FIRST = 4
# Longer texts are for the file.
_LONGEST = 600


def router(settings: Settings) -> APIRouter:
    """The page, the parts of it that change while a job runs, and what its buttons do."""
    routes = pages()
    results = settings.results

    @routes.get("/fragments/state/{experiment_id:run}")
    def state(request: Request, experiment_id: str) -> Response:
        """How it stands."""
        return page(request, "run_state.html.j2", **_state(settings, find(results, experiment_id)))

    @routes.get("/fragments/curves/{experiment_id:run}")
    def curves(request: Request, experiment_id: str) -> Response:
        """Its curves."""
        return page(request, "run_curves.html.j2", **_curves(find(results, experiment_id), chosen(request)))

    @routes.get("/runs/{experiment_id:run}")
    def one(request: Request, experiment_id: str, first: int = 1) -> Response:
        """All of it."""
        return _page(request, settings, find(results, experiment_id), first)

    @routes.post("/actions/{action}/{experiment_id:run}")
    async def act(request: Request, action: str, experiment_id: str) -> Response:
        given = await sent(request)
        return await run_in_threadpool(_act, request, settings, action, experiment_id, given)

    return routes


def _act(request: Request, settings: Settings, action: str, name: str, given: dict[str, str]) -> Response:
    run = find(settings.results, name)
    root = run.paths.root
    try:
        match action:
            case "cancel":
                cancel(look([run]))
            case "requeue":
                requeued(root, now=False)
            case "resume":
                resume(root, [], lambda _: None)
            case "mark":
                added = [tag.strip() for tag in given.get("add", "").split(",") if tag.strip()]
                removed = [given["remove"]] if "remove" in given else []
                # An emptied note is not sent by the form, which has it as a field all the same.
                notes = None if removed else given.get("notes", "")
                mark(run.paths, added=added, removed=removed, notes=notes)
            case _:
                raise UsageError("is no action", where=action[:40])
    except HpcftError as error:
        return _page(request, settings, run, error=error)
    return RedirectResponse(f"{up(request)}runs/{quote(label(root, settings.results))}", 303)


def _page(request: Request, settings: Settings, run: Run, first: int = 1, error: HpcftError | None = None) -> Response:
    name = label(run.paths.root, settings.results)
    files = listed(settings.results, name)
    tags, notes = marks_of(run)
    reports = read_json(run.paths.data_report)
    shown = _state(settings, run) | _curves(run, chosen(request))
    return page(
        request,
        "run.html.j2",
        200 if error is None else 422,
        active="track" if not shown["is_over"] else "records",
        error=error,
        address=quote(name),
        about=_about(run, chosen(request)),
        tags=tags,
        notes=notes,
        log=LogReader(run.paths, of_ranks=False).last(_LINES)[0],
        scores=result_rows(run),
        pictures=[file["name"] for file in files if file["name"].endswith(".png") and "/" not in file["name"]],
        files=[{**file, "size": _size(file["size"]), "changed": moment(file["modified"])} for file in files[:_FILES]],
        more_files=max(0, len(files) - _FILES),
        reports=[
            {**report, "decide": [r for r in report.get("recommendations", ()) if r["priority"] != "low"]}
            for report in (reports if isinstance(reports, list) else [])
        ],
        config=[(key, _words(value)) for key, value in changed_settings(flat(run.config)).items()],
        **_predictions(run, max(1, first)),
        **shown,
    )


def _about(run: Run, lang: str) -> list[tuple[str, str]]:
    config = run.config
    model, data = config.get("model"), config.get("data")
    found = [
        (text("kind", lang), config.get("kind")),
        (text("variant", lang), config.get("variant")),
        (text("model", lang), model.get("name") if isinstance(model, dict) else None),
        (text("dataset", lang), data.get("dataset") if isinstance(data, dict) else None),
        ("id", run.id),
        ("job", f"{run.job_id} ({run.cluster})" if run.job_id else None),
    ]
    return [(what, str(value)) for what, value in found if value]


def _state(settings: Settings, run: Run) -> dict[str, Any]:
    """How a run stands, and why."""
    poll = Poll()
    standing = look([run], poll)[0]
    told = row(standing, settings)
    verdict = verdict_of(run, standing.queue).document() if standing.state is RunState.FAILURE else None
    began = standing.record.created
    return {
        "now": told,
        "run_name": told["name"],
        "is_over": standing.state.is_over,
        "steps": _steps(standing.state),
        "place": poll.place(run.job_id or "") if standing.state is RunState.PENDING else None,
        "verdict": verdict,
        "attempts": attempt_rows(run, standing),
        "age": duration(time.time() - began),
        "asked": asked_text([standing], poll),
        "can": _can(standing.state),
    }


def _steps(state: RunState) -> list[tuple[str, str]]:
    """The stepper: each state with `past`, `now` or nothing."""
    last = str(state) if state.is_over else str(RunState.SUCCESS)
    order = [str(RunState.PENDING), str(RunState.STARTED), last]
    at = 2 if state.is_over else 1 if state is RunState.STARTED else 0
    return [(each, "now" if i == at else "past" if i < at else "") for i, each in enumerate(order)]


def _can(state: RunState) -> list[str]:
    if state is RunState.SUCCESS:
        return []
    return ["resume"] if state.is_over else ["cancel", "requeue"] if state is RunState.STARTED else ["cancel"]


def _curves(run: Run, lang: str) -> dict[str, Any]:
    """The run's curves as charts, losses and scores first."""
    charts: list[Chart] = []
    for metric, of in read_curves({run.name: run}, budget=4000, most=300).items():
        curve = of[run.name]
        told = [short(point[1]) for point in (curve.first, curve.lowest, curve.highest, curve.last)]
        charts.append(
            line_chart(
                metric,
                {run.name: curve.points},
                {run.name: 0},
                x_label=text("x_step", lang),
                y_label=metric,
                head=text("curve_head", lang).split("|"),
                figures={run.name: [*told, f"{curve.count:,}"]},
            )
        )
    titles = [chart.title for chart in charts]
    first = [title for title in titles if title in _FIRST_CURVES or title.startswith("validation/")][:_MOST_FIRST]
    return {"charts": charts, "first_charts": first or titles[:1], "looks": {0: line_style(0)}}


def _predictions(run: Run, first: int) -> dict[str, Any]:
    """Some of the answers of the last validation, from the `first` on, counted from 1."""
    found: list[dict[str, str]] = []
    count = 0
    try:
        with run.paths.predictions.open(encoding="utf-8", errors="replace") as file:
            for line in islice(file, first - 1, first - 1 + _PREDICTIONS):
                found.append(_prediction(line))
        with run.paths.predictions.open("rb") as file:
            count = sum(1 for _ in file)
    except OSError:
        pass
    return {"predictions": found, "first": first, "prediction_count": count, "a_page": _PREDICTIONS}


def _prediction(line: str) -> dict[str, str]:
    try:
        told = json.loads(line)
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    references = told.get("references", told.get("reference", ""))
    asked = told.get("input", told.get("prompt", ""))
    shown = {"input": asked, "reference": references, "prediction": told.get("prediction", "")}
    return {key: _words(value)[:_LONGEST] for key, value in shown.items()}


def _words(value: Any) -> str:
    return " | ".join(map(str, value)) if isinstance(value, list) else str(value)


def _size(count: int) -> str:
    """Bytes in the unit that shows them best."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"

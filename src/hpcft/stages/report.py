"""One page about several runs, as the last stage of a pipeline."""

from __future__ import annotations

from typing import Any

from hpcft.report.page import report_html
from hpcft.runs.files import write_atomic
from hpcft.stages.carry import finish, finished_runs
from hpcft.train.context import Context


def report(context: Context) -> dict[str, Any]:
    """Write `report.html` about the job's runs.

    Raises:
        DataError: a run has not finished.
    """
    runs = finished_runs(context.job)
    context.say("working", f"writing a report about {len(runs)} runs")
    page = context.paths.root / "report.html"
    write_atomic(page, report_html(runs, context.paths.root.parent.name))
    return finish(context, {}, {"files": [page.name]})

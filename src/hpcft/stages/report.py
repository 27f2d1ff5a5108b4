"""One page about several runs, as the last stage of a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcft.errors import DataError
from hpcft.report.page import report_html
from hpcft.runs.files import write_atomic
from hpcft.runs.run import Run
from hpcft.stages.carry import finish
from hpcft.train.context import Context


def report(context: Context) -> dict[str, Any]:
    """Write `report.html` about the job's runs.

    Raises:
        DataError: a run has not finished.
    """
    runs = [Run(Path(path)) for path in context.job.runs]
    for run in runs:
        if run.end is None:
            raise DataError("has not finished, so there is nothing to report", where=str(run.paths.root))
    context.say("working", f"writing a report about {len(runs)} runs")
    page = context.paths.root / "report.html"
    write_atomic(page, report_html(runs, context.paths.root.parent.name))
    return finish(context, {}, {"files": [page.name]})

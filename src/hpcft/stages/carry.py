"""What a stage takes over from the run that it works on, and the end that all stages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcft.errors import DataError
from hpcft.report.points import LASTING
from hpcft.runs.files import write_json
from hpcft.runs.run import Run
from hpcft.spec.build import flat
from hpcft.spec.job import Job
from hpcft.train.context import Context
from hpcft.train.finish import mark_done

# What a model cost to make stays true of what is made from it; its scores only of the model itself.
COSTS = LASTING
SCORES = ("final/",)


def parent(job: Job) -> Run | None:
    """The run that a job works on.

    Raises:
        DataError: it is not there, or has not finished.
    """
    if job.of is None:
        return None
    run = Run(Path(job.of))
    if run.end is None:
        raise DataError("has not finished, so there is nothing to work on", where=job.of)
    return run


def finished_runs(job: Job) -> list[Run]:
    """The runs that a job is about.

    Raises:
        DataError: one has not finished.
    """
    runs = [Run(Path(path)) for path in job.runs]
    for run in runs:
        if run.end is None:
            raise DataError("has not finished, so there is nothing to tell of it", where=str(run.paths.root))
    return runs


def carried(job: Job, prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Summary metrics of the run that a job works on, by the beginnings of their names."""
    run = parent(job)
    return {} if run is None else {k: v for k, v in run.metrics.items() if k.startswith(prefixes)}


def finish(
    context: Context,
    metrics: dict[str, Any],
    artifacts: dict[str, Any],
    evaluation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write what a stage came to, on the first rank, and the end marker last."""
    if context.recorder is None:
        return {}
    paths = context.paths
    write_json(paths.metrics, metrics)
    write_json(paths.results_summary, {"config": flat(context.job), "evaluation": evaluation, "metrics": metrics})
    context.recorder.summary(metrics)
    context.recorder.event("end", step=0)
    context.recorder.events.sync()
    mark_done(paths, context.attempt, 0, artifacts)
    return metrics

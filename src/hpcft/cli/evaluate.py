"""`hpcft evaluate RUN`: the scores of any model on any data set, as a job."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import ANY_JOB, Request, takes_subject
from hpcft.cli.start import DRY_RUN, JSON, WAIT, start
from hpcft.cli.texts import SUBMIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft evaluate first --wait", "hpcft evaluate first --dataset test.csv --eval-samples 0 --cluster local"],
        SUBMIT_CODES,
    )
)
@takes_subject(
    "evaluate", (*ANY_JOB, "data.dataset", "data.eval_samples", "data.max_length", "data.task", "evaluation.")
)
def evaluate(request: Request, wait: bool = WAIT, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Score a model: its answers to a data set, with confidence intervals."""
    start(request, wait=wait, dry_run=dry_run, json=json)

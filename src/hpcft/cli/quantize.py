"""`hpcft quantize RUN`: a model in 8 or 4 bits, as a job."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import ANY_JOB, Request, takes_subject
from hpcft.cli.start import DRY_RUN, JSON, WAIT, start
from hpcft.cli.texts import SUBMIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft quantize first_merge --method bnb-int8 --wait",
            "hpcft quantize first_merge --method bnb-nf4 --dataset test.csv --cluster local",
        ],
        SUBMIT_CODES,
    )
)
@takes_subject("quantize", (*ANY_JOB, "quantize.", "data.eval_samples", "data.dataset"))
def quantize(request: Request, wait: bool = WAIT, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Store a whole model in fewer bits; it counts when its perplexity holds."""
    start(request, wait=wait, dry_run=dry_run, json=json)

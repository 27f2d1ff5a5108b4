"""`hpcft quantize RUN`: a model in 8 or 4 bits, as a job."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import ANY_JOB, Request, takes_subject
from hpcft.cli.start import start
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
def quantize(
    request: Request,
    wait: bool = typer.Option(False, "--wait", help="Follow the job to its end and print what came out."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the script and what it asks for; submit nothing."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Store a whole model in fewer bits; it counts when its perplexity holds."""
    start(request, wait=wait, dry_run=dry_run, json=json)

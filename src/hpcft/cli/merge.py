"""`hpcft merge RUN`: one model from an adapter and its base, as a job."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import ANY_JOB, Request, takes_subject
from hpcft.cli.start import DRY_RUN, JSON, WAIT, start
from hpcft.cli.texts import SUBMIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft merge first --wait",
            "hpcft merge first --set merge.dtype=bfloat16 --cluster local",
        ],
        SUBMIT_CODES,
    )
)
@takes_subject("merge", ANY_JOB)
def merge(request: Request, wait: bool = WAIT, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Merge an adapter into its base model, and compare the answers before and after."""
    start(request, wait=wait, dry_run=dry_run, json=json)

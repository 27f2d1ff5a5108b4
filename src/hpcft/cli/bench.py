"""`hpcft bench RUN`: latency, memory and FLOPs of a model, as a job."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import ANY_JOB, Request, takes_subject
from hpcft.cli.start import DRY_RUN, JSON, WAIT, start
from hpcft.cli.texts import SUBMIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft bench first --wait",
            "hpcft bench first --queries 50 --max-new-tokens 64 --cluster local",
        ],
        SUBMIT_CODES,
    )
)
@takes_subject("bench", (*ANY_JOB, "bench.", "data.dataset", "evaluation.max_new_tokens"))
def bench(request: Request, wait: bool = WAIT, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Measure a model's latency, memory and FLOPs on prompts of real data and on made-up ones."""
    start(request, wait=wait, dry_run=dry_run, json=json)

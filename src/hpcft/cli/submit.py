"""`hpcft submit`: one job, rendered, submitted, and followed when asked."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Request, takes_job
from hpcft.cli.start import DRY_RUN, JSON, WAIT, start
from hpcft.cli.texts import SUBMIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft submit --variant qlora --preset quickstart --cluster local --wait",
            "hpcft submit --variant lora --model quickstart --dataset pairs.csv --cluster slurm --nodes 2 --dry-run",
            "hpcft submit job.yaml lora.r=16 --set training.seed=7 --dry-run",
        ],
        SUBMIT_CODES,
    )
)
@takes_job
def submit(request: Request, wait: bool = WAIT, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Submit a job."""
    start(request, wait=wait, dry_run=dry_run, json=json)

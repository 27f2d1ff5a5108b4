"""`hpcft submit`: one job, rendered, submitted, and followed when asked."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Request, takes_job
from hpcft.cli.start import start
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
def submit(
    request: Request,
    wait: bool = typer.Option(False, "--wait", help="Follow the job to its end and print what came out."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the script and what it asks for; submit nothing."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Submit a job."""
    start(request, wait=wait, dry_run=dry_run, json=json)

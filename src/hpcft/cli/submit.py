"""`hpcft submit`: one job, rendered, submitted, and followed when asked."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Request, takes_job
from hpcft.cli.start import CONCURRENCY, DRY_RUN, JSON, WAIT, start
from hpcft.cli.texts import SUBMIT_CODES, ending
from hpcft.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft submit --variant qlora --preset quickstart --cluster local --wait",
            "hpcft submit --variant lora --model quickstart --dataset pairs.csv --cluster slurm --nodes 2 --dry-run",
            "hpcft submit job.yaml lora.r=16 --set training.seed=7 --dry-run",
            "hpcft submit job.yaml --sweep lora.r=4,8,16,32 --seeds 3 --dry-run",
        ],
        SUBMIT_CODES,
    )
)
@takes_job
def submit(
    request: Request,
    sweep: list[str] = typer.Option(
        None, "--sweep", metavar="KEY=A,B,C", help="Try each of these values: a trial for each combination."
    ),
    seeds: int = typer.Option(None, "--seeds", min=1, metavar="N", help="Each with N seeds, from training.seed on."),
    concurrency: int = CONCURRENCY,
    wait: bool = WAIT,
    dry_run: bool = DRY_RUN,
    json: bool = JSON,
) -> None:
    """Submit a job, or with --sweep or --seeds many trials of it."""
    if sweep or seeds is not None:
        from hpcft.cli.sweep import short_start

        short_start(request, sweep or [], seeds, concurrency, wait=wait, dry_run=dry_run, json=json)
        return
    if concurrency is not None:
        raise UsageError("is of the trials of a sweep", where="--concurrency", hint="with --sweep or --seeds")
    start(request, wait=wait, dry_run=dry_run, json=json)

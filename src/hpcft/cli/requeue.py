"""`hpcft requeue RUN`: put a running or ended job back into the queue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpcft.cli.cancel import print_steered
from hpcft.cli.complete import runs
from hpcft.cli.output import say
from hpcft.cli.texts import ending
from hpcft.runs.record import read_record
from hpcft.runs.run import find_run

if TYPE_CHECKING:
    from hpcft.cluster.steer import Steered

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft requeue first", "hpcft requeue first --now"],
        {
            0: "it is queued again, or saves and is then",
            2: "no such run, or there is nothing to queue again",
            69: "Slurm does not answer",
            75: "a local job does not stop",
        },
    )
)
def requeue(
    run: str = typer.Argument(
        ..., metavar="RUN", help="Directory, name, run id, job id, or a unique beginning of one.", autocompletion=runs
    ),
    now: bool = typer.Option(
        False,
        "--now",
        help="At once, without saving first: for a job that hangs. What came after a checkpoint is lost.",
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Queue a run's job again; it saves first if it trains, and goes on where it was. The job keeps its number."""
    print_steered([requeued(find_run(run, results).paths.root, now=now)], results, json)


def requeued(root: Path, *, now: bool = False) -> Steered:
    """Queue the job of a run again, or stop a local one and start it again.

    Args:
        root: the run directory.
        now: at once, without saving first: for a job that hangs.

    Raises:
        UsageError: it has finished, waits already, or Slurm has forgotten it.
        UnavailableError: Slurm does not answer. TryAgainError: a local job does not stop.
    """
    from hpcft.cluster.resume import restart_local
    from hpcft.cluster.state import stand
    from hpcft.cluster.steer import Steered, requeue

    standing = stand([read_record(root)])[0]
    if standing.record.is_process:
        submitted = restart_local(standing, say)
        return Steered(root, True, f"stopped and started again, as {submitted.job_id}")
    return requeue(standing, now=now)

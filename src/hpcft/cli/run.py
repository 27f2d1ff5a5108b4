"""`hpcft run`: the same job here and now, in the foreground."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from hpcft.cli.job_options import Plan, Request, plan, takes_job
from hpcft.cli.output import say, table
from hpcft.cli.texts import ending

if TYPE_CHECKING:
    from hpcft.cli.launch import Launched

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft run --preset quickstart --variant lora --max-steps 20",
            "hpcft run job.yaml --name again --max-steps 5",
            "salloc -N2 --gpus-per-node=4 hpcft run job.yaml",
        ],
        {0: "finished", 1: "", 2: "", 65: "", 75: "stopped by Ctrl-C with everything saved", 78: "", 130: ""},
    )
)
@takes_job
def run(request: Request) -> None:
    """Run a job here and now; inside salloc, on the whole allocation."""
    from hpcft.cli import launch
    from hpcft.cluster.steer import stop_process
    from hpcft.runs.record import read_record

    launched = start_here(request, plan)
    table("running", [("run", launched.run.name), ("log", str(launched.submitted.log))])
    try:
        launch.wait(launched)
        return
    except KeyboardInterrupt:
        say("\nstopping after this step, with everything saved; Ctrl-C again ends it at once")
        stop_process(read_record(launched.run.paths.root))
    try:
        launch.wait(launched)
    except KeyboardInterrupt:
        stop_process(read_record(launched.run.paths.root), now=True)
        raise typer.Exit(130) from None


def start_here(request: Request, make_plan: Callable[[Request, dict[str, str] | None], Plan]) -> Launched:
    """Start a job here and now; inside salloc, on the whole allocation.

    Args:
        make_plan: makes the job's plan of what was typed and of the allocation's resources.
    """
    from hpcft.cli import launch

    if launch.inside_allocation():
        planned = make_plan(request, launch.allocation())
        say(f"{planned.reason}; on the whole allocation: {planned.resolved.job.world_size} ranks")
        return launch.launch(planned, launch.start_in_allocation)
    planned = make_plan(replace(request, cluster=request.cluster or "local"), None)
    say(planned.reason)
    return launch.launch(planned)

"""`hpcft run`: the same job here and now, in the foreground."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Request, plan, takes_job
from hpcft.cli.output import say, table
from hpcft.cli.texts import ending

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

    if launch.inside_allocation():
        planned = plan(request, launch.allocation())
        say(f"{planned.reason}; on the whole allocation: {planned.resolved.job.world_size} ranks")
        launched = launch.launch(planned, launch.start_in_allocation)
    else:
        request.cluster = request.cluster or "local"
        planned = plan(request)
        say(planned.reason)
        launched = launch.launch(planned)
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

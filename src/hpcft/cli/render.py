"""`hpcft render`: the batch script as a file, to read or to submit with plain sbatch."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.job_options import Request, plan, takes_job
from hpcft.cli.output import say
from hpcft.cli.texts import ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft render --preset quickstart --cluster slurm", "hpcft render job.yaml --name mine --cluster slurm"],
        {0: "written", 2: "", 65: "", 77: "", 78: ""},
    )
)
@takes_job
def render(request: Request) -> None:
    """Make a run directory with the script in it, and print the script's path; `sbatch PATH` then submits it."""
    from hpcft.cli import launch

    planned = plan(request)
    say(planned.reason)
    prepared = launch.launch(planned, launch.write_script)
    path: Path = prepared.run.paths.script
    say(f"submit it with: sbatch {path}")
    print(path)

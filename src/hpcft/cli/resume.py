"""`hpcft resume RUN`: go on with a run that has stopped, failed or was cancelled, by a new job."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.complete import pairs, runs
from hpcft.cli.output import as_json, say, table
from hpcft.cli.texts import SUBMIT_CODES, ending
from hpcft.runs.run import find_run, label

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft resume first", "hpcft resume first --set resources.time=08:00:00 --set resources.mem_gb=64"],
        SUBMIT_CODES | {2: "no such run, or it has finished, waits or runs"},
    )
)
def resume(
    run: str = typer.Argument(
        ..., metavar="RUN", help="Directory, name, run id, job id, or a unique beginning of one.", autocompletion=runs
    ),
    changes: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help="Other resources from now on: --set resources.time=08:00:00; may be repeated.",
        autocompletion=pairs,
    ),
    wait: bool = typer.Option(False, "--wait", help="Follow the job to its end and print what came out."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Go on with a run from its newest checkpoint: the same run, id and directory, a new job."""
    from hpcft.cluster.resume import resume as resume_run

    found = find_run(run, results)
    submitted = resume_run(found.paths.root, changes, say)
    name = label(found.paths.root, results)
    facts = {"run": name, "run_id": found.id, "job_id": submitted.job_id, "cluster": found.cluster}
    facts |= {"log": str(submitted.log), "directory": str(found.paths.root)}
    if json:
        as_json(facts)
    else:
        table("goes on", [(key.replace("_", " "), str(value)) for key, value in facts.items()])
    if wait:
        from hpcft.cli.launch import Launched
        from hpcft.cli.launch import wait as follow_launched

        follow_launched(Launched(found, submitted), quiet=json)

"""`hpcft explain RUN`: why a run failed, the line that says so, and the command that mends it."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import as_json, printable
from hpcft.cli.texts import ending
from hpcft.runs.run import find_run

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft explain first", "hpcft explain results/first --json"],
        {0: "told, whatever the verdict", 2: "no such run, or several", 65: ""},
    )
)
def explain(
    run: str = typer.Argument(
        ..., metavar="RUN", help="Directory, name, run id, job id, or a unique beginning of one.", autocompletion=runs
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Why a run failed: one verdict, its evidence, and the command that mends it."""
    found = find_run(run, results)
    from hpcft.cluster.explain import verdict_of

    verdict = verdict_of(found)
    if json:
        as_json({"run": found.name, "run_id": found.id, "job_id": found.job_id, **verdict.document()})
        return
    print(printable(f"{found.name}: {verdict.line()}"))
    for line in verdict.lines()[1:]:
        print(printable(line))

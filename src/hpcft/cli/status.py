"""`hpcft status RUN…`: one line a run and an exit code that a script can wait for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpcft.cli.complete import runs_and_groups
from hpcft.cli.output import as_json, printable
from hpcft.cli.texts import ending
from hpcft.runs.run import RunState, find_runs, label

if TYPE_CHECKING:
    from hpcft.cluster.state import Standing

app = typer.Typer(rich_markup_mode=None, add_completion=False)

GOING, OVER = 75, 1


@app.command(
    epilog=ending(
        ["hpcft status first", "hpcft status first --json", "until hpcft status first; do sleep 60; done"],
        {
            0: "all have finished",
            1: "one or more have failed, were cancelled, or stopped and do not go on by themselves",
            2: "no such run, or several",
            75: "none of that, and one or more wait, run, or cannot be told now",
        },
    )
)
def status(
    run: list[str] = typer.Argument(
        ...,
        metavar="RUN…",
        help="Runs (directory, name, run id, job id, unique beginning), or a pipeline's or sweep's name.",
        autocompletion=runs_and_groups,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print the states as JSON."),
) -> None:
    """Tell how runs are: a line each, and an exit code."""
    from hpcft.cli.view import facts, look

    standings = look(find_runs(run, results))
    if json:
        as_json([facts(standing, results) for standing in standings])
    else:
        for standing in standings:
            print(printable(line(standing, results)))
    raise typer.Exit(exit_code([standing.state for standing in standings]))


def line(standing: Standing, results: Path) -> str:
    """`name: STATE, step 3/20, loss 0.5, words`."""
    from hpcft.cli.view import loss_text, step_text

    step, loss = step_text(standing), loss_text(standing)
    parts = [str(standing.state), f"step {step}" if step else "", f"loss {loss}" if loss else "", standing.words]
    return f"{label(standing.record.root, results)}: " + ", ".join(part for part in parts if part)


def exit_code(states: list[RunState]) -> int:
    """What a script learns from several runs at once: trouble first."""
    if any(state.is_over and state is not RunState.SUCCESS for state in states):
        return OVER
    return GOING if any(not state.is_over for state in states) else 0

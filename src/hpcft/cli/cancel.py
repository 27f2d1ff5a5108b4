"""`hpcft cancel RUN…`: end the jobs of runs, and say what was done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpcft.cli.complete import runs_and_groups
from hpcft.cli.output import as_json, printable
from hpcft.cli.texts import ending
from hpcft.runs.record import read_record
from hpcft.runs.run import find_runs, group_folder, label
from hpcft.runs.sweep import SweepFolder, SweepPaths

if TYPE_CHECKING:
    from hpcft.cluster.steer import Steered

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft cancel first", "hpcft cancel mysweep", "hpcft cancel mysweep/0003"],
        {
            0: "cancelled, or nothing was left to cancel",
            2: "no such run, or several; or a sweep whose controller runs on another machine",
            69: "Slurm does not answer",
            75: "a sweep's controller does not end",
        },
    )
)
def cancel(
    run: list[str] = typer.Argument(
        ...,
        metavar="RUN…",
        help="Runs (directory, name, run id, job id, unique beginning), or a pipeline's or sweep's name for all of it.",
        autocompletion=runs_and_groups,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Cancel runs. What is over is left alone; hpcft resume goes on with what was cancelled."""
    from hpcft.cluster.state import stand
    from hpcft.cluster.steer import Steered, cancel_arrays
    from hpcft.cluster.steer import cancel as cancel_runs

    # Nothing is done when one of the names is wrong.
    find_runs(run, results)
    folders = [folder for text in run if (folder := group_folder(text, results))]
    # First, so that no further trial of a sweep starts meanwhile.
    done = [Steered(folder, True, "its controller has ended") for folder in folders if _end_controller(folder)]
    for folder in folders:
        done += cancel_arrays(folder)
    done += cancel_runs(stand([read_record(r.paths.root) for r in find_runs(run, results)]))
    print_steered(done, results, json)


def _end_controller(folder: Path) -> bool:
    if not SweepPaths(folder).settings.is_file() or not (sweep := SweepFolder(folder)).settings.controlled:
        return False
    from hpcft.cluster.controller import end_controller

    return end_controller(sweep)


def print_steered(done: Sequence[Steered], results: Path, json: bool) -> None:
    """What was done with each run."""
    if json:
        as_json([{"name": label(d.root, results), "done": d.done, "words": d.words} for d in done])
        return
    for steered in done:
        print(printable(f"{label(steered.root, results)}: {steered.words}"))

"""`hpcft show RUN`: one run's state, scores, costs and files, from its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import as_json, table
from hpcft.cli.texts import ending
from hpcft.report.summary import file_rows, result_rows
from hpcft.runs.run import Run, RunState, find_run

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft show first", "hpcft show results/first --json"], {0: "shown", 2: "no such run, or several", 65: ""}
    )
)
def show(
    run: str = typer.Argument(
        ..., metavar="RUN", help="Directory, name, run id, job id, or a unique beginning of one.", autocompletion=runs
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Show one run: state, scores, costs, files."""
    found = find_run(run, results)
    if json:
        as_json(_document(found))
        return
    table(found.name, _state_rows(found))
    table("scores and costs", result_rows(found))
    table("files", file_rows(found))


def _document(run: Run) -> dict[str, Any]:
    status = run.status
    return {
        "name": run.name,
        "run_id": run.id,
        "job_id": run.job_id,
        "cluster": run.cluster,
        "state": str(run.state),
        "status": None if status is None else vars(status),
        "attempts": run.paths.attempt_numbers(),
        "metrics": run.metrics,
        "directory": str(run.paths.root),
        "end": run.end,
    }


def _state_rows(run: Run) -> list[tuple[str, str]]:
    rows = [("state", str(run.state))]
    status = run.status
    if status is not None and run.state is not RunState.SUCCESS:
        what = "reason" if run.state is RunState.FAILURE else "doing"
        words = "; ".join((status.message or status.state).split("\n  "))
        rows.append((what, f"{words} ({status.age_s:.0f} s ago)"))
    if status is not None and status.total_steps:
        rows.append(("step", f"{status.step} of {status.total_steps}"))
    if status is not None and status.loss is not None:
        rows.append(("training loss", f"{float(status.loss):.4f}"))
    rows += [
        ("variant", str(run.config.get("variant"))),
        ("run id", run.id or "unknown"),
        ("job id", f"{run.job_id or 'none'} on {run.cluster or 'unknown'}"),
        ("attempts", str(len(run.paths.attempt_numbers()))),
        ("directory", str(run.paths.root)),
    ]
    unsure = [r for r in run.journal() if r["kind"] == "unsure"]
    if unsure and run.job_id is None:
        rows.append(("unsure", f"whether it was queued: {unsure[-1].get('message', '')}"))
    return rows

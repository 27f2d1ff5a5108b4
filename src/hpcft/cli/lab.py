"""`hpcft lab METHOD`: one PEFT method as a pipeline of jobs, and its pictures."""

from __future__ import annotations

from dataclasses import replace

import typer

from hpcft.cli.job_options import Request, takes_lab
from hpcft.cli.output import as_json, say, table
from hpcft.cli.texts import SUBMIT_CODES, ending
from hpcft.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft lab --list",
            "hpcft lab lora --cluster local --dry-run",
            "hpcft lab ia3 --model quickstart --dataset pairs.csv --lr 1e-3 --dry-run",
        ],
        SUBMIT_CODES,
    )
)
@takes_lab
def lab(
    request: Request,
    list_labs: bool = typer.Option(False, "--list", help="Print the methods and what each trains; submit nothing."),
    second_task: str = typer.Option(
        None,
        "--second-task",
        metavar="DATA",
        help="Of `adapter`: what its second adapter is trained on. [quickstart-notices]",
    ),
    wait: bool = typer.Option(False, "--wait", help="Follow the jobs to their end. Without Slurm this is always so."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the stages and what is left to do; submit nothing."),
    json: bool = typer.Option(False, "--json", help="Print the stages as JSON."),
) -> None:
    """Run the lab of a PEFT method: train, evaluate, measure base and tuned model, merge where it merges, draw."""
    from hpcft.cli.pipeline import run_stages
    from hpcft.spec.labs import LABS, PRESET, SECOND_TASK, find_lab, lab_pipeline

    if list_labs:
        _show_all(json)
        return
    if request.subject is None:
        raise UsageError("no method is named", where="METHOD", hint=f"one of {', '.join(LABS)}; hpcft lab --list")
    found = find_lab(request.subject)
    if second_task is not None and found.method != "adapter":
        raise UsageError("is of the lab of Adapter Layers", where="--second-task", hint="hpcft lab adapter")
    request = replace(request, preset=request.preset or PRESET)
    stages = run_stages(lab_pipeline(found, second_task or SECOND_TASK), request, wait=wait, dry_run=dry_run, json=json)
    if dry_run:
        return
    pictures = stages[-1].made()
    if stages[-1].done:
        say(f"pictures and report: {pictures.paths.root}")
        for path in sorted(pictures.paths.root.glob("*.png")):
            say(f"  {path.name}")
    else:
        say(f"pictures and report will be in {pictures.paths.root}; next: hpcft watch")
    say(f"{found.title}: {found.deploy}")


def _show_all(json: bool) -> None:
    from hpcft.spec.labs import LABS

    if json:
        rows = [
            {"number": one.number, "method": one.method, "title": one.title, "trains": one.about, "merges": one.merges}
            for one in LABS.values()
        ]
        as_json(rows)
        return
    table("labs", [(one.method, f"{one.number:02d} {one.title}: trains {one.about}") for one in LABS.values()])

"""`hpcft submit`: one job, rendered, submitted, and followed when asked."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Plan, Request, plan, takes_job
from hpcft.cli.output import as_json, say, table
from hpcft.cli.texts import ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft submit --variant qlora --preset quickstart --cluster local --wait",
            "hpcft submit --variant lora --model quickstart --dataset pairs.csv --cluster slurm --nodes 2 --dry-run",
            "hpcft submit job.yaml lora.r=16 --set training.seed=7 --dry-run",
        ],
        {
            0: "submitted; with --wait: finished",
            1: "with --wait: failed",
            2: "",
            65: "",
            69: "",
            75: "",
            77: "",
            78: "",
        },
    )
)
@takes_job
def submit(
    request: Request,
    wait: bool = typer.Option(False, "--wait", help="Follow the job to its end and print what came out."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the script and what it asks for; submit nothing."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Submit a job."""
    planned = plan(request)
    say(planned.reason)
    if dry_run:
        _show(planned, json)
        return
    from hpcft.cli import launch

    launched = launch.launch(planned)
    run = launched.run
    facts = {
        "run": run.name,
        "run_id": run.id,
        "job_id": launched.submitted.job_id,
        "cluster": planned.profile.name,
        "log": str(launched.submitted.log),
        "directory": str(run.paths.root),
    }
    if json and not wait:
        as_json(facts)
    elif not json:
        table("submitted", [(k.replace("_", " "), str(v)) for k, v in facts.items()])
    say(f"next: hpcft show {run.name}" + ("" if wait else f"; its log: tail -f {launched.submitted.log}"))
    if wait:
        try:
            launch.wait(launched)
        except KeyboardInterrupt:
            say(f"\nno longer followed; the job goes on. hpcft show {run.name}")
            raise typer.Exit(130) from None
        if json:
            as_json({**facts, "state": str(run.state), "metrics": run.metrics})


def _show(planned: Plan, json: bool) -> None:
    from hpcft.cli.launch import check, preview
    from hpcft.cluster.render import what_it_asks

    check(planned)
    asks = what_it_asks(planned.resolved.job, planned.profile)
    paths, script = preview(planned)
    if json:
        as_json({"asks": dict(asks), "script": script, "directory": str(paths.root)})
        return
    table("it asks for", asks)
    if planned.profile.scheduler == "local":
        say("the local cluster runs the worker without a script; this is the one that Slurm would get")
    print()
    print(script, end="")

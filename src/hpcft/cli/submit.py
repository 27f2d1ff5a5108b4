"""`hpcft submit`: one job, rendered, submitted, and followed when asked."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Plan, Request, plan, takes_job
from hpcft.cli.output import as_json, say, table

app = typer.Typer(rich_markup_mode=None)


@app.command(
    epilog="Examples: hpcft submit --variant qlora --preset quickstart --cluster local --wait; "
    "hpcft submit --variant lora --model meta-llama/Llama-3.2-1B --dataset pairs.csv --nodes 2 --gpus-per-node 4. "
    "Exit codes: 0 submitted (with --wait: finished), 65 bad data, 69 Slurm not reachable, 75 stopped and saved, "
    "77 not allowed, 78 bad configuration or refused by Slurm."
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

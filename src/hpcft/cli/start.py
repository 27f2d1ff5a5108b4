"""Submitting what was typed, whatever kind of job it is, and following it when asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from hpcft.cli.job_options import Plan, Request, plan, typed_layers
from hpcft.cli.output import as_json, say, table

# What every verb that submits a job takes besides.
WAIT = typer.Option(False, "--wait", help="Follow the job to its end and print what came out.")
DRY_RUN = typer.Option(False, "--dry-run", help="Print the script and what it asks for; submit nothing.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")
CONCURRENCY = typer.Option(
    None,
    "--concurrency",
    min=1,
    metavar="N",
    help="Trials at a time. Absent: as many as the cluster starts, 4 with a controller, 1 on this machine.",
)


def start(request: Request, *, wait: bool, dry_run: bool, json: bool) -> None:
    """Submit a job; or with `dry_run` show what would be submitted.

    Raises:
        HpcftError: it is refused, or with `wait` it failed.
    """
    if request.kind == "train" and wanted_variant(request) == "ptq":
        from hpcft.cli.pipeline import run_pipeline

        run_pipeline("ptq", request, wait=wait, dry_run=dry_run, json=json)
        return
    submit_plan(plan(request), wait=wait, dry_run=dry_run, json=json)


def submit_plan(planned: Plan, *, wait: bool, dry_run: bool, json: bool) -> None:
    """Submit a job that is built; or with `dry_run` show what would be submitted.

    Raises:
        HpcftError: it is refused, or with `wait` it failed.
    """
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


def wanted_variant(request: Request) -> str:
    """The variant that files, the environment and the command line ask for."""
    from hpcft.spec.build import merge

    return str(merge(typed_layers(request))[0].get("variant", ("", ""))[0])


def of_training(request: Request) -> Request:
    """What was typed, said of the job that trains: `ptq` is several jobs, and its training is LoRA's."""
    if wanted_variant(request) != "ptq":
        return request
    pairs = [pair for pair in request.pairs if pair.removeprefix("--").partition("=")[0] != "variant"]
    return replace(request, options={**request.options, "variant": ("lora", "--variant")}, pairs=pairs)


def previewed(planned: Plan) -> dict[str, Any]:
    """What would be submitted: `asks`, `script` and `directory`.

    Raises:
        HpcftError: it would be refused.
    """
    from hpcft.cli.launch import check, preview
    from hpcft.cluster.render import what_it_asks

    check(planned)
    paths, script = preview(planned)
    asks = dict(what_it_asks(planned.resolved.job, planned.profile))
    return {"asks": asks, "script": script, "directory": str(paths.root)}


def _show(planned: Plan, json: bool) -> None:
    found = previewed(planned)
    if json:
        as_json(found)
        return
    table("it asks for", list(found["asks"].items()))
    if planned.profile.scheduler == "local":
        say("the local cluster runs the worker without a script; this is the one that Slurm would get")
    print()
    print(found["script"], end="")

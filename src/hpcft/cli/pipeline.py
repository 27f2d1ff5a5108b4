"""`hpcft pipeline FILE`: jobs that work on each other's results, tied by Slurm, or one after the other without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.job_options import Request, takes_pipeline, typed_layers
from hpcft.cli.output import as_json, say, table
from hpcft.cli.stages import Planned, plan_stages
from hpcft.cli.texts import SUBMIT_CODES, ending
from hpcft.errors import HpcftError
from hpcft.runs.run import Run
from hpcft.spec import assets

if TYPE_CHECKING:
    from hpcft.spec.pipeline import Pipeline

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft pipeline compare_variants --model quickstart --dataset quickstart --cluster local --dry-run",
            "hpcft pipeline mine.yaml --wait",
        ],
        SUBMIT_CODES,
    )
)
@takes_pipeline
def pipeline(
    request: Request,
    wait: bool = typer.Option(False, "--wait", help="Follow the jobs to their end. Without Slurm this is always so."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the stages and what is left to do; submit nothing."),
    json: bool = typer.Option(False, "--json", help="Print the stages as JSON."),
) -> None:
    """Run a pipeline: stages whose runs are there already, unchanged, are kept."""
    run_pipeline(str(request.subject), request, wait=wait, dry_run=dry_run, json=json)


def run_pipeline(name: str, request: Request, *, wait: bool, dry_run: bool, json: bool) -> None:
    """Submit what is left of a pipeline's file.

    Raises:
        HpcftError: as `run_stages`.
    """
    from hpcft.spec.pipeline import read_pipeline

    found = read_pipeline(assets.find("jobs/pipelines", name, what="pipeline", option="PIPELINE"))
    run_stages(found, request, wait=wait, dry_run=dry_run, json=json)


def run_stages(found: Pipeline, request: Request, *, wait: bool, dry_run: bool, json: bool) -> list[Planned]:
    """Submit what is left of a pipeline.

    Returns:
        Its stages, in order.

    Raises:
        HpcftError: a stage is wrong or refused; without Slurm or with `wait`, a stage failed.
    """
    from hpcft.spec.build import merge

    typed = typed_layers(request)
    said = merge(typed)[0]
    called = str(said.pop("name", (found.name, ""))[0])
    results = Path(str(said.get("results", ("results", ""))[0])) / called
    stages = plan_stages(found, typed, request.cluster, results)
    first = stages[0].plan()
    say(first.reason)
    local = first.profile.scheduler == "local"
    queued = {} if local else _queued([s for s in stages if s.run is not None and not s.done])
    if not dry_run:
        for stage in stages:
            _begin(stage, stages, queued, local)
    else:
        for stage in stages:
            stage.job_id = queued.get(stage.stage.name)
    _show(stages, results, json, dry_run)
    if wait and not dry_run and not local:
        _follow(stages)
    failed = [s.stage.name for s in stages if not dry_run and (local or wait) and not s.done]
    if failed:
        raise HpcftError(
            f"not finished: {', '.join(failed)}",
            where=str(results),
            hint="mend the cause and run the same command again; what is finished is kept",
        )
    return stages


def _queued(stages: list[Planned]) -> dict[str, str]:
    """Ids of the jobs that wait or run for a stage already."""
    from hpcft.cluster.queue import ask

    ids = {s.stage.name: s.run.job_id for s in stages if s.run is not None and s.run.job_id}
    states = ask(list(ids.values()))
    return {name: job_id for name, job_id in ids.items() if not states[job_id].is_final}


def _begin(stage: Planned, stages: list[Planned], queued: dict[str, str], local: bool) -> None:
    """Submit a stage, or without Slurm do it now; one that is done or queued is kept."""
    from hpcft.cli import launch

    name = stage.stage.name
    if stage.done:
        say(f"{name}: kept, {stage.run.name if stage.run else ''} has it")
        return
    if name in queued:
        stage.job_id = queued[name]
        say(f"{name}: kept, job {stage.job_id} is in the queue")
        return
    missing = [p.stage.name for p in stage.parents if local and not p.done]
    if missing:
        say(f"{name}: not run, since {missing[0]} has not finished")
        stage.run = None
        return
    waits_for = [p.job_id for p in stage.parents if p.job_id and not p.done]
    made = all(p.done for p in stage.parents)
    try:
        launched = launch.launch(stage.plan(), after=waits_for, made=made, content=stage.content, stage=name)
    except HpcftError:
        submitted = [f"{s.stage.name} {s.job_id}" for s in stages if s.job_id]
        if submitted:
            say(f"in the queue already, and kept when the same command is run again: {', '.join(submitted)}")
        raise
    stage.run, stage.job_id = Run(launched.run.paths.root), launched.submitted.job_id
    say(f"{name}: {stage.run.name}, job {stage.job_id}" + (f", after {', '.join(waits_for)}" if waits_for else ""))
    if local:
        try:
            launch.wait(launched, quiet=True)
        except HpcftError as error:
            say(f"{name}: {error}")


def _follow(stages: list[Planned]) -> None:
    """Wait until each submitted stage has ended; Slurm cancels those behind one that failed."""
    from hpcft.cli.follow import follow

    for stage in stages:
        if stage.run is None or stage.done:
            continue
        standing = follow(stage.run)
        say(f"{stage.stage.name}: {standing.state}, {standing.words}")


def _show(stages: list[Planned], results: Path, json: bool, dry_run: bool) -> None:
    rows: list[dict[str, Any]] = []
    for stage in stages:
        state = "done" if stage.done else "queued" if stage.job_id else "to do" if dry_run else "not run"
        rows.append(
            {
                "stage": stage.stage.name,
                "kind": stage.stage.kind,
                "of": list(stage.stage.of),
                "state": state,
                "job_id": stage.job_id,
                "directory": str(stage.run.paths.root) if stage.run and (stage.done or stage.job_id) else None,
                "content": stage.content,
            }
        )
    if json:
        as_json({"results": str(results), "stages": rows})
        return
    shown = [(r["stage"], f"{r['state']:<8} {r['kind']:<9} {', '.join(r['of'])}".rstrip()) for r in rows]
    table(f"stages, in {results}", shown)

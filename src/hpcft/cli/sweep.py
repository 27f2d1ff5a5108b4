"""`hpcft sweep FILE`: many trials of one job as arrays of Slurm, or one after the other on this machine."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.job_options import Request, takes_sweep, typed_layers
from hpcft.cli.output import say
from hpcft.cli.start import CONCURRENCY, DRY_RUN, JSON, WAIT
from hpcft.cli.sweep_view import follow, preview, show, tell
from hpcft.cli.texts import ending
from hpcft.cli.trials import begin, make_sweep, plan_trials, sweep_layers
from hpcft.errors import HpcftError
from hpcft.runs.run import RunState
from hpcft.runs.sweep import PRUNED, SweepFolder, find_sweep, sweep_rows
from hpcft.spec import assets
from hpcft.spec.layers import Layer
from hpcft.spec.sweep import Sweep
from hpcft.spec.sweep_file import read_sweep

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft sweep rank --dry-run",
            "hpcft sweep learning_rate --model quickstart --count 8 --dry-run",
            "hpcft sweep mine.yaml --cluster slurm --concurrency 8 --dry-run",
        ],
        {0: "submitted; with --wait: every trial finished", 1: "with --wait: a trial failed"}
        | dict.fromkeys((2, 65, 69, 75, 77, 78), ""),
    )
)
@takes_sweep
def sweep(
    request: Request,
    count: int = typer.Option(None, "--count", min=1, metavar="N", help="Most trials; the file's run_cap when absent."),
    concurrency: int = CONCURRENCY,
    sweep_seed: int = typer.Option(0, "--sweep-seed", help="Of the values that are drawn or searched."),
    agents: int = typer.Option(
        None, "--agents", min=1, metavar="N", help="Start N agents of W&B instead, which ask its server for trials."
    ),
    sweep_id: str = typer.Option(
        None, "--sweep-id", metavar="ENTITY/PROJECT/ID", help="Of the agents, as `wandb sweep FILE` tells it."
    ),
    go_on: bool = typer.Option(False, "--continue", help="Go on with a sweep: submit what is left of its trials."),
    failed: bool = typer.Option(False, "--failed", help="With --continue: the trials that failed too."),
    status: bool = typer.Option(False, "--status", help="Show the trials of a sweep that was begun, the best one too."),
    stop: bool = typer.Option(False, "--stop", help="End a sweep's controller; trials that run go on."),
    wait: bool = WAIT,
    dry_run: bool = DRY_RUN,
    json: bool = JSON,
) -> None:
    """Try a grid, random values or a search: trials that are runs, as few arrays as Slurm allows."""
    named = str(request.subject)
    if go_on or status or stop:
        folder = find_sweep(named, _results(request))
        if stop:
            from hpcft.cluster.controller import stop_controller

            say(stop_controller(folder))
        elif status:
            show(folder, json)
        else:
            _continue(folder, failed=failed, wait=wait, json=json)
        return
    path = assets.find("sweeps", named, what="sweep", option="SWEEP")
    found = read_sweep(path)
    if agents is not None or sweep_id is not None:
        from hpcft.cli.agents import start_agents

        start_agents(
            sweep_layers(found, request), request.cluster, agents or 1, sweep_id, count, dry_run=dry_run, json=json
        )
        return
    start_sweep(
        found,
        sweep_layers(found, request),
        request.cluster,
        count=count,
        seed=sweep_seed,
        concurrency=concurrency,
        wait=wait,
        dry_run=dry_run,
        json=json,
    )


def start_sweep(
    found: Sweep,
    layers: list[Layer],
    cluster: str | None,
    *,
    count: int | None,
    seed: int,
    concurrency: int | None,
    wait: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Check all trials of a sweep and submit them, or with `dry_run` show what would be submitted.

    Raises:
        HpcftError: a trial is wrong, or refused; with `wait` one failed.
    """
    plan = plan_trials(found, layers, cluster, count=count, seed=seed, concurrency=concurrency)
    say(plan.base.reason)
    if dry_run:
        preview(plan, json)
        return
    folder = make_sweep(plan)
    begun = begin(folder, plan)
    tell(folder, begun, json=json and not wait)
    if wait:
        follow(folder)
        show(folder, json)
        _require_all(folder)


def _continue(folder: SweepFolder, *, failed: bool, wait: bool, json: bool) -> None:
    from hpcft.cli.trials import go_on

    begun = go_on(folder, failed=failed)
    tell(folder, begun, json=json and not wait)
    if wait:
        follow(folder)
        show(folder, json)
        _require_all(folder)


def _results(request: Request) -> Path:
    from hpcft.spec.build import merge

    return Path(str(merge(typed_layers(request))[0].get("results", ("results", ""))[0]))


def _require_all(folder: SweepFolder) -> None:
    rows = sweep_rows(folder.paths.root)
    ok = (RunState.SUCCESS, PRUNED)
    wrong = [str(row["run"]) for row in rows if row["state"] not in ok]
    if wrong:
        raise HpcftError(
            f"not finished: {', '.join(wrong[:10])}",
            where=str(folder.paths.controller_log if folder.settings.controlled else folder.paths.root),
            hint=f"hpcft sweep --continue {folder.name} goes on; of one: hpcft show {folder.name}/{wrong[0]}",
        )


def short_start(
    request: Request,
    texts: list[str],
    seeds: int | None,
    concurrency: int | None,
    *,
    wait: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """`hpcft submit … --sweep key=a,b --seeds N`: a grid around the job that was typed."""
    from hpcft.spec.build import merge
    from hpcft.spec.sweep import short_sweep

    typed = typed_layers(request)
    first = str(merge(typed)[0].get("training.seed", ("42", ""))[0])
    found = short_sweep(texts, seeds, int(first) if first.isdecimal() else 42)
    start_sweep(
        found,
        sweep_layers(found, request),
        request.cluster,
        count=None,
        seed=0,
        concurrency=concurrency,
        wait=wait,
        dry_run=dry_run,
        json=json,
    )

"""`hpcft sweep FILE`: many trials of one job as arrays of Slurm, or one after the other on this machine."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.job_options import Request, takes_sweep, typed_layers
from hpcft.cli.output import as_json, say
from hpcft.cli.start import CONCURRENCY, DRY_RUN, JSON, WAIT
from hpcft.cli.sweep_view import follow, preview, show, tell
from hpcft.cli.texts import ending
from hpcft.cli.trials import begin, make_sweep, plan_trials, sweep_layers
from hpcft.errors import HpcftError, UsageError
from hpcft.runs.run import RunState
from hpcft.runs.sweep import PRUNED, SweepFolder, find_sweep, number_text, sweep_rows
from hpcft.spec import assets
from hpcft.spec.layers import Layer
from hpcft.spec.sweep import Sweep
from hpcft.spec.sweep_file import read_sweep

# The options that mean something: of a sweep that begins, and of what else can be done.
_MEANS = {
    "": ("--count", "--concurrency", "--sweep-seed", "--wait", "--dry-run", "--json"),
    "--agents": ("--count", "--dry-run", "--json"),
    "--continue": ("--failed", "--wait", "--dry-run", "--json"),
    "--status": ("--json",),
    "--stop": ("--dry-run",),
}

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
    sweep_seed: int = typer.Option(
        None, "--sweep-seed", metavar="N", help="Of the values that are drawn or searched; 0 when absent."
    ),
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
    verbs = [
        flag
        for flag, on in {
            "--continue": go_on,
            "--status": status,
            "--stop": stop,
            "--agents": agents is not None or sweep_id is not None,
        }.items()
        if on
    ]
    given = {
        "--count": count is not None,
        "--concurrency": concurrency is not None,
        "--sweep-seed": sweep_seed is not None,
        "--failed": failed,
        "--wait": wait,
        "--dry-run": dry_run,
        "--json": json,
    }
    _refuse_idle(verbs, [flag for flag, on in given.items() if on])
    if go_on or status or stop:
        _refuse_values(request, verbs[0])
        folder = find_sweep(named, _results(request))
        if stop:
            from hpcft.cluster.controller import controller_of, stop_controller

            say(f"its controller: {controller_of(folder) or 'none runs'}" if dry_run else stop_controller(folder))
        elif status:
            show(folder, json)
        else:
            _continue(folder, failed=failed, wait=wait, dry_run=dry_run, json=json)
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
        seed=sweep_seed or 0,
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


def _refuse_idle(verbs: list[str], given: list[str]) -> None:
    """Refuse options that would do nothing.

    Raises:
        UsageError: two things are to be done, or an option means nothing for the one.
    """
    if len(verbs) > 1:
        raise UsageError(f"{verbs[0]} and {verbs[1]} exclude each other", where=verbs[1])
    verb = verbs[0] if verbs else ""
    for flag in given:
        if flag not in _MEANS[verb]:
            raise UsageError(f"means nothing with {verb}" if verb else "means nothing here", where=flag)


def _refuse_values(request: Request, verb: str) -> None:
    """Refuse values of a job whose sweep was begun with others; where it lies may be said.

    Raises:
        UsageError: with the first of them.
    """
    own = request.spelled("results")
    if own:
        raise UsageError(f"means nothing with {verb}: the sweep's jobs stay as they were begun", where=own[0][:60])


def _continue(folder: SweepFolder, *, failed: bool, wait: bool, dry_run: bool, json: bool) -> None:
    from hpcft.cli.trials import go_on

    begun = go_on(folder, failed=failed, dry_run=dry_run)
    if dry_run:
        left = begun["left"] or []
        if json:
            as_json({"sweep": folder.name, "trials": left})
        elif left:
            print(f"{len(left)} trials would be submitted: {number_text(left)}")
        return
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

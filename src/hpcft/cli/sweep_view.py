"""What is printed of a sweep: before it is submitted, while it runs, and what came out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from hpcft.cli.output import as_json, grid, printable, say, table
from hpcft.cli.trials import SweepPlan
from hpcft.errors import UnavailableError
from hpcft.runs.run import RunState
from hpcft.runs.sweep import PRUNED, SweepFolder, SweepPaths, best, sweep_rows

_SHOWN = 20
_LOOK_S = 2.0
_QUEUE_S = 15.0


def tell(folder: SweepFolder, begun: dict[str, Any], *, json: bool) -> None:
    """Print what was submitted."""
    facts = {"sweep": folder.name, "trials": folder.settings.trials, **begun, "directory": str(folder.paths.root)}
    if json:
        as_json(facts)
    else:
        shown = {k: ", ".join(v) if isinstance(v, list) else v for k, v in facts.items() if v not in (None, [], "", 0)}
        table("submitted", [(key, str(value)) for key, value in shown.items()])
    if begun["left"]:
        say(f"{begun['left']} trials are left: {begun['reason']}; later: hpcft sweep --continue {folder.name}")
    say(f"next: hpcft sweep --status {folder.name}")


def preview(plan: SweepPlan, json: bool) -> None:
    """Print the trials and the script of a sweep that is not submitted."""
    from hpcft.cluster.array import array_script
    from hpcft.cluster.limits import chunks, limits
    from hpcft.cluster.render import what_it_asks

    job, profile = plan.base.resolved.job, plan.base.profile
    slurm = profile.scheduler == "slurm"
    root = SweepPaths((Path(job.results) / (job.name or plan.base.stem)).absolute())
    found = limits(job) if slurm else None
    numbers = [trial.number for trial in plan.trials] or list(range(min(plan.most, plan.concurrency or 4)))
    arrays = chunks(numbers, found.array_size, found.array_tasks) if found else []
    limit = None if plan.controlled else plan.concurrency
    script = array_script(root, job, profile, "sweep-id", arrays[0] if arrays else numbers[:1], limit)
    room = found.room if found is not None and found.room is not None and found.room < len(numbers) else None
    if json:
        trials = [{"number": t.number, "overrides": t.overrides} for t in plan.trials]
        asks = dict(what_it_asks(job, profile))
        as_json(
            {
                "trials": plan.most,
                "overrides": trials,
                "arrays": len(arrays),
                "room": room,
                "asks": asks,
                "script": script,
                "directory": str(root.root),
            }
        )
        return
    rows = [("trials", str(plan.most)), ("method", plan.sweep.method)]
    rows += [("arrays", f"{len(arrays)}, one sbatch each")] if slurm and not plan.controlled else []
    rows += [("controller", "proposes, starts and ends trials")] if plan.controlled else []
    rows += [("metric", f"{plan.sweep.metric.name}, {plan.sweep.metric.goal}")]
    table("the sweep", rows)
    table("each trial asks for", what_it_asks(job, profile))
    keys = [p.key for p in plan.sweep.parameters]
    if plan.trials:
        grid(["trial", *keys], [[str(t.number), *(_cell(t.overrides[k]) for k in keys)] for t in plan.trials[:_SHOWN]])
    if len(plan.trials) > _SHOWN:
        say(f"and {len(plan.trials) - _SHOWN} more")
    if room is not None and found is not None:
        say(f"now there is room for {room} of them: {found.reason}")
    if not slurm:
        say("the local cluster runs the worker without a script; this is the one that Slurm would get")
    print()
    print(script, end="")


def show(folder: SweepFolder, json: bool) -> None:
    """Print a sweep's trials and the best of them."""
    rows, settings = sweep_rows(folder.paths.root), folder.settings
    top = best(rows, settings.goal)
    if json:
        as_json({"sweep": folder.name, "metric": settings.metric, "goal": settings.goal, "best": top, "trials": rows})
        return
    shown = rows
    if len(rows) > _SHOWN * 2:
        sign = 1 if settings.goal == "minimize" else -1
        valued = sorted((r for r in rows if r["value"] is not None), key=lambda r: sign * float(r["value"]))
        shown = [*valued, *(r for r in rows if r["value"] is None)][:_SHOWN]
    grid(
        ["trial", *settings.keys, "state", "step", settings.metric],
        [
            [
                str(r["run"]),
                *(_cell(r["overrides"].get(key)) for key in settings.keys),
                str(r["state"]),
                "-"
                if r["step"] is None
                else f"{r['step']} of {r['total_steps']}"
                if r["total_steps"]
                else str(r["step"]),
                "-" if r["value"] is None else f"{r['value']:.6g}",
            ]
            for r in shown
        ],
    )
    if len(shown) < len(rows):
        say(f"the best {len(shown)} of {len(rows)} trials")
    say(_summary(rows))
    if top is not None:
        values = ", ".join(f"{key}={_cell(value)}" for key, value in top["overrides"].items())
        say(printable(f"best: trial {top['run']} with {settings.metric} {top['value']:.6g} ({values})"))
    _say_of_controller(folder, rows)


def _say_of_controller(folder: SweepFolder, rows: list[dict[str, Any]]) -> None:
    from hpcft.cluster.controller import controller_of

    made = len(rows) >= folder.settings.trials
    if not folder.settings.controlled or (made and all(row["state"] in (RunState.SUCCESS, PRUNED) for row in rows)):
        return
    if (holder := controller_of(folder)) is not None:
        say(f"its controller runs: {holder}")
        return
    try:
        words = folder.paths.controller_log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        words = ""
    last = words.rpartition("\n")[2]
    say(printable(f"its controller has ended ({last}); hpcft sweep --continue {folder.name} goes on"))


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)
    return printable(text)


def _summary(rows: list[dict[str, Any]]) -> str:
    counted: dict[str, int] = {}
    for row in rows:
        counted[row["state"]] = counted.get(row["state"], 0) + 1
    return f"{len(rows)} trials: " + ", ".join(f"{count} {state.lower()}" for state, count in sorted(counted.items()))


def follow(folder: SweepFolder) -> None:
    """Wait until every trial has ended, with a line at each change. Ctrl-C ends the waiting alone."""
    said, next_ask = "", time.monotonic() + _QUEUE_S
    try:
        while True:
            rows = sweep_rows(folder.paths.root)
            if (words := _summary(rows)) != said:
                say(words)
                said = words
            if all(row["state"] in (RunState.SUCCESS, PRUNED) for row in rows) and not folder.settings.controlled:
                return
            if folder.settings.controlled or time.monotonic() >= next_ask:
                next_ask = time.monotonic() + _QUEUE_S
                if _is_over(folder):
                    return
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        say(f"\nno longer followed; the trials go on. hpcft sweep --status {folder.name}")
        raise typer.Exit(130) from None


def _is_over(folder: SweepFolder) -> bool:
    """Whether nothing of a sweep waits or runs any more."""
    from hpcft.cluster.array import in_queue
    from hpcft.cluster.controller import controller_of

    if folder.settings.controlled:
        return controller_of(folder) is None
    try:
        return not in_queue(folder)
    except UnavailableError:
        return False

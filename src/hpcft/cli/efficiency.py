"""`hpcft efficiency RUN…`: what runs asked for, what they used of it, and what to ask for next time."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import as_json, grid, say, table
from hpcft.cli.texts import ending
from hpcft.report.efficiency import Efficiency, Usage
from hpcft.report.efficiency import efficiency as look
from hpcft.runs.run import find_runs

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft efficiency first", "hpcft efficiency first second --json"],
        {0: "shown, also when none has started", 2: "no such run", 65: ""},
    )
)
def efficiency(
    run: list[str] = typer.Argument(
        ..., metavar="RUN...", help="Runs, pipelines or sweeps, as with hpcft show.", autocompletion=runs
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Tell what runs asked for and what they used: GPU-hours, queue, memory, cores, load, work done again."""
    found = look(find_runs(run, results))
    if json:
        as_json(found.facts())
        return
    if not found.runs:
        say("none of these runs has started yet")
        return
    _show(found)


def _show(found: Efficiency) -> None:
    head = ["run", "GPU-hours", "of asked", "waited", "ran", "trained", "redone", "data wait", "GPU", "GPU memory"]
    head += ["memory", "of", "cores", "of"]
    grid(head, [_row(usage) for usage in found.runs])
    totals = found.totals
    rows = [
        (key.replace("_hours", "").replace("_", " ").replace("gpu", "GPU"), f"{h:.3g} h") for key, h in totals.items()
    ]
    table("together", rows)
    table("next time", [(line.partition(": ")[0], line.partition(": ")[2]) for line in found.advice])


def _row(usage: Usage) -> list[str]:
    per_rank = None if usage.cpus is None else usage.cpus / (usage.nodes * usage.ranks_per_node)
    node_gb = None if usage.memory_gb is None else usage.memory_gb * usage.ranks_per_node
    return [
        usage.name,
        _text(usage.gpu_hours if usage.gpus else None),
        _text(usage.asked_gpu_hours if usage.gpus else None),
        _time(usage.waited_s),
        _time(usage.ran_s),
        _share(usage.trained),
        _share(usage.redone_s / usage.ran_s if usage.ran_s else None),
        _share(usage.data_wait),
        _share(None if usage.gpu_percent is None else usage.gpu_percent / 100),
        _text(usage.gpu_memory_gb, " GB"),
        _text(node_gb, " GB"),
        _text(usage.mem_gb, " GB"),
        _text(None if usage.cpu_percent is None else usage.cpu_percent / 100),
        _text(per_rank),
    ]


def _text(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _time(seconds: float | None) -> str:
    from hpcft.cluster.state import duration

    return "" if seconds is None else duration(seconds)

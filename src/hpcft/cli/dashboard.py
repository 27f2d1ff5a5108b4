"""`hpcft dashboard`: the comparison of runs, in wandb."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import runs as complete_runs
from hpcft.cli.output import as_json, printable, say
from hpcft.cli.pareto import find_baseline, lack, tell_left_out
from hpcft.cli.texts import ending
from hpcft.errors import HpcftError, UsageError
from hpcft.report.lineage import lineages
from hpcft.report.pareto import NAMES, Measure, check_comparable, check_measures, front, parse_measure, retention
from hpcft.report.points import read_points
from hpcft.runs.run import Run, find_runs, list_runs
from hpcft.spec.identifiers import identifier_fault

if TYPE_CHECKING:
    from hpcft.tracking.dashboard import Dashboard, Member

EXAMPLES = ["hpcft dashboard push --dry-run", "hpcft dashboard push --measure f1 --measure vram --dry-run"]

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    epilog=ending(EXAMPLES, {0: "ok", 2: "", 69: ""}),
)


@app.callback()
def _dashboard() -> None:
    """Dashboards in wandb, made from the run directories."""


@app.command(
    epilog=ending(
        EXAMPLES,
        {
            0: "written",
            2: "no such run or measure, or runs that cannot be compared",
            69: "no key is stored, wandb does not answer, or has none of the runs",
        },
    )
)
def push(
    run: list[str] = typer.Argument(
        None,
        metavar="[RUN]...",
        help="Directory, name, run id, job id, or a unique beginning; all runs when absent.",
        autocompletion=complete_runs,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    project: str = typer.Option(None, "--project", help="wandb's project; by default the one that the runs name."),
    entity: str = typer.Option(
        None, "--entity", help="wandb's user or team; by default the one that the runs name, else your own."
    ),
    measure: list[str] = typer.Option(
        ["f1", "latency"],
        "--measure",
        help=f"Two to six: {', '.join(NAMES)}, or KEY, KEY:max, KEY:min of metrics.json. The first two are drawn.",
        autocompletion=lambda incomplete: [name for name in NAMES if name.startswith(incomplete)],
    ),
    baseline: str = typer.Option(
        None, "--baseline", metavar="NAME", help="Run or variant that the report holds the others against."
    ),
    mix_hardware: bool = typer.Option(False, "--mix-hardware", help="Compare figures of different machines."),
    mix_datasets: bool = typer.Option(False, "--mix-datasets", help="Compare scores on different data sets."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print what would be sent as JSON, and send nothing."),
    json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Write a workspace view and a report into wandb: curves, comparison by variant, Pareto front.

    Those of an earlier push are written over. The runs must be in wandb: those that ran offline once `hpcft sync`
    has uploaded them.
    """
    from hpcft.tracking import dashboard as wandb_dashboard

    measures = [parse_measure(text) for text in measure]
    check_measures(measures)
    chosen = find_runs(run, results) if run else list_runs(results)
    if not chosen:
        raise UsageError("there is no run to show", where=str(results), hint="name some, or another --results")
    made = _gather(
        chosen,
        measures,
        _place("project", project, chosen) or "",
        _place("entity", entity, chosen),
        baseline,
        mix_hardware=mix_hardware,
        mix_datasets=mix_datasets,
    )
    if dry_run:
        as_json(made.document())
        return
    pushed = wandb_dashboard.push(made)
    names = {member.run_id: member.point.name for member in made.members}
    if pushed.missing:
        missing = ", ".join(names[run_id] for run_id in pushed.missing)
        say(printable(f"not in wandb, so in no plot there: {missing}; upload them with: hpcft sync"))
    if json:
        as_json({**vars(pushed), "summaries": made.summaries()})
    else:
        print(f"view    {pushed.view}\nreport  {pushed.report}")


def _gather(
    chosen: list[Run],
    measures: list[Measure],
    project: str,
    entity: str | None,
    baseline: str | None,
    **mix: bool,
) -> Dashboard:
    from hpcft.report.palette import group_styles
    from hpcft.tracking.dashboard import Dashboard, Member, logged_metrics
    from hpcft.tracking.projection import wandb_id

    points, left_out = read_points(chosen)
    check_comparable([p for p in points if not p.lacks(measures)], **mix)
    found = front(points, measures)
    left_out |= {p.name: lack(p, found.left_out[p.name]) for p in points if p.name in found.left_out}
    tell_left_out(left_out)
    rows = {row.name: row for row in lineages(chosen)}
    shown = _unique(run for row in rows.values() for run in (*reversed(row.before), *row.runs))
    ids = {run.paths.root: wandb_id(run) for run in shown}
    members: list[Member] = []
    for point in (*found.members, *(point for point, _ in found.dominated)):
        runs = rows[point.name].runs
        chief = _standing_for(runs, measures)
        others = tuple(ids[run.paths.root] for run in runs if run is not chief)
        members.append(Member(point, ids[chief.paths.root], others, point in found.members))
    compared = [member.point for member in members]
    held = None if baseline is None else find_baseline(baseline, compared, left_out)
    ranked = {member.run_id for member in members} | {other for member in members for other in member.others}
    colors: dict[str, str] = {}
    groups = {p.name: p.group for p in points}
    styles = group_styles(groups.values())
    for row in rows.values():
        if row.name in groups:
            colors |= {ids[run.paths.root]: styles[groups[row.name]].color for run in row.runs}
    return Dashboard(
        project=project,
        entity=entity,
        measures=measures,
        members=members,
        unranked=[run_id for run_id in ids.values() if run_id not in ranked],
        metrics=logged_metrics(shown),
        colors=colors,
        baseline=None if held is None else held.name,
        ratios={} if held is None else retention(compared, held, measures),
    )


def _unique(runs: Iterable[Run]) -> list[Run]:
    return list({run.paths.root: run for run in runs}.values())


def _standing_for(runs: tuple[Run, ...], measures: list[Measure]) -> Run:
    """The run that has most of the measures itself, as a benchmark has that carries the scores; of several the last."""
    return max(reversed(runs), key=lambda run: sum(m.key in run.metrics for m in measures))


def _place(key: str, given: str | None, runs: list[Run]) -> str | None:
    """The project or the entity: what the user said, else what the runs' configurations agree on."""
    named: dict[str, str] = {}
    for run in runs:
        try:
            value: Any = run.config.get("tracking", {}).get(key)
        except (HpcftError, AttributeError):
            # A damaged config is told of where the run's figures are read.
            continue
        if value:
            named.setdefault(str(value), run.name)
    if given is None and len(named) > 1:
        told = ", ".join(f"{value} ({name})" for value, name in named.items())
        raise UsageError(f"the runs name several: {told}", where=f"--{key}", hint=f"say which: --{key} NAME")
    value = given or next(iter(named), "hpcft" if key == "project" else None)
    if value is not None and (fault := identifier_fault(value)) is not None:
        raise UsageError(fault, where=f"--{key}")
    return value

"""`hpcft ls`: all runs, with filters; only those that are shown are read."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.filters import STATES, Filters, standings, takes_filters
from hpcft.cli.output import as_json, grid, say
from hpcft.cli.texts import ending
from hpcft.errors import UsageError

if TYPE_CHECKING:
    from hpcft.cluster.state import Standing
    from hpcft.runs.index.query import Index

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SHOWN = 50
# Orders by names of their own, and whether the largest comes first.
_ORDERS = {"time": ("created", True), "name": ("run", False), "step": ("step", True), "loss": ("loss", False)}


@app.command(
    epilog=ending(
        [
            "hpcft ls",
            "hpcft ls --state started --state pending --since 2d",
            "hpcft ls --variant qlora --where 'lora.r>=8' --sort f1 --show f1 --show lora.r",
            "hpcft ls --groups",
        ],
        {0: "listed, also when there is none", 2: ""},
    )
)
@takes_filters
def ls(
    filters: Filters,
    sort: str = typer.Option(
        "time", "--sort", "--sort-by", help="time (newest first), name, state, step, loss, or any setting or metric."
    ),
    descending: bool | None = typer.Option(None, "--desc/--asc", help="Largest or smallest first."),
    show: list[str] = typer.Option([], "--show", metavar="KEY", help="A column more; may be repeated."),
    limit: int | None = typer.Option(
        None, "--limit", min=0, help=f"So many at most, 0 for all. [{_SHOWN}; with --json all]", show_default=False
    ),
    by_group: bool = typer.Option(False, "--groups", help="One line for each pipeline and sweep."),
    json: bool = typer.Option(False, "--json", help="Print the runs as JSON."),
) -> None:
    """List the runs."""
    from hpcft.cli.view import asked_text, facts
    from hpcft.cluster.poll import Poll
    from hpcft.runs.index.query import Index, Query

    most = limit if limit is not None else 0 if json or by_group else _SHOWN
    key, down = _ORDERS.get(sort, ("created", True) if sort == "state" else (sort, True))
    poll = Poll()
    with Index(filters.results) as index:
        if key == sort and not index.has(key):
            _check_order(index, sort)
        query = Query(
            sort=key,
            descending=down if descending is None else descending,
            limit=most or None if sort != "state" else None,
            show=tuple(show),
        )
        found, rows, total = standings(index, filters, query, poll)
    if sort == "state":
        found.sort(key=lambda s: STATES.index(s.state.lower()), reverse=bool(descending))
        found = found[: most or None]
    if by_group:
        _groups(found, filters.results, json)
        return
    figures = [{name: rows[str(s.record.root)][name] for name in show} for s in found]
    if json:
        extra = [{"figures": each} if show else {} for each in figures]
        as_json([facts(s, filters.results) | more for s, more in zip(found, extra, strict=True)])
        return
    _table(found, filters.results, figures)
    if total > len(found):
        say(f"the first {len(found)} of {total:,} are shown; --limit 0 shows all")
    if asked := asked_text(found, poll):
        say(asked)


def _check_order(index: Index, sort: str) -> None:
    try:
        index.known(sort)
    except UsageError as error:
        others = f"{', '.join(_ORDERS)}, state, or what hpcft query --keys lists"
        raise UsageError(f"cannot sort by '{sort[:60]}'", where="--sort", hint=others) from error


def _table(found: list[Standing], results: Path, figures: list[dict[str, Any]]) -> None:
    from hpcft.cli.view import age_text, loss_text, step_text
    from hpcft.runs.run import label

    if not found:
        say(f"no such run in {results}")
        return
    rows = []
    for standing, more in zip(found, figures, strict=True):
        about = standing.record.about
        model, data = (Path(about.get(key, "")).name[:24] for key in ("model", "dataset"))
        row = [label(standing.record.root, results), str(standing.state), about.get("job_kind", "")]
        row += [about.get("variant", ""), model, data, step_text(standing), loss_text(standing), age_text(standing)]
        row += [figure_text(value) for value in more.values()]
        rows.append([*row, "" if standing.state == "SUCCESS" else standing.words[:60]])
    shown = list(figures[0])
    grid(["run", "state", "kind", "variant", "model", "data", "step", "loss", "age", *shown, "what"], rows)


def figure_text(value: Any) -> str:
    """A figure as a table shows it."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _groups(found: list[Standing], results: Path, json: bool) -> None:
    """Pipelines and sweeps, with how many of their runs are in each state."""
    by_folder: dict[Path, list[Standing]] = {}
    for standing in found:
        if standing.record.root.parent.absolute() != results.absolute():
            by_folder.setdefault(standing.record.root.parent, []).append(standing)
    rows: list[dict[str, Any]] = []
    for folder, members in by_folder.items():
        counted = Counter(str(s.state) for s in members)
        manifest = folder / "manifest.jsonl"
        planned = sum(1 for _ in manifest.open("rb")) if manifest.is_file() else len(members)
        newest = max(s.record.created for s in members)
        rows.append({"group": folder.name, "runs": planned, "states": dict(counted.most_common()), "newest": newest})
    if json:
        as_json(rows)
        return
    if not rows:
        say(f"no pipeline or sweep in {results}")
        return
    from hpcft.cluster.state import duration

    shown = []
    for row in rows:
        states = ", ".join(f"{number} {state}" for state, number in row["states"].items())
        shown.append([row["group"], str(row["runs"]), states, duration(time.time() - row["newest"])])
    grid(["group", "runs", "states", "age"], shown)

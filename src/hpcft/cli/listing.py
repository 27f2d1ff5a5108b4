"""The list of runs that `hpcft ls` prints; without typer, which takes longer to load than ten thousand runs to list."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcft.cli.output import as_json, grid, say
from hpcft.cli.view import age_text, asked_text, facts, loss_text, step_text
from hpcft.cluster.poll import Poll
from hpcft.cluster.state import Standing, duration, stand
from hpcft.errors import UsageError
from hpcft.runs.index.query import Condition, Index, Query
from hpcft.runs.record import read_record
from hpcft.runs.run import RunState, label

STATES = ("pending", "started", "success", "failure", "stopped", "cancelled", "unknown")
SHOWN = 50
# Orders by names of their own, and whether the largest comes first.
_ORDERS = {"time": ("created", True), "name": ("run", False), "step": ("step", True), "loss": ("loss", False)}


@dataclass(frozen=True)
class Filters:
    """Which runs were asked for, as it was typed.

    Attributes:
        results: folder of the run directories.
        conditions: that the index answers.
        states: that only the runs and the scheduler can tell; empty: any.
    """

    results: Path
    conditions: tuple[Condition, ...]
    states: tuple[str, ...]


def standings(
    index: Index, filters: Filters, query: Query, poll: Poll
) -> tuple[list[Standing], dict[str, dict[str, Any]], int]:
    """The runs that filters choose, in a query's order, with their states.

    Only those are opened that are shown, or whose state decides whether they are.

    Returns:
        The standings, what the index says of each by its directory, and how many fit in all.
    """
    by_state = set(filters.states) - {RunState.SUCCESS}
    found = index.find(replace(query, where=_where(filters, query), limit=None if by_state else query.limit))
    told = stand([read_record(filters.results / row["run"]) for row in found.rows], poll)
    rows = {str(filters.results / row["run"]): row for row in found.rows}
    if not by_state:
        return told, rows, found.total
    told = [standing for standing in told if standing.state in filters.states]
    last = None if query.limit is None else query.offset + query.limit
    return told[query.offset : last], rows, len(told)


def stated(
    index: Index, filters: Filters, query: Query, poll: Poll
) -> tuple[list[tuple[dict[str, Any], RunState, str]], int]:
    """The same as rows of the index, each with its state and the words about it. A finished run is not opened: the
    index knows all of it."""
    if set(filters.states) - {RunState.SUCCESS}:
        found, rows, total = standings(index, filters, query, poll)
        return [(rows[str(s.record.root)], s.state, s.words) for s in found], total
    answer = index.find(replace(query, where=_where(filters, query)))
    going = [row for row in answer.rows if row["state"] != RunState.SUCCESS]
    told = stand([read_record(filters.results / row["run"]) for row in going], poll)
    known = {row["run"]: standing for row, standing in zip(going, told, strict=True)}
    return [
        (row, RunState.SUCCESS, "finished")
        if (standing := known.get(row["run"])) is None
        else (row, standing.state, standing.words)
        for row in answer.rows
    ], answer.total


def _where(filters: Filters, query: Query) -> tuple[Condition, ...]:
    where = (*query.where, *filters.conditions)
    # A finished run is a success, and no other one is.
    if set(filters.states) == {RunState.SUCCESS}:
        return (*where, Condition("state", "=", RunState.SUCCESS))
    if filters.states and RunState.SUCCESS not in filters.states:
        return (*where, Condition("state", "!=", RunState.SUCCESS))
    return where


def listing(
    filters: Filters,
    *,
    sort: str = "time",
    descending: bool | None = None,
    show: Sequence[str] = (),
    limit: int | None = None,
    by_group: bool = False,
    json: bool = False,
) -> None:
    """Print the runs that filters choose; the arguments are the options of `hpcft ls`.

    Raises:
        UsageError: a key that nothing is called.
    """

    most = limit if limit is not None else 0 if json or by_group else SHOWN
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

    shown = []
    for row in rows:
        states = ", ".join(f"{number} {state}" for state, number in row["states"].items())
        shown.append([row["group"], str(row["runs"]), states, duration(time.time() - row["newest"])])
    grid(["group", "runs", "states", "age"], shown)

"""`hpcft ls`: all runs, with filters; only those that are shown are read."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import groups, values
from hpcft.cli.output import as_json, grid, say
from hpcft.cli.texts import ending
from hpcft.errors import UsageError

if TYPE_CHECKING:
    from hpcft.cluster.poll import Poll
    from hpcft.cluster.state import Standing
    from hpcft.runs.record import Record

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SHOWN = 50
STATES = ("pending", "started", "success", "failure", "stopped", "cancelled", "unknown")
_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@app.command(
    epilog=ending(
        [
            "hpcft ls",
            "hpcft ls --state started --state pending --since 2d",
            "hpcft ls --variant qlora --sort loss --json",
            "hpcft ls --groups",
        ],
        {0: "listed, also when there is none", 2: ""},
    )
)
def ls(
    state: list[str] = typer.Option(
        [],
        "--state",
        metavar="STATE",
        help=f"One of {', '.join(STATES)}; may be repeated.",
        autocompletion=lambda: STATES,
    ),
    variant: str | None = typer.Option(None, "--variant", help="Of this variant.", autocompletion=values("variant")),
    kind: str | None = typer.Option(None, "--kind", help="Of this kind of job: train, evaluate, bench, …"),
    model: str | None = typer.Option(None, "--model", help="Whose model's name has this in it."),
    dataset: str | None = typer.Option(None, "--dataset", help="Whose data set's name has this in it."),
    group: str | None = typer.Option(
        None, "--group", "--sweep", metavar="NAME", help="Of this pipeline or sweep.", autocompletion=groups
    ),
    name: str | None = typer.Option(None, "--name", metavar="GLOB", help="Whose name fits: 'rank*', 'sweep/*'."),
    since: str | None = typer.Option(None, "--since", metavar="WHEN", help="Submitted since: 30m, 2h, 3d, 2026-11-20."),
    sort: str = typer.Option("time", "--sort", help="time (newest first), name, state, step or loss."),
    limit: int | None = typer.Option(
        None, "--limit", min=0, help=f"So many at most, 0 for all. [{_SHOWN}; with --json all]", show_default=False
    ),
    by_group: bool = typer.Option(False, "--groups", help="One line for each pipeline and sweep."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print the runs as JSON."),
) -> None:
    """List the runs."""
    from hpcft.cli.view import asked_text, facts
    from hpcft.cluster.poll import Poll
    from hpcft.runs.run import group_folder, run_folders

    wanted = [_state(text) for text in state]
    if sort not in _ORDERS:
        raise UsageError(f"cannot sort by '{sort}'", where="--sort", hint=f"one of: {', '.join(_ORDERS)}")
    roots: Iterable[Path] = run_folders(results)
    if group is not None:
        folder = group_folder(group, results)
        if folder is None:
            raise UsageError(f"no pipeline or sweep called '{group}'", where=str(results), hint="hpcft ls --groups")
        roots = run_folders(folder)
    if name is not None:
        roots = (root for root in roots if _is_named(root, results, name))
    fits = _filter(variant, kind, model, dataset, None if since is None else time_of(since))
    most = limit if limit is not None else 0 if json or by_group else _SHOWN
    poll = Poll()
    found, cut = _select(_newest_first(roots), fits, wanted, most, sort, poll)
    if by_group:
        _groups(found, results, json)
    elif json:
        as_json([facts(standing, results) for standing in found])
    else:
        _table(found, results)
        if cut:
            say(f"the first {most} are shown; --limit 0 shows all")
        if asked := asked_text(found, poll):
            say(asked)


def _state(text: str) -> str:
    if text.lower() not in STATES:
        raise UsageError(f"no state '{text}'", where="--state", hint=f"one of: {', '.join(STATES)}")
    return text.upper()


def time_of(text: str) -> float:
    """A time as it is typed, in seconds since the epoch."""
    if ago := _AGO.fullmatch(text):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"'{text}' is no time", where="--since", hint="30m, 2h, 3d, 2w, 2026-11-20 or 2026-11-20T14:00"
        ) from None


def _is_named(root: Path, results: Path, pattern: str) -> bool:
    from hpcft.runs.run import label

    return fnmatchcase(root.name, pattern) or fnmatchcase(label(root, results), pattern)


def _filter(
    variant: str | None, kind: str | None, model: str | None, dataset: str | None, since: float | None
) -> Callable[[Record], bool]:
    equal = {k: v for k, v in (("variant", variant), ("job_kind", kind)) if v is not None}
    within = {k: v.lower() for k, v in (("model", model), ("dataset", dataset)) if v is not None}

    def fits(record: Record) -> bool:
        if since is not None and record.created < since:
            return False
        if not equal and not within:
            return True
        about = record.about
        return all(about.get(k) == v for k, v in equal.items()) and all(
            v in about.get(k, "").lower() for k, v in within.items()
        )

    return fits


def _newest_first(roots: Iterable[Path]) -> Iterator[Path]:
    """By when their jobs were written, which the file system tells without opening a file."""
    dated = [((root / "config.yaml").stat().st_mtime_ns, root) for root in roots]
    dated.sort(reverse=True)
    return (root for _, root in dated)


def _select(
    roots: Iterator[Path], fits: Callable[[Record], bool], states: list[str], most: int, sort: str, poll: Poll
) -> tuple[list[Standing], bool]:
    """The runs to show in their order, and whether some were left out."""
    from hpcft.cluster.state import stand
    from hpcft.runs.record import read_record

    records: list[Record] = []
    for root in roots:
        record = read_record(root)
        if fits(record):
            records.append(record)
            # One more tells that there are more.
            if sort == "time" and not states and most and len(records) > most:
                break
    standings = stand(records, poll)
    if states:
        standings = [s for s in standings if s.state in states]
    standings.sort(key=_ORDERS[sort])
    return (standings[:most], True) if most and len(standings) > most else (standings, False)


def _loss(standing: Standing) -> float:
    status = standing.record.heartbeat
    return float("inf") if status is None or status.loss is None else float(status.loss)


_ORDERS: dict[str, Callable[[Any], Any]] = {
    "time": lambda s: -s.record.created,
    "name": lambda s: str(s.record.root),
    "state": lambda s: (STATES.index(s.state.lower()), -s.record.created),
    "step": lambda s: -(s.record.heartbeat.step if s.record.heartbeat else -1),
    "loss": _loss,
}


def _table(found: list[Standing], results: Path) -> None:
    from hpcft.cli.view import age_text, loss_text, step_text
    from hpcft.runs.run import label

    if not found:
        say(f"no such run in {results}")
        return
    rows = []
    for standing in found:
        about = standing.record.about
        model, data = (Path(about.get(key, "")).name[:24] for key in ("model", "dataset"))
        row = [label(standing.record.root, results), str(standing.state), about.get("job_kind", "")]
        row += [about.get("variant", ""), model, data, step_text(standing), loss_text(standing), age_text(standing)]
        rows.append([*row, "" if standing.state == "SUCCESS" else standing.words[:60]])
    grid(["run", "state", "kind", "variant", "model", "data", "step", "loss", "age", "what"], rows)


def _groups(found: list[Standing], results: Path, json: bool) -> None:
    """Pipelines and sweeps, with how many of their runs are in each state."""
    by_folder: dict[Path, list[Standing]] = {}
    for standing in found:
        if standing.record.root.parent.absolute() != results.absolute():
            by_folder.setdefault(standing.record.root.parent, []).append(standing)
    rows: list[dict[str, Any]] = []
    for folder, standings in by_folder.items():
        counted = Counter(str(s.state) for s in standings)
        manifest = folder / "manifest.jsonl"
        planned = sum(1 for _ in manifest.open("rb")) if manifest.is_file() else len(standings)
        newest = max(s.record.created for s in standings)
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

"""What `hpcft sync` shows: progress while it sends, and what became of each run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcft.cli.output import as_json, grid, printable, say
from hpcft.errors import HpcftError
from hpcft.runs.run import label
from hpcft.tracking.sync import SYNCED, Due, Outcome, preview


@contextmanager
def progress(total: int, results: Path) -> Iterator[Callable[[Outcome], None]]:
    """To be called with each outcome: a bar on a terminal, a line for each run elsewhere."""
    if not sys.stderr.isatty():
        yield lambda outcome: say(_line(outcome, results))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("syncing", total=total)
        yield lambda outcome: bar.update(task, advance=1, description=_line(outcome, results)[:60])


def _line(outcome: Outcome, results: Path) -> str:
    return printable(f"{label(outcome.run.paths.root, results)}: {_words(outcome)}")


def _words(outcome: Outcome) -> str:
    sent = outcome.sent
    if sent is None:
        return f"not synced: {outcome.error}"
    parts = [
        f"{sent['sent']} of {sent['points']} points sent" if sent["sent"] else f"all {sent['points']} points there"
    ]
    parts += ["model sent"] if sent["model"] else []
    told = {
        "rescued": "are not in its offline files",
        "waiting": "wait for its next checkpoint",
        "redone": "there are of steps that were done again",
    }
    parts += [f"{sent[key]} {words}" for key, words in told.items() if sent[key]]
    return ", ".join([*parts, sent["note"]] if sent["note"] else parts)


def report(dues: Sequence[Due], outcomes: Sequence[Outcome], results: Path, *, json: bool) -> None:
    """What became of each run.

    Args:
        dues: the runs as they were looked at last.
        outcomes: of those that were tried, in any round.
    """
    tried = {outcome.run.paths.root for outcome in outcomes}
    rest = [due for due in dues if due.run.paths.root not in tried]
    left_out = {label(due.run.paths.root, results): due.why_not for due in rest if due.why_not}
    untried = [label(due.run.paths.root, results) for due in rest if not due.why_not]
    runs = [_document(outcome, results) for outcome in outcomes]
    if json:
        as_json({"runs": runs, "left_out": left_out, "not_tried": untried})
        return
    rows = []
    for found in runs:
        state = "not synced" if "error" in found else "complete" if found["complete"] else "so far"
        rows.append([found["run"], state, str(found.get("sent", "")), found.get("url") or found["error"]])
    if rows:
        grid(["run", "in wandb", "points sent", "where"], rows)
    current = list(left_out.values()).count(SYNCED)
    if current:
        say(f"synced before, nothing new: {current} of {len(dues)} runs")
    for name, why in left_out.items():
        if why != SYNCED:
            say(printable(f"{name}: {why}"))
    if untried:
        say(f"not tried: {len(untried)} of {len(dues)} runs")
    for hint in sorted({outcome.hint for outcome in outcomes if outcome.hint}):
        say(hint)


def _document(outcome: Outcome, results: Path) -> dict[str, Any]:
    name = label(outcome.run.paths.root, results)
    if outcome.sent is None:
        return {"run": name, "error": outcome.error, "code": outcome.code}
    return {**outcome.sent, "run": name}


def show_preview(dues: Sequence[Due], results: Path, *, json: bool) -> None:
    """What would be sent."""
    rows: list[dict[str, Any]] = []
    for due in dues:
        name = label(due.run.paths.root, results)
        try:
            rows.append({**preview(due), "run": name})
        except HpcftError as error:
            say(printable(f"{name}: {error.message}"))
    if json:
        as_json({"runs": rows})
        return
    shown = []
    for row in rows:
        words = row["why_not"] or ("" if row["ended"] else "goes on")
        counts = [str(row["to_send"]), str(row["points"])]
        shown.append([row["run"], *counts, row["model"] or "", row["project"], words])
    grid(["run", "to send", "points", "model", "project", "what"], shown)

"""`hpcft watch`: a live table of runs on a terminal, a line at each change elsewhere."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import runs_and_groups
from hpcft.cli.output import as_json, grid, printable, say
from hpcft.cli.texts import ending
from hpcft.runs.record import Record, read_record
from hpcft.runs.run import RunState, find_runs, label, run_folders

if TYPE_CHECKING:
    from hpcft.cli.follow import Lost
    from hpcft.cluster.poll import Poll
    from hpcft.cluster.state import Standing

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_HEAD = ["run", "state", "what", "step", "loss", "rate", "left", "ends by", "GPU memory"]
# New runs are looked for so often; those that are known, as often as the table is drawn.
_RESCAN_S = 10.0
# Elsewhere than on a terminal a run that trains is worth a line so often.
_LINE_S = 60.0


@app.command(
    epilog=ending(
        ["hpcft watch --once", "hpcft watch", "hpcft watch first second"],
        {0: "shown; the runs are over", 2: "no such run, or several", 130: "left with Ctrl-C; the runs go on"},
    )
)
def watch(
    run: list[str] = typer.Argument(
        None,
        metavar="[RUN…]",
        help="Runs, pipelines, sweeps; else all that wait or run.",
        autocompletion=runs_and_groups,
    ),
    once: bool = typer.Option(False, "--once", help="Show it once."),
    interval: float = typer.Option(2.0, "--interval", min=0.5, help="Seconds between two looks at the runs."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="With --once: print it as JSON."),
) -> None:
    """Watch runs: state, why they wait and when they are expected to start, step, loss, rate, time left.

    Slurm is asked once in ten seconds at most, however many watch.
    """
    from hpcft.cli.view import asked_text
    from hpcft.cluster.poll import Poll

    watched, poll = _Watched(run or [], results), Poll()
    if once or json:
        standings = watched.look(poll)
        if json:
            from hpcft.cli.view import facts, progress_facts, progress_of

            as_json([{**facts(s, results), **progress_facts(progress_of(s))} for s in standings])
        elif standings:
            grid(_HEAD, [_row(standing, results) for standing in standings])
            if asked := asked_text(standings, poll):
                say(asked)
        else:
            say(f"nothing waits or runs in {results}")
        return
    try:
        (_live if sys.stdout.isatty() else _lines)(watched, poll, interval, results)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


class _Watched:
    """The runs that are watched: those named, or all that are not over, and those that were when it began."""

    def __init__(self, named: Sequence[str], results: Path) -> None:
        from hpcft.cli.follow import Lost

        self._named = [run.paths.root for run in find_runs(named, results)] if named else None
        self._results = results
        self._shown: dict[Path, None] = dict.fromkeys(self._named or [])
        self._over: dict[Path, Standing] = {}
        self._lost: defaultdict[Path, Lost] = defaultdict(Lost)
        self._done: set[Path] = set()
        self._next_scan = 0.0

    def look(self, poll: Poll) -> list[Standing]:
        """Their states now."""
        from hpcft.cluster.state import stand

        rescan = time.monotonic() >= self._next_scan
        if rescan:
            self._next_scan = time.monotonic() + _RESCAN_S
        roots = [root for root in self._shown if root not in self._over or (rescan and self._may_resume(root))]
        records: list[Record] = [read_record(root) for root in roots]
        records += self._news() if rescan and self._named is None else []
        fresh = {standing.record.root: standing for standing in stand(records, poll)}
        for root, standing in fresh.items():
            if root not in self._shown and standing.state.is_over:
                continue
            self._shown[root] = None
            if standing.state.is_over or self._lost[root].sees(standing):
                self._over[root] = standing
            else:
                self._over.pop(root, None)
        return [fresh.get(root) or self._over[root] for root in self._shown]

    def _may_resume(self, root: Path) -> bool:
        return self._over[root].state is not RunState.SUCCESS

    def _news(self) -> list[Record]:
        """Records of runs that are not shown. One that has failed may be resumed, so that only the end marker tells
        that it need not be read again."""
        found = []
        for root in run_folders(self._results):
            if root in self._shown or root in self._done:
                continue
            record = read_record(root)
            if record.done:
                self._done.add(root)
            else:
                found.append(record)
        return found

    @property
    def all_over(self) -> bool:
        """Whether nothing more happens."""
        return len(self._over) == len(self._shown)


def _row(standing: Standing, results: Path) -> list[str]:
    from hpcft.cli.view import limit_text, loss_text, progress_of, step_text
    from hpcft.cluster.state import duration

    going = progress_of(standing)
    rate = f"{going.steps_per_s:.3g} steps/s" if going.steps_per_s else ""
    if going.tokens_per_s:
        rate += f", {going.tokens_per_s:,.0f} tokens/s"
    return [
        label(standing.record.root, results),
        str(standing.state),
        standing.words,
        step_text(standing),
        loss_text(standing),
        rate,
        duration(going.left_s) if going.left_s is not None else "",
        limit_text(standing),
        f"{going.peak_vram_gb:.1f} GB" if going.peak_vram_gb is not None else "",
    ]


def _live(watched: _Watched, poll: Poll, interval: float, results: Path) -> None:
    from rich.live import Live

    with Live(screen=False, auto_refresh=False) as live:
        while True:
            standings = watched.look(poll)
            live.update(_drawn(standings, poll, results), refresh=True)
            if watched.all_over:
                return
            time.sleep(interval)


def _drawn(standings: Sequence[Standing], poll: Poll, results: Path) -> Any:
    from rich.table import Table
    from rich.text import Text

    from hpcft.cli.view import asked_text

    colours = {"STARTED": "green", "PENDING": "yellow", "FAILURE": "red", "UNKNOWN": "magenta"}
    caption = asked_text(standings, poll) or ("" if standings else f"nothing waits or runs in {results}")
    table = Table(header_style="bold", caption=Text(caption), caption_justify="left")
    rows = [_row(standing, results) for standing in standings]
    # A column that nobody fills takes the room of the others.
    kept = [i for i, _ in enumerate(_HEAD) if i < 3 or any(row[i] for row in rows)]
    for i in kept:
        table.add_column(Text(_HEAD[i]), overflow="fold")
    for row in rows:
        style = colours.get(row[1], "")
        table.add_row(*(Text(printable(row[i]), style=style if i == 1 else "") for i in kept))
    return table


def _lines(watched: _Watched, poll: Poll, interval: float, results: Path) -> None:
    from hpcft.cli.status import line

    said: dict[Path, tuple[str, float]] = {}
    while True:
        now = time.monotonic()
        for standing in watched.look(poll):
            root, brief = standing.record.root, f"{standing.state} {standing.words}"
            last, at = said.get(root, ("", 0.0))
            if brief != last or (standing.state == "STARTED" and now - at >= _LINE_S):
                said[root] = (brief, now)
                print(printable(line(standing, results)), flush=True)
        if watched.all_over:
            return
        time.sleep(interval)

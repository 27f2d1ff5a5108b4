"""`hpcft sync`: bring wandb up to what the runs have recorded, from a machine that reaches it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpcft.cli.complete import runs as complete_runs
from hpcft.cli.texts import ending
from hpcft.errors import HpcftError, NotAllowedError, TryAgainError, UnavailableError, UsageError
from hpcft.runs.run import Run, RunState, find_runs, run_folders

if TYPE_CHECKING:
    from hpcft.cluster.state import Standing
    from hpcft.tracking.sync import Due, Outcome

app = typer.Typer(rich_markup_mode=None, add_completion=False)

# Where nobody can be asked about a job, a run that is silent for so long has ended.
_SILENT_S = 86400.0
# What another try may mend.
_PASSING = (UnavailableError.exit_code, TryAgainError.exit_code)
# Between two tries while the server does not answer, at most.
_LONGEST_S = 600.0


@app.command(
    epilog=ending(
        ["hpcft sync first --dry-run", "hpcft sync --since 2d --dry-run", "hpcft sync --dry-run --json"],
        {
            0: "all that can be sent is there; nothing to do counts as well",
            1: "a run cannot be sent for a reason of its own; the others were",
            2: "no such run",
            69: "wandb's server does not answer",
            75: "the server does not show all yet, or another sync is at work; try again",
            77: "no login, or it is refused",
        },
    )
)
def sync(
    run: list[str] = typer.Argument(
        None,
        metavar="[RUN]...",
        help="Directory, name, run id, job id, a unique beginning, or a pipeline or sweep; all runs when absent.",
        autocompletion=complete_runs,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    since: str = typer.Option(None, "--since", metavar="WHEN", help="Submitted since: 30m, 2h, 3d, 2026-11-20."),
    watch: bool = typer.Option(False, "--watch", help="Go on until none of the runs can record any more."),
    every: float = typer.Option(60.0, "--every", min=0.1, metavar="SECONDS", help="With --watch: between two rounds."),
    parallel: int = typer.Option(4, "--parallel", "-j", min=1, max=32, help="So many runs at a time."),
    timeout: float = typer.Option(
        None,
        "--timeout",
        min=1.0,
        metavar="SECONDS",
        help="What one run may take. [150, and one for each 200 kB]",
        show_default=False,
    ),
    verify: bool = typer.Option(False, "--verify", help="Ask the server also about runs that are known to be there."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would be sent; ask no server, send nothing."),
    json: bool = typer.Option(False, "--json", help="Print what became of each run as JSON."),
) -> None:
    """Bring wandb up to what runs that were offline, or lost their server, have recorded.

    Each run is compared with the server, and what is missing is sent: a second sync adds nothing, and one that was
    cut off can be repeated. Of a run that goes on the points up to its last checkpoint are sent.
    """
    from hpcft.cli.sync_view import progress, report, show_preview
    from hpcft.tracking.credentials import key_available
    from hpcft.tracking.sync import send

    chosen = _Chosen(run or [], results, since)
    if dry_run:
        show_preview(chosen.look(again=verify), results, json=json)
        return
    if not key_available():
        raise NotAllowedError("no key for wandb is stored", hint="log in once on this machine with: wandb login")
    found: dict[Path, Outcome] = {}
    pause = every
    while True:
        dues = chosen.look(again=verify)
        verify = False
        wanted = [due for due in dues if due.why_not is None]
        with progress(len(wanted), results) as tell:
            outcomes = send(wanted, parallel=parallel, timeout_s=timeout, tell=tell)
        for outcome in outcomes:
            root = outcome.run.paths.root
            found[root] = outcome.after(found.get(root))
        code = _gravest(outcomes)
        passing = any(outcome.code in _PASSING for outcome in outcomes)
        if not watch or code == NotAllowedError.exit_code or (chosen.settled and not passing):
            break
        # A server that is away is not asked every minute all night.
        pause = min(2 * pause, max(every, _LONGEST_S)) if passing else every
        time.sleep(pause)
    report(dues, list(found.values()), results, json=json)
    if code:
        raise typer.Exit(code)


class _Chosen:
    """The runs that were asked for, looked at anew in each round: those of a sweep are made while it goes on.

    Attributes:
        settled: no run can record any more, as of the last look.
    """

    def __init__(self, texts: Sequence[str], results: Path, since: str | None) -> None:
        from hpcft.cli.filters import time_of
        from hpcft.cluster.poll import Poll

        self._texts, self._results = texts, results
        self._since = 0.0 if since is None else time_of(since)
        self._poll = Poll()
        self.settled = False

    def look(self, *, again: bool) -> list[Due]:
        """Which of them are to be sent now."""
        from hpcft.cli.view import look
        from hpcft.tracking.sync import Due, due

        runs = find_runs(self._texts, self._results) if self._texts else [Run(f) for f in run_folders(self._results)]
        if not runs:
            raise UsageError("there is no run to sync", where=str(self._results), hint="name another --results")
        standings = [s for s in look(runs, self._poll) if s.record.created >= self._since]
        self.settled = all(s.state.is_over or _has_ended(s) for s in standings)
        dues = []
        for standing in standings:
            run, ended = Run(standing.record.root), _has_ended(standing)
            try:
                dues.append(due(run, ended=ended, again=again))
            except (HpcftError, OSError) as error:
                dues.append(Due(run, ended, f"cannot be read: {getattr(error, 'message', error)}"))
        return dues


def _has_ended(standing: Standing) -> bool:
    """No attempt can come: the end marker is there, or the scheduler has no job that would go on."""
    from hpcft.cluster.queue import JobState

    if standing.state is not RunState.UNKNOWN:
        # What has stopped with everything saved is meant to go on.
        return standing.state.is_over and standing.state is not RunState.STOPPED
    if standing.queue is not None:
        return standing.queue.answered and standing.queue.state is JobState.UNKNOWN
    alive = standing.record.alive_at
    return alive is not None and time.time() - alive > _SILENT_S


def _gravest(outcomes: Sequence[Outcome]) -> int:
    codes = {outcome.code for outcome in outcomes}
    ranked = (NotAllowedError.exit_code, UnavailableError.exit_code)
    return next((code for code in ranked if code in codes), max(codes, default=0))

"""Bringing many runs' wandb up to their records: which of them need it, and a process each, some at a time.

A process of its own, so that one that hangs can be ended, and that wandb's folders, which are set by environment
variables, are inside the folder of the one run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from hpcft.errors import NotAllowedError, UnavailableError
from hpcft.runs.run import Run
from hpcft.tracking.credentials import own_server
from hpcft.tracking.projection import is_tracked, project, sends_itself
from hpcft.tracking.synced import log_bytes, read_synced

# Seconds that a run may take, and bytes that a slow line carries in each of them besides.
_LIMIT_S = 150.0
_BYTES_A_SECOND = 200_000
# What concerns all runs alike: the others need not be tried.
_FATAL = (UnavailableError.exit_code, NotAllowedError.exit_code)


@dataclass(frozen=True)
class Due:
    """A run and whether it is to be sent.

    Attributes:
        run: the run.
        ended: no attempt can come any more.
        why_not: why there is nothing to send now; None: there is. `synced` when all of it is there.
    """

    run: Run
    ended: bool
    why_not: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: the run.
        sent: the fields of `hpcft.tracking.upload.Sent`; None when it failed.
        error, hint: what went wrong and what to do.
        code: exit code of the error; 0: none.
    """

    run: Run
    sent: dict[str, Any] | None
    error: str = ""
    hint: str | None = None
    code: int = 0

    def after(self, before: Outcome | None) -> Outcome:
        """This one, with what an earlier round has sent of the same run added."""
        if before is None or before.sent is None or self.sent is None:
            return self
        both = {key: self.sent[key] + before.sent[key] for key in ("sent", "system")}
        return replace(self, sent={**self.sent, **both, "model": self.sent["model"] or before.sent["model"]})


SYNCED = "synced"


def due(run: Run, *, ended: bool, again: bool = False) -> Due:
    """Whether a run is to be sent, from its files alone.

    Args:
        run: the run.
        ended: no attempt can come any more.
        again: do not believe what earlier syncs have written down; the server is to be asked.
    """
    if not is_tracked(run):
        return Due(run, ended, "not tracked: wandb is disabled in its job")
    if not run.paths.attempt_numbers():
        return Due(run, ended, "it has not begun")
    if not ended and sends_itself(run):
        return Due(run, ended, "it is online and sends its points itself")
    known = read_synced(run, own_server())
    if known is None or again:
        return Due(run, ended, None)
    if known.is_current(run, ended=ended):
        return Due(run, ended, SYNCED)
    if not ended and known.exit_code is None:
        projection = project(run, ended=ended)
        if known.points == len(projection.points) and known.is_prefix(projection):
            return Due(run, ended, f"{projection.waiting} new points wait for its next checkpoint")
    return Due(run, ended, None)


def preview(due: Due) -> dict[str, Any]:
    """What would be sent, by what earlier syncs have written down. No server is asked."""
    projection = project(due.run, ended=due.ended)
    known = read_synced(due.run, own_server())
    there = known.points if known is not None and known.is_prefix(projection) else 0
    return {
        "run": due.run.name,
        "run_id": projection.settings["id"],
        "project": projection.settings["project"],
        "entity": projection.settings["entity"],
        "job_type": projection.settings["job_type"],
        "points": len(projection.points),
        "to_send": 0 if due.why_not else len(projection.points) - there,
        "waiting": projection.waiting,
        "model": None if projection.model is None else projection.model.name,
        "ended": due.ended,
        "why_not": due.why_not,
    }


def send(
    dues: Sequence[Due], *, parallel: int, timeout_s: float | None = None, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Send runs, each in a process of its own.

    Args:
        dues: the runs that are to be sent.
        parallel: processes at a time.
        timeout_s: seconds that one run may take; by default 150, and one more for each 200 kB of it.
        tell: called in this thread with each outcome as it comes.

    Returns:
        The outcomes in the order in which they came. When the server cannot be reached or refuses the login, the
        runs that have not begun by then are not tried, and not in it.
    """
    crew = _Crew(timeout_s)
    outcomes = []
    with ThreadPoolExecutor(parallel) as pool:
        try:
            for future in as_completed([pool.submit(crew.send, due) for due in dues]):
                if (outcome := future.result()) is not None:
                    outcomes.append(outcome)
                    tell(outcome)
        except BaseException:
            # Ctrl-C: what has not been confirmed is compared again by the next sync.
            crew.stop()
            raise
    return outcomes


class _Crew:
    """The processes that send."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._stopped = False
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()

    def send(self, due: Due) -> Outcome | None:
        # -P: a wandb.py in the current folder is not the library.
        command = [sys.executable, "-P", "-m", "hpcft.tracking.upload", str(due.run.paths.root)]
        command += ["ended"] if due.ended else []
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # Ctrl-C reaches this process alone, which ends the others with all that they have started.
                start_new_session=True,
            )
            self._processes.add(process)
        limit_s = self._timeout_s or _limit_s(due.run)
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            end(process)
            process.communicate()
            outcome = Outcome(
                due.run,
                None,
                f"wandb's server has not taken it within {limit_s:.0f} s",
                "the same sync can be repeated, with a longer --timeout where the line is slow",
                UnavailableError.exit_code,
            )
        else:
            outcome = _outcome(due.run, process.returncode, out, err)
        finally:
            with self._lock:
                self._processes.discard(process)
        if outcome.code in _FATAL:
            self._stopped = True
        return outcome

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            processes = list(self._processes)
        for process in processes:
            end(process)


def _outcome(run: Run, code: int, out: str, err: str) -> Outcome:
    lines = out.strip().splitlines()
    try:
        said = json.loads(lines[-1]) if lines else {}
    except ValueError:
        said = {}
    if code == 0 and "points" in said:
        return Outcome(run, said)
    if "error" in said:
        return Outcome(run, None, said["error"], said["hint"], said["code"])
    last = err.strip().splitlines()[-1:] or [f"it ended with exit code {code}"]
    return Outcome(run, None, f"the process that sends it has died: {last[0][:300]}", None, 1)


def _limit_s(run: Run) -> float:
    model = run.paths.final_model
    size = sum(p.stat().st_size for p in model.rglob("*") if p.is_file()) if model.is_dir() else 0
    return _LIMIT_S + (size + log_bytes(run)) / _BYTES_A_SECOND


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it has started: wandb's service would go on sending."""
    import psutil

    try:
        all_of_it = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for one in all_of_it:
        try:
            os.kill(one.pid, 9)
        except ProcessLookupError:
            # It has ended meanwhile.
            continue

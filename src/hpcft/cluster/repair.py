"""Settling what a killed client left: runs of which it is not known whether their job was queued.

Nothing is ever submitted here. A run whose job is found gets its id; one that certainly has no job is free again for
`hpcft resume`; of the others it is said what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcft.cluster.lookup import Lookup, look_up
from hpcft.cluster.queue import start_time
from hpcft.runs.attempt import holder_of
from hpcft.runs.events import EventLog
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import Submission, submissions, this_host, try_lock

# A request that was sent may still lie before a controller that hangs, after its client and sbatch have ended.
_SETTLED_S = 60.0
# The same where the client cannot be seen: it may have been on another machine, and sbatch repeats for some minutes.
_UNSEEN_S = 600.0
# Slurm is asked a second time after this, before a run is given up: an answer may overtake a request before it.
_AGAIN_S = 3.0


@dataclass(frozen=True)
class Repaired:
    """What became of an open submission.

    Attributes:
        run: directory of the run or sweep.
        outcome: `submitted`: it has a job; `withdrawn`: it has none, and can be submitted again; `left`: not known.
        message: why, in a sentence.
    """

    run: Path
    outcome: Literal["submitted", "withdrawn", "left"]
    job_id: str | None
    message: str


@dataclass(frozen=True)
class _Open:
    paths: RunPaths
    submission: Submission
    # Whether its client has ended, and any sbatch of it; None: that cannot be seen from here.
    client_gone: bool | None

    @property
    def waits_s(self) -> float:
        """Seconds until nothing can be on its way any more."""
        age = time.time() - self.submission.time
        return max(0.0, (_SETTLED_S if self.client_gone else _UNSEEN_S) - age)


def open_submissions(results: Path) -> list[tuple[RunPaths, Submission]]:
    """The runs and sweeps in a results folder of whose last submission it is not known what became of it."""
    found = []
    for pattern in ("*/submission.*", "*/*/submission.*"):
        for root in sorted({path.parent for path in results.glob(pattern)}):
            paths = RunPaths(root.absolute())
            if (last := _last(paths)) is not None and last.is_open:
                found.append((paths, last))
    return found


def repair(results: Path, say: Callable[[str], None]) -> list[Repaired]:
    """Settle the open submissions of a results folder, and write what was found to their journals.

    Args:
        say: receives a line for each.
    """
    settled: list[Repaired] = []

    def settle(case: _Open, outcome: Literal["submitted", "withdrawn", "left"], message: str, job: str = "") -> None:
        if outcome != "left":
            with EventLog(case.paths.client, sync_seconds=0) as journal:
                facts = {"job_id": job} if job else {}
                journal.append(outcome, submission=case.submission.number, by="repair", message=message, **facts)
        settled.append(Repaired(case.paths.root, outcome, job or None, message))
        say(f"{case.paths.root.name}: {outcome}; {message}")

    asked: list[_Open] = []
    with _locked(open_submissions(results)) as cases:
        for case in cases:
            kind, local = case.submission.kind, case.submission.scheduler == "local"
            if case.client_gone is False:
                settle(case, "left", "a client is submitting it now")
            elif job_id := _started(case.paths):
                settle(case, "submitted", f"job {job_id} has started", job_id)
            elif kind == "intent" and not case.waits_s:
                settle(case, "withdrawn", "its client ended before anything was sent")
            elif local and (job_id := _controller(case.paths) or ""):
                settle(case, "submitted", f"its processes run as {job_id}", job_id)
            elif local and case.client_gone and case.submission.host == this_host():
                settle(case, "withdrawn", "no process of it runs")
            elif local or kind == "intent":
                settle(case, "left", _wait_words(case))
            else:
                asked.append(case)
        _ask(asked, settle)
    return settled


def _ask(cases: list[_Open], settle: Callable[..., None]) -> None:
    """Let Slurm say which of them have a job."""
    for look in (1, 2):
        if not cases:
            return
        if look == 2:
            time.sleep(_AGAIN_S)
        answer = look_up({case.submission.key for case in cases}, min(case.submission.time for case in cases))
        missing = []
        for case in cases:
            if job_id := answer.jobs.get(case.submission.key):
                settle(case, "submitted", f"Slurm has it as job {job_id}", job_id)
            elif not answer.is_sure:
                settle(case, "left", _silence(answer))
            elif case.waits_s:
                settle(case, "left", _wait_words(case))
            else:
                missing.append(case)
        cases = missing
    for case in cases:
        settle(case, "withdrawn", "Slurm has no job of it; hpcft resume submits it again")


def _silence(answer: Lookup) -> str:
    silent = "accounting" if answer.queue_answers else "the controller"
    return f"{silent} does not answer; try again when it does"


def _wait_words(case: _Open) -> str:
    if case.submission.scheduler == "local" and case.submission.host != this_host():
        return f"it was started on {case.submission.host}; run the same command there"
    return f"a request may still be on its way; try again in {case.waits_s:.0f} s"


def _last(paths: RunPaths) -> Submission | None:
    """The last submission; one whose client was killed before it wrote its intent is told by its file alone."""
    known = submissions(paths)
    number = known[-1].number if known else 0
    claim = paths.submission(number + 1)
    if claim.exists():
        return Submission(number + 1, time=claim.stat().st_mtime)
    return known[-1] if known else None


@contextmanager
def _locked(found: list[tuple[RunPaths, Submission]]) -> Iterator[list[_Open]]:
    """Take the submissions' locks for as long as they are looked at. A lock that another holds is a living client's
    or that of an sbatch which has outlived it."""
    held: list[int] = []
    cases = []
    try:
        for paths, submission in found:
            gone: bool | None = None
            path = paths.submission(submission.number)
            if path.exists():
                held.append(os.open(path, os.O_RDWR))
                free = try_lock(held[-1])
                # Locks reach other machines on some file systems only.
                gone = free if free is not True or submission.host in ("", this_host()) else None
            cases.append(_Open(paths, submission, gone))
        yield cases
    finally:
        for fd in held:
            os.close(fd)


def _started(paths: RunPaths) -> str:
    """The job that an attempt says it belongs to, when no earlier submission has it; else nothing."""
    known = {submission.job_id for submission in submissions(paths)}
    for number in reversed(paths.attempt_numbers()):
        holder = holder_of(paths, number)
        if holder is not None and holder.job_id and holder.job_id not in known:
            return holder.job_id
    return ""


def _controller(paths: RunPaths) -> str | None:
    """The id of a local job whose processes run on this machine: that of submitit's controller."""
    folder = os.fsencode(paths.root / "local")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"submitit.local._local" in words and folder in words:
            return f"{process.name}-{start_time(int(process.name)) or '0'}"
    return None

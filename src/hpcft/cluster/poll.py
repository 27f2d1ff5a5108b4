"""Asking Slurm rarely: one answer about all jobs of a user, in a file that all processes of that user share.

However many commands and pages look at runs, the controller is asked once in ten seconds at most, and less often
while nothing changes, when there are many jobs, or when it does not answer. What was asked is told with its age.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcft.cluster.queue import FINAL, SACCT, SQUEUE, Jobs, JobState, QueueInfo
from hpcft.cluster.slurm import Answer, call
from hpcft.errors import HpcftError
from hpcft.runs.files import make_private, write_atomic
from hpcft.runs.submission import this_user, try_lock

# Seconds of pause that a call costs.
_CALL_S = 10.0
_CALM_S = 60.0
_TROUBLE_S = 300.0
# So many jobs in an answer cost the controller another second of pause.
_JOBS_A_SECOND = 20
# Jobs that accounting does not know are looked for again this much later, each time twice as long.
_AGAIN_S = 20.0
_LONGEST_S = 3600.0
# What ended is kept so long: squeue forgets it after five minutes.
_KEPT_S = 3 * 86400.0
# For another process that is asking just now.
_WAIT_S = 25.0
# One argument of a command may have 128 KiB.
_ARGUMENT_BYTES = 120_000


@dataclass
class _Known:
    """The shared file.

    Attributes:
        asked, next: when squeue answered, and when it may be asked again without need.
        soonest: when it may be asked again with need.
        pause: seconds between them.
        trouble: why squeue did not answer when it was asked last.
        queued: its last answer.
        told: lines about jobs that have left the queue, by their ids, and when they were first seen.
        looked: of jobs that have left the queue without an end: how often accounting was asked about them, and when
            it may be asked again.
        accounting: why it did not answer. accounting_next: when it is asked again after that.
    """

    asked: float = 0.0
    next: float = 0.0
    soonest: float = 0.0
    pause: float = 0.0
    trouble: str = ""
    queued: str = ""
    told: dict[str, tuple[float, str]] = field(default_factory=dict)
    looked: dict[str, tuple[int, float]] = field(default_factory=dict)
    accounting: str = ""
    accounting_next: float = 0.0


class Poll:
    """The answer, looked at by one process.

    Args:
        folder: of the shared file; the user's cache folder when absent.
        clock: seconds since the epoch.
        asking: calls a command.
    """

    def __init__(
        self,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        asking: Callable[[list[str]], Answer] = call,
    ) -> None:
        self._path = (folder or cache_folder()) / f"slurm-{cluster_key()}.json"
        self._clock = clock
        self._call = asking
        self._stamp: tuple[int, int] | None = None
        self._take(_Known())

    @property
    def age_s(self) -> float | None:
        """Seconds since squeue was asked; None when it never was."""
        return max(0.0, self._clock() - self._known.asked) if self._known.asked else None

    @property
    def asked(self) -> float:
        """When squeue was asked, in seconds since the epoch."""
        return self._known.asked

    @property
    def trouble(self) -> str:
        """Why squeue did not answer, empty when it did."""
        return self._known.trouble

    @property
    def next_s(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._known.next - self._clock())

    def look(self, job_ids: Iterable[str], *, urgent: bool = False) -> None:
        """Bring the answer up to date, as far as it is time for that.

        Args:
            job_ids: jobs that are of interest; accounting is asked about those that squeue does not know.
            urgent: something has happened, so a pause that has grown is cut short.
        """
        self._read()
        wanted = [job for job in dict.fromkeys(job_ids) if job]
        if not wanted or not self._due(wanted, urgent):
            return
        with self._alone() as mine:
            self._read()
            if mine and self._due(wanted, urgent):
                self._take(self._ask(wanted))
                self._write()

    def of(self, job_id: str, key: str = "") -> QueueInfo:
        """A job of the answer.

        Args:
            key: the run's id, which the job's name ends with.

        Returns:
            The job; UNKNOWN when the answer does not have it. `answered` is false when there is no fresh answer.
        """
        known = self._known
        answered, as_of = bool(known.asked) and not known.trouble, known.asked or None
        queued = self._queued.get(job_id, key)
        if queued is not None and answered and not queued.is_final:
            return replace(queued, as_of=as_of)
        told = self._told.get(job_id, key)
        if told is not None:
            seen = known.told[self._told.row(job_id) or ""][0]
            return replace(told, as_of=as_of or seen, seen_final=seen if told.is_final else None)
        if queued is not None:
            return replace(queued, answered=False, as_of=as_of, seen_final=as_of if queued.is_final else None)
        return QueueInfo(job_id, JobState.UNKNOWN, known.trouble, answered=answered, as_of=as_of)

    def by_key(self, key: str) -> QueueInfo | None:
        """The job whose name ends with a run's id: of a run whose job's number is not known."""
        return self._queued.by_key(key)

    def place(self, job_id: str) -> tuple[int, int] | None:
        """Which of the user's waiting jobs it is, by expected start and then by age, from 1; and how many wait. What
        other users wait for is not asked.

        Returns:
            None of a job that does not wait.
        """
        waiting = [job for row in self._queued if (job := self._queued.get(row)) and job.state is JobState.PENDING]
        waiting.sort(key=lambda job: (job.start or math.inf, job.submit or math.inf))
        places = [job.job_id for job in waiting]
        row = self._queued.row(job_id)
        return (places.index(row) + 1, len(places)) if row in places else None

    def _due(self, wanted: list[str], urgent: bool) -> bool:
        known, now = self._known, self._clock()
        if now >= known.next:
            return True
        if now < known.soonest:
            return False
        # A job that is in no answer yet is news, where there are answers.
        found = (self._queued, self._told, known.looked)
        return urgent or (not known.trouble and any(not any(job in place for place in found) for job in wanted))

    def _ask(self, wanted: list[str]) -> _Known:
        old, now = self._known, self._clock()
        new = _Known(asked=old.asked, queued=old.queued)
        new.accounting, new.accounting_next = old.accounting, old.accounting_next
        new.looked = {job: seen for job, seen in old.looked.items() if now - seen[1] < _KEPT_S}
        new.told = {row: seen for row, seen in old.told.items() if now - seen[0] < _KEPT_S}
        answer = self._call([*SQUEUE, f"--user={this_user()}"])
        if answer.ok:
            new.asked, new.queued = now, answer.out
        else:
            new.trouble = _plain(answer.err) or f"squeue ended with {answer.code}"
        queued = Jobs(new.queued)
        for row in queued if answer.ok else ():
            if queued.state(row) in FINAL:
                # squeue forgets it after some minutes.
                new.told.setdefault(row, (now, queued.line(row)))
            else:
                new.told.pop(row, None)
                new.looked.pop(row, None)
        told = Jobs(_text(new.told))
        gone = [job for job in wanted if told.state(job) not in FINAL and not (answer.ok and job in queued)]
        gone = [job for job in gone if now >= new.looked.get(job, (0, 0.0))[1]]
        calls = 1
        if gone and now >= new.accounting_next:
            self._account(gone, new, now)
            calls = 2
        least = max(calls * _CALL_S, min(_CALM_S, len(queued) / _JOBS_A_SECOND))
        if new.trouble:
            new.pause = min(_TROUBLE_S, 2 * max(old.pause, least))
        elif not old.asked or _states(queued) != _states(self._queued):
            new.pause = least
        else:
            new.pause = max(least, min(_CALM_S, 1.5 * old.pause))
        new.next, new.soonest = now + new.pause, now + least
        return new

    def _account(self, gone: list[str], new: _Known, now: float) -> None:
        """Ask accounting about jobs that have left the queue."""
        bases = list(dict.fromkeys(job.partition("_")[0] for job in gone))
        while len(",".join(bases)) > _ARGUMENT_BYTES:
            bases = bases[: len(bases) // 2]
        answer = self._call([*SACCT, "--jobs=" + ",".join(bases)])
        if not answer.ok:
            new.accounting = _plain(answer.err) or f"sacct ended with {answer.code}"
            new.accounting_next = now + (_CALM_S if new.trouble else _TROUBLE_S)
            return
        new.accounting, new.accounting_next = "", 0.0
        accounted, asked = Jobs(answer.out, counts_restarts=True), set(bases)
        # Where squeue says nothing, accounting is all there is.
        longest = _CALM_S if new.trouble else _LONGEST_S
        for job in gone:
            if job.partition("_")[0] not in asked:
                continue
            if row := accounted.row(job):
                line = accounted.line(row)
                same = new.told.get(row, (now, ""))[1] == line
                new.told[row] = new.told[row] if same else (now, line)
            if accounted.state(job) in FINAL:
                new.looked.pop(job, None)
            else:
                times = new.looked.get(job, (0, 0.0))[0]
                new.looked[job] = (times + 1, now + min(longest, _AGAIN_S * 2**times))

    def _take(self, known: _Known) -> None:
        self._known = known
        self._queued = Jobs(known.queued)
        self._told = Jobs(_text(known.told))

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            if (stamp := (stat.st_mtime_ns, stat.st_ino)) == self._stamp:
                return
            raw = json.loads(self._path.read_text(encoding="utf-8"))
            known = _Known(**raw)
        except (OSError, ValueError, TypeError):
            # Not there yet, or of another version: what this process knows itself is as good.
            return
        self._stamp = stamp
        if known.asked >= self._known.asked:
            self._take(known)

    def _write(self) -> None:
        try:
            make_private(self._path.parent)
            write_atomic(self._path, json.dumps(asdict(self._known)), durable=False)
        except (OSError, HpcftError):
            # A full or read-only home: this process goes on with what it knows, in the same rhythm.
            return

    @contextmanager
    def _alone(self) -> Any:
        """Whether this process is the one to ask. While another one does, an old answer is good enough; without one
        it is waited for."""
        try:
            make_private(self._path.parent)
            handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield True
            return
        try:
            end = time.monotonic() + _WAIT_S
            mine = _may_ask(handle)
            while not mine and not self._known.asked and time.monotonic() < end:
                time.sleep(0.05)
                mine = _may_ask(handle)
            yield mine
        finally:
            os.close(handle)


def _may_ask(handle: int) -> bool:
    # On a file system without locks the times in the file still hold processes back.
    return try_lock(handle) is not False


def _text(told: dict[str, tuple[float, str]]) -> str:
    return "\n".join(line for _, line in told.values())


def _states(jobs: Jobs) -> dict[str, JobState]:
    return {job: jobs.state(job) for job in jobs}


def _plain(text: str) -> str:
    lines = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def cache_folder() -> Path:
    """The user's own cache folder of this tool."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcft"


def cluster_key() -> str:
    """A short word for the cluster that this machine belongs to: a home may be shared by several."""
    given = os.environ.get("SLURM_CONF")
    places = [Path(given)] if given else [Path("/etc/slurm/slurm.conf"), Path("/run/slurm/conf/slurm.conf")]
    told = given or ""
    for place in places:
        try:
            found = re.search(r"^\s*ClusterName\s*=\s*(\S+)", place.read_text(errors="replace"), re.M | re.I)
        except OSError:
            continue
        if found:
            told += "|" + found[1]
            break
    # Without a configuration to read the login nodes of a cluster each keep an answer of their own.
    told += "|" + os.environ.get("SLURM_CLUSTERS", "") if told else socket.gethostname()
    return hashlib.sha256(told.encode()).hexdigest()[:12]

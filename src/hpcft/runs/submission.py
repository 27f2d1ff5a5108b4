"""The submissions of a run, as its journal tells them: which one is open, and who may make the next.

A submission goes `intent` → `sending` → `submitted`, or `refused`, which an error before it was sent comes to as well;
`unsure` when the answer is missing. A client that is killed leaves it open, and nobody submits that run again before
`hpcft doctor --repair` has found its job (`submitted`) or made sure that there is none (`withdrawn`). What is withdrawn
stays so: a job that starts for it all the same ends at once.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hpcft.errors import NotAllowedError, TryAgainError
from hpcft.runs.events import EventLog, read_log
from hpcft.runs.files import FILE_MODE, explained
from hpcft.runs.paths import RunPaths

# After one of the first three it is open: not known what became of it.
KINDS = ("intent", "sending", "unsure", "submitted", "refused", "withdrawn", "rendered")
_OPEN = KINDS[:3]


@dataclass(frozen=True)
class Submission:
    """One submission.

    Attributes:
        number: 1 for the first, 2 after a resume, and so on.
        key: what its job is found by: the run's id, and `id-2` for the second.
        kind: the last that is known of it, one of `KINDS`.
        scheduler, host: who was asked, and where the client ran.
        job_id: of its job, when one is known.
        time: when its last record was written, in seconds since the epoch.
    """

    number: int
    key: str = ""
    kind: str = "intent"
    scheduler: str = ""
    host: str = ""
    job_id: str | None = None
    time: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it is not known what became of it."""
        return self.kind in _OPEN

    @property
    def was_sent(self) -> bool:
        """Whether there may be a job of it."""
        return self.kind not in ("intent", "refused", "withdrawn")


def submissions(paths: RunPaths) -> list[Submission]:
    """All submissions of a run (or of a sweep, whose folder has a journal too), oldest first."""
    return told_by(read_log(paths.client).records)


def told_by(journal: Iterable[dict[str, Any]]) -> list[Submission]:
    """The submissions that a journal's records tell of, oldest first."""
    # Plain values until all is read: a list of runs does this ten thousand times.
    found: dict[int, dict[str, Any]] = {}
    for record in journal:
        kind, at = str(record["kind"]), float(record["t"])
        if kind not in KINDS:
            continue
        number = int(record.get("submission", 1))
        known = found.setdefault(number, {"number": number, "kind": "intent"})
        if known["kind"] == "withdrawn":
            continue
        if kind == "intent":
            known["key"] = key_of(str(record.get("run_id", "")), number)
            known["scheduler"] = str(record.get("scheduler", "slurm"))
            known["host"] = str(record.get("host", ""))
        if "job_id" in record:
            known["job_id"] = str(record["job_id"])
        known["kind"], known["time"] = kind, at
    return [Submission(**found[number]) for number in sorted(found)]


def key_of(run_id: str, number: int) -> str:
    """What the job of a submission is found by.

    >>> key_of("k3f9x2m1qa", 1), key_of("k3f9x2m1qa", 2)
    ('k3f9x2m1qa', 'k3f9x2m1qa-2')
    """
    return run_id if number == 1 else f"{run_id}-{number}"


class Journal(EventLog):
    """The client's journal of a run or of a sweep, for one submission.

    Args:
        paths: the folder.

    Attributes:
        number: of the submission that it has opened; 0 before.
        locks: descriptors with the lock on it, for an sbatch to inherit.
    """

    def __init__(self, paths: RunPaths) -> None:
        super().__init__(paths.client, sync_seconds=0)
        self.paths = paths
        self.number = 0
        self.locks: Sequence[int] = ()

    def open_submission(self, run_id: str) -> str:
        """Take the right to submit once, and return the key for the job's name; `note("intent", …)` comes next.

        The number is taken by the exclusive making of a file, which holds on every file system. A lock on that file
        is kept until the journal is closed, and by the `sbatch` that is called meanwhile: it tells from the same
        machine whether a request may still be on its way.

        Raises:
            TryAgainError: another client is at it, or one was killed over it.
        """
        known = submissions(self.paths)
        number = known[-1].number + 1 if known else 1
        if known and known[-1].is_open:
            raise self._taken()
        with explained(self.paths.submission(number), "note the submission"):
            try:
                fd = os.open(self.paths.submission(number), os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
            except FileExistsError:
                raise self._taken() from None
        try_lock(fd)
        self.number, self.locks = number, (fd,)
        return key_of(run_id, number)

    def note(self, kind: str, **facts: Any) -> None:
        """Write what has become of the submission.

        Raises:
            TryAgainError: it is about to be sent, and was given up meanwhile.
        """
        if kind == "sending" and any(s.number >= self.number and s.kind != "intent" for s in submissions(self.paths)):
            raise self._taken()
        self.append(kind, submission=self.number, **facts)

    @property
    def state(self) -> str:
        """What is known of the submission that it has opened, one of `KINDS`; "" when it has opened none."""
        return next((s.kind for s in submissions(self.paths) if s.number == self.number), "")

    def __exit__(self, *error: object) -> None:
        # A killed client cannot say so, and leaves the submission open.
        if isinstance(error[1], Exception | KeyboardInterrupt) and self.state == "intent":
            with suppress(NotAllowedError):
                self.note("refused", message=str(error[1]) or "interrupted")
        super().__exit__(*error)

    def close(self) -> None:
        """Close the file and let go of the lock."""
        super().close()
        for fd in self.locks:
            os.close(fd)
        self.locks = ()

    def _taken(self) -> TryAgainError:
        return TryAgainError(
            "another hpcft is submitting this run, or was killed while it did",
            where=str(self.paths.root),
            hint="nothing was submitted now; hpcft doctor --repair finds out what became of the other",
        )


def try_lock(fd: int) -> bool | None:
    """Lock a submission's file; False when another process holds it, None where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def withdrawn(paths: RunPaths, job_name: str) -> bool:
    """Whether a job of that name belongs to a submission that was given up; it must do nothing then."""
    key = job_name.rpartition(".")[2]
    return any(s.key == key and s.kind == "withdrawn" for s in submissions(paths))


def this_user() -> str:
    """This user's name; the number where there is none."""
    try:
        # Not $USER: it is unset under cron and in containers.
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def this_host() -> str:
    """The machine's name, as an intent keeps it."""
    return socket.gethostname()

"""What `explain` says of a run: one verdict, the line it rests on, and the commands that mend it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Any


class Cause(enum.StrEnum):
    """Why a run is where it is. The values are stable: other programs read them."""

    FINISHED = "finished"
    RUNNING = "running"
    WAITING = "waiting"
    HOST_OOM = "host_oom"
    GPU_OOM = "gpu_oom"
    COLLECTIVE_TIMEOUT = "collective_timeout"
    KILLED = "killed"
    TIME_LIMIT = "time_limit"
    PREEMPTED = "preempted_too_often"
    NO_STEP = "no_step_gained"
    NODE_FAILURE = "node_failure"
    PORT_IN_USE = "port_in_use"
    DISK_FULL = "disk_full"
    NO_ACCESS = "no_access"
    OFFLINE_DOWNLOAD = "offline_download"
    IMPORT_ERROR = "import_error"
    BAD_CONFIG = "bad_config"
    BAD_DATA = "bad_data"
    NAN_LOSS = "nan_loss"
    SECOND_ATTEMPT = "second_attempt"
    DEPENDENCY = "dependency_never_satisfied"
    NEVER_STARTED = "never_started"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    HANG = "hang"
    UNKNOWN = "unknown"

    @property
    def is_failure(self) -> bool:
        """Whether somebody has to act, as far as is known."""
        return self not in (Cause.FINISHED, Cause.RUNNING, Cause.WAITING, Cause.UNKNOWN)


# A verdict in a few words, as it stands in a table.
TITLES = {
    Cause.FINISHED: "finished",
    Cause.RUNNING: "still running",
    Cause.WAITING: "waiting to start",
    Cause.HOST_OOM: "the node's memory ran out",
    Cause.GPU_OOM: "the GPU's memory ran out",
    Cause.COLLECTIVE_TIMEOUT: "the ranks lost each other (NCCL or gloo)",
    Cause.KILLED: "a rank was ended by a signal",
    Cause.TIME_LIMIT: "the time limit was reached",
    Cause.PREEMPTED: "preempted too often",
    Cause.NO_STEP: "no step was gained over several attempts",
    Cause.NODE_FAILURE: "the node failed",
    Cause.PORT_IN_USE: "the port of the ranks' meeting was taken",
    Cause.DISK_FULL: "the disk is full or the quota used up",
    Cause.NO_ACCESS: "a folder cannot be reached or written",
    Cause.OFFLINE_DOWNLOAD: "a download on a node without internet",
    Cause.IMPORT_ERROR: "Python or a package is missing or broken on the node",
    Cause.BAD_CONFIG: "the job cannot be run as it is configured",
    Cause.BAD_DATA: "the data cannot be used as they are",
    Cause.NAN_LOSS: "the loss became NaN or infinite",
    Cause.SECOND_ATTEMPT: "another attempt of the same run is alive or newer",
    Cause.DEPENDENCY: "it waits for a job that failed",
    Cause.NEVER_STARTED: "it never started, and Slurm has no such job any more",
    Cause.CANCELLED: "cancelled",
    Cause.STOPPED: "stopped with everything saved, and not queued again",
    Cause.HANG: "it runs and says nothing any more",
    Cause.UNKNOWN: "not known",
}


@dataclass(frozen=True)
class Evidence:
    """The line that a verdict rests on.

    Attributes:
        file: path below the run directory, or the command that said it.
        line: its number, counted from 1; None for what is no file.
        rank, node: whose line it is, as far as is known.
    """

    file: str
    line: int | None
    text: str
    rank: int | None = None
    node: str | None = None

    def place(self) -> str:
        """`attempts/1/rank3.log:17, rank 3 on node2`."""
        whose = " on ".join(w for w in ("" if self.rank is None else f"rank {self.rank}", self.node or "") if w)
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}, {whose}" if whose else where


@dataclass(frozen=True)
class Mend:
    """A command that mends it, ready to paste, and why this one."""

    command: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """Why a run is where it is.

    Attributes:
        summary: one sentence, more particular than the cause's title.
        attempt: number of the attempt that it is about; None when none got so far.
        again: what the retry policy says of this cause; "" where there is nothing to repeat.
        notes: what else is worth knowing, the last lines of the log for an unknown cause.
        because: the verdict of the run that this one waited for, and that run's name.
    """

    cause: Cause
    summary: str
    evidence: Evidence | None = None
    mends: tuple[Mend, ...] = ()
    attempt: int | None = None
    again: str = ""
    notes: tuple[str, ...] = ()
    because: tuple[str, Verdict] | None = None
    decisions: tuple[dict[str, Any], ...] = field(default=())

    def noting(self, *notes: str) -> Verdict:
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def line(self) -> str:
        """All of it in one line, for a table."""
        return f"{TITLES[self.cause]}: {self.summary}" if self.summary else TITLES[self.cause]

    def lines(self) -> list[str]:
        """All of it in words, for a terminal or a log."""
        found = [self.line()]
        if self.evidence is not None:
            found += [f"  evidence: {self.evidence.text}", f"            {self.evidence.place()}"]
        for mend in self.mends:
            found += [f"  mend:     {mend.command}", f"            {mend.why}"]
        if self.again:
            found.append(f"  again?    {self.again}")
        if self.because is not None:
            name, verdict = self.because
            found.append(f"  because:  {name}: {verdict.line()}")
            if verdict.evidence is not None:
                found.append(f"            {verdict.evidence.text} ({verdict.evidence.place()})")
        return [*found, *(f"  {note}" for note in self.notes)]

    def document(self) -> dict[str, Any]:
        """As JSON; keys are only ever added."""
        return {
            "verdict": self.cause.value,
            "failed": self.cause.is_failure,
            "summary": self.summary,
            "attempt": self.attempt,
            "evidence": None if self.evidence is None else vars(self.evidence),
            "mends": [vars(m) for m in self.mends],
            "again": self.again,
            "decisions": list(self.decisions),
            "because": None if self.because is None else {"run": self.because[0], **self.because[1].document()},
            "notes": list(self.notes),
        }

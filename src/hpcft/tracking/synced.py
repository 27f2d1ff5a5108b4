"""What of a run is known to be in wandb (`wandb/synced.json`), and the lock of the one who sends it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from hpcft.errors import TryAgainError
from hpcft.runs.files import explained, make_private, read_json, write_json
from hpcft.runs.run import Run
from hpcft.tracking.projection import Projection, fingerprint


@dataclass(frozen=True)
class Synced:
    """What the server has confirmed.

    Attributes:
        server: host and port of a server of one's own; None: wandb's.
        entity, project, run_id: where the run stands there.
        points: how many of the record's points it has, which are its first ones.
        fingerprint: of those.
        system: how many records of the machine's load it has.
        model: stamp of the model folder that it has; None: none.
        exit_code: that it was told; None: the run went on.
        log_bytes: size of the run's event logs by then.
        time: of the confirmation, in seconds since the epoch.
    """

    server: str | None
    entity: str
    project: str
    run_id: str
    points: int
    fingerprint: str
    system: int
    model: str | None
    exit_code: int | None
    log_bytes: int
    time: float

    def is_current(self, run: Run, *, ended: bool) -> bool:
        """Whether the record is the same as it was then."""
        same_end = (self.exit_code is not None) == ended and (self.exit_code == 0) == (
            ended and run.paths.done.is_file()
        )
        return same_end and self.log_bytes == log_bytes(run)

    def is_prefix(self, projection: Projection) -> bool:
        """Whether what the server has is the beginning of what the record has now."""
        return self.fingerprint == fingerprint(projection.points[: self.points])


def log_bytes(run: Run) -> int:
    """Size of a run's event logs, which only grow."""
    logs = [run.paths.events(number) for number in run.paths.attempt_numbers()]
    return sum(log.stat().st_size for log in logs if log.is_file())


def stamp(projection: Projection) -> str | None:
    """What tells a model folder from a later one, without reading its gigabytes."""
    if projection.model is None:
        return None
    files = sorted(p for p in projection.model.folder.rglob("*") if p.is_file())
    return fingerprint([{"step": f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}"} for p in files])


def read_synced(run: Run, server: str | None) -> Synced | None:
    """What is known; None when nothing is, or when it is about another server."""
    raw = read_json(run.paths.synced)
    if not isinstance(raw, dict) or raw.keys() != Synced.__dataclass_fields__.keys() or raw["server"] != server:
        return None
    return Synced(**raw)


def write_synced(run: Run, synced: Synced) -> None:
    """Write down what is known. Only who holds the lock may."""
    write_json(run.paths.synced, asdict(synced))


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Be the only one who sends this run. The kernel lets go of the lock when this process ends, however it ends.

    Raises:
        TryAgainError: another process sends it now.
    """
    path = run.paths.synced.with_suffix(".lock")
    with explained(path, "sync"):
        make_private(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(handle)
            raise TryAgainError("another sync sends this run just now", where=run.name) from error
        # A file system without locks: who runs two syncs at once there has been warned by the guide.
    try:
        yield
    finally:
        os.close(handle)

"""One attempt at a time: who holds a run, whether it still lives, and which attempt is the newest.

The newest attempt is the one that writes. A folder `attempts/<n>` is taken by an exclusive mkdir, so the next one's
existence says that attempt n is superseded. That alone keeps the record whole; looking whether another attempt is
alive, before one begins, keeps two from computing the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcft.errors import SecondAttemptError
from hpcft.runs.create import begin_attempt
from hpcft.runs.files import FILE_MODE, make_private, read_fields, write_json
from hpcft.runs.paths import RunPaths

_PULSE_S = 5.0
# A pulse that is older is no sign of life: a process that loads a model may hold its threads up for a while.
_SILENT_S = 60.0


@dataclass(frozen=True)
class Holder:
    """The process that holds an attempt: its rank 0.

    Attributes:
        host: name of its machine.
        processes: what `pid` counts in: the machine since its last boot, and the container.
        began: when the process began, seconds since the epoch; tells it from a later one with its number.
        job_id: Slurm's, the same for all attempts of a job that is requeued; None without Slurm.
    """

    host: str
    processes: str
    pid: int
    began: float
    job_id: str | None

    @classmethod
    def this(cls) -> Holder:
        """This process."""
        import psutil

        pid = os.getpid()
        began = psutil.Process(pid).create_time()
        return cls(socket.gethostname(), _processes(), pid, began, this_job() or None)

    def lives(self) -> bool | None:
        """Whether the process is there; None when that cannot be seen from here."""
        if self.processes != _processes():
            return None
        import psutil

        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.began) < 1.0)
        except psutil.NoSuchProcess:
            return False


def this_job() -> str:
    """Id of the job that this process belongs to, empty outside of one.

    A task of an array is `123_4`: the bare number of the last task is that of the whole array too, and what is asked
    for it is done to all tasks.
    """
    environ = os.environ
    if "SLURM_ARRAY_JOB_ID" in environ and "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID", "")


def _processes() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        # Not Linux: names of machines have to do.
        return socket.gethostname()


class Attempt:
    """An attempt that has begun, with its pulse.

    Args:
        paths: the run directory.
        silent_s: seconds without a pulse after which another attempt on another machine is taken for dead.

    Raises:
        SecondAttemptError: another attempt of the run is alive.
        NotAllowedError: the folder cannot be made.
    """

    def __init__(self, paths: RunPaths, silent_s: float = _SILENT_S) -> None:
        me = Holder.this()
        _refuse_second(paths, me, silent_s)
        self.number = begin_attempt(paths)
        self._paths = paths
        self._over = threading.Event()
        write_json(paths.holder(self.number), asdict(me))
        _touch(paths.pulse(self.number))
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say that it has ended; a killed one cannot, and is found out by its silence."""
        self._over.set()
        self._thread.join()
        self._paths.pulse(self.number).unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(_PULSE_S):
            # A full disk or a lost mount must not end the thread: the next pulse may come through.
            with contextlib.suppress(OSError):
                _touch(self._paths.pulse(self.number))


def superseded(paths: RunPaths, number: int) -> bool:
    """Whether a newer attempt has begun."""
    return paths.attempt(number + 1).is_dir()


def require_newest(paths: RunPaths, number: int, doing: str) -> None:
    """Keep a stale attempt, which was thought dead and wakes up, from writing what is the newest one's to write.

    Raises:
        SecondAttemptError: a newer attempt has begun.
    """
    if superseded(paths, number):
        raise SecondAttemptError(
            f"attempt {number} is not the newest any more, so it does not {doing}", where=str(paths.root)
        )


def holder_of(paths: RunPaths, number: int) -> Holder | None:
    """Who holds or held an attempt, when it says so."""
    return read_fields(paths.holder(number), Holder)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE))
    os.utime(path)


def _refuse_second(paths: RunPaths, me: Holder, silent_s: float) -> None:
    for number in paths.attempt_numbers():
        other = holder_of(paths, number) if paths.pulse(number).exists() else None
        # Slurm starts a job again only after it has ended the last start of it.
        if other is None or (other.job_id is not None and other.job_id == me.job_id):
            continue
        lives = other.lives()
        if lives is None:
            lives = _has_pulse(paths, number, silent_s)
        if lives:
            job = f", Slurm job {other.job_id}" if other.job_id else ""
            raise SecondAttemptError(
                f"attempt {number} of this run is alive (on {other.host}, process {other.pid}{job}), and a run is done "
                "by one attempt at a time",
                where=str(paths.root),
                hint=f"nothing was started; wait for its end, or end it: hpcft cancel {paths.root.name}",
            )


def _has_pulse(paths: RunPaths, number: int, silent_s: float) -> bool:
    """Watch another machine's pulse until it is felt, or was silent for too long."""
    pulse = paths.pulse(number)
    first: float | None = None
    while True:
        try:
            last = pulse.stat().st_mtime
        except FileNotFoundError:
            return False
        if first is not None and last != first:
            return True
        if _now(paths) - last >= silent_s:
            return False
        first = last
        time.sleep(1.0)


def _now(paths: RunPaths) -> float:
    """The time by the clock that stamps the files of the run directory, which may be a file server's."""
    with tempfile.NamedTemporaryFile(dir=make_private(paths.attempts), prefix=".now-") as file:
        return Path(file.name).stat().st_mtime

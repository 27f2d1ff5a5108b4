"""Asked to stop: the signals of preemption, time limit and cancellation, turned into a flag.

Nothing is saved inside a signal handler. The ranks look at the flag between two optimizer steps, agree, save
together and leave with exit code 75; the batch script sees it and asks Slurm to queue the job again.
"""

from __future__ import annotations

import logging
import signal
from types import FrameType

log = logging.getLogger(__name__)

# USR2 is what the batch script asks Slurm to send before the time limit; TERM comes with preemption on sites that
# do not forward it; INT is Ctrl-C.
_SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """Everything is saved at `step` and the job is to go on later."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped on request at step {step}, with everything saved")
        self.step = step


class StopRequest:
    """Remembers why to stop: the first signal's name, or the words of whoever asked without one."""

    def __init__(self) -> None:
        self.reason: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is a reason to stop."""
        return self.reason is not None

    def ask(self, reason: str) -> None:
        """Ask to stop; an earlier reason stays."""
        if self.reason is None:
            self.reason = reason

    def listen(self) -> None:
        """Take the signals over; from the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.ask(signal.Signals(number).name)

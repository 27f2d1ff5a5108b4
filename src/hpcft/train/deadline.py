"""The end of the job's time, and how long before it saving has to begin.

The batch system's signal says it too, but it may come late, or not at all on some sites; and `resources.signal_seconds`
is a guess, where the steps and saves of this job have been measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping


class Deadline:
    """When to stop, so that the checkpoint is whole before the time limit.

    Args:
        end: of the job's time, seconds since the epoch; None when there is none.
        save_seconds: what the longest save took so far, of any attempt; None before the first.
        signal_seconds: how long before the end the signal is asked for; half of it is left for a save that was never
            measured, so that a signal that comes in time comes first.
    """

    def __init__(self, end: float | None, save_seconds: float | None, signal_seconds: float) -> None:
        self.end = end
        self.save_seconds = save_seconds
        self._unmeasured_s = signal_seconds / 2
        self._step_s = 0.0

    def stepped(self, seconds: float) -> None:
        """Learn from a step; one that was slow counts less and less."""
        self._step_s = max(seconds, 0.9 * self._step_s)

    def saved(self, seconds: float) -> None:
        """Learn from a save."""
        self.save_seconds = max(seconds, self.save_seconds or 0.0)

    @property
    def needed_s(self) -> float:
        """Seconds that one more step and a save may take: the step twice over, the save half as long again."""
        save = self._unmeasured_s if self.save_seconds is None else 1.5 * self.save_seconds + 5.0
        return 2 * self._step_s + save

    @property
    def near(self) -> bool:
        """Whether another step could be one too many."""
        return self.end is not None and self.end - time.time() <= self.needed_s


def end_of_job(environ: Mapping[str, str]) -> float | None:
    """When Slurm ends this job, seconds since the epoch; None when it does not say."""
    text = environ.get("SLURM_JOB_END_TIME", "")
    return float(text) if text.isdecimal() else None

"""What rank 0 writes while a job runs: the event log first, then the words in logs.txt, the heartbeat, wandb."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hpcft.measure.memory import GB
from hpcft.runs.attempt import require_newest
from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Status
from hpcft.tracking.names import is_point, step_point

if TYPE_CHECKING:
    from hpcft.tracking.wandb import Tracker

log = logging.getLogger(__name__)

PROGRESS = 25
logging.addLevelName(PROGRESS, "PROGRESS")
_HEARTBEAT_S = 1.0


class Recorder:
    """The one writer of a run's attempt.

    Args:
        paths: the run directory.
        attempt: number of this attempt.
        log_every: optimizer steps between two points sent to wandb. The event log has every step.
    """

    def __init__(self, paths: RunPaths, attempt: int, log_every: int) -> None:
        self.paths = paths
        self.attempt = attempt
        self.log_every = log_every
        self.events = EventLog(paths.events(attempt))
        self.tracker: Tracker | None = None
        self._status = Status("starting", attempt)
        self._last_heartbeat = 0.0

    def event(self, kind: str, **fields: Any) -> None:
        """Add a record to the event log."""
        self.events.append(kind, **fields)

    def status(self, state: str, *, message: str = "", now: bool = True, **fields: Any) -> None:
        """Replace the heartbeat; with `now` false only when the last one is older than a second.

        Raises:
            SecondAttemptError: a newer attempt has begun, so this one was thought dead and has nothing to say.
        """
        moment = time.time()
        previous = asdict(self._status)
        self._status = Status(**{**previous, **fields, "state": state, "message": message, "time": moment})
        if now or moment - self._last_heartbeat >= _HEARTBEAT_S:
            self._last_heartbeat = moment
            self._status = replace(self._status, peak_vram_gb=_peak_vram_gb(self._status.peak_vram_gb))
            require_newest(self.paths, self.attempt, "go on")
            write_json(self.paths.status, asdict(self._status), durable=now)

    def step(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        """Record one optimizer step. `metrics` has `loss`, `learning_rate`, `epoch` and what else was measured."""
        self.event("step", step=step, **metrics)
        loss = metrics.get("loss")
        self.status("training", step=step, total_steps=total_steps, loss=loss, now=False)
        if is_point(step, self.log_every, total_steps):
            words = " | ".join(f"{k}={metrics[k]:.6g}" for k in ("loss", "learning_rate", "epoch") if k in metrics)
            log.log(PROGRESS, "Step %d: %s", step, words)
            if self.tracker is not None:
                self.tracker.log(step_point(metrics), step)

    def metrics(self, kind: str, step: int, metrics: dict[str, float], words: str | None = None, **more: Any) -> None:
        """Record figures that belong to an epoch, a validation or a sample.

        Args:
            words: what logs.txt says of them; the figures themselves when absent.
            more: for the event log alone.
        """
        self.event(kind, step=step, metrics=metrics, **more)
        figures = " | ".join(f"{k}={v:.6g}" for k, v in metrics.items())
        log.log(PROGRESS, "%s", f"{kind.capitalize()}: {figures}" if words is None else words)
        if self.tracker is not None:
            self.tracker.log(metrics, step)

    def summary(self, values: dict[str, Any]) -> None:
        """Record final single values."""
        self.event("summary", metrics=values)
        if self.tracker is not None:
            self.tracker.summary(values)

    def follow_loading(self) -> None:
        """Show in the heartbeat what the code that loads and makes models logs; it may take a minute."""
        logging.getLogger("hpcft.models").addHandler(_Loading(self))

    def close(self) -> None:
        """Flush and close the event log."""
        self.events.close()


def _peak_vram_gb(before: float | None) -> float | None:
    """GPU memory that this rank's tensors have held at most; `before` where no GPU is used, or not yet."""
    # The first heartbeats are written before torch is loaded.
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return before
    # A part of a job that measures its own peak begins to count anew.
    return max(before or 0.0, float(torch.cuda.max_memory_allocated() / GB))


class _Loading(logging.Handler):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.INFO)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO:
            self._recorder.status("starting", message=record.getMessage())

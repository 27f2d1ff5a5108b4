"""The tracker: every call to wandb is made by one background thread, so that none can hold training up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcft.runs.files import make_private
from hpcft.tracking.client import (
    LOGIN,
    TRIAL,
    in_words,
    kill_service,
    model_artifact,
    quiet_settings,
    set_environment,
    use_own_step,
)
from hpcft.tracking.credentials import Mode

# Calls that wait for wandb; at 20 figures each they take about 25 MB.
_QUEUE = 10_000
_GRACE_S = 1.0
_TOLD = 5


@dataclass
class TrackerReport:
    """What became of a run's tracking.

    Attributes:
        mode: the mode really used; `offline` when the server could not be had.
        sent: calls handed to wandb. dropped: those that were not.
        finished: whether wandb ended in time: online, that the server has everything.
        folder: wandb's folder of this attempt, for `hpcft sync`.
        error: what went wrong, if something did.
    """

    mode: str
    sent: int = 0
    dropped: int = 0
    finished: bool = False
    folder: str | None = None
    error: str | None = None


class Tracker:
    """One wandb run of one attempt. Made by rank 0 alone; no method waits for wandb but `finish`.

    Args:
        folder: the run directory's `wandb/` (of that name), where all that wandb writes is kept.
        mode: `online`, `offline` or `disabled`. Online becomes offline when the server cannot be had.
        settings: arguments of `wandb.init`: project, entity, id, name, job_type, config, tags, notes.
        log: for what the user should know.
        init_timeout_s: seconds that the server has for its first answer, before the run goes on offline.
    """

    def __init__(
        self,
        folder: Path,
        mode: Mode,
        settings: dict[str, Any],
        log: logging.Logger,
        init_timeout_s: float = 30.0,
    ) -> None:
        self._folder = folder.absolute()
        self._settings = settings
        self._log = log
        self._init_timeout_s = init_timeout_s
        self._report = TrackerReport(mode)
        self._offered = 0
        self._full = False
        self._errors: list[str] = []
        # The queue without a lock of its own in Python: a put cannot meet a thread that holds one.
        self._calls: queue.SimpleQueue[Callable[[Any], object] | None] = queue.SimpleQueue()
        self._exit_code = 0
        self._ending = False
        self._cut = False
        self._opened = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if mode != "disabled":
            # Here, and not in the thread: changing the environment beside running threads is not safe.
            self._set_environment()
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Send figures of a step. `step` is a metric of its own: wandb drops what comes with a lower step of its
        own counting, which a job that goes on from a checkpoint has."""
        point = {**metrics, "step": step}
        self._put(lambda run: run.log(point))

    def summary(self, values: dict[str, Any]) -> None:
        """Set final single values."""
        values = dict(values)
        self._put(lambda run: run.summary.update(values))

    def artifact(self, folder: Path, name: str, metadata: dict[str, Any]) -> None:
        """Log a model folder. wandb reads the files where they are instead of copying them first."""
        metadata = dict(metadata)
        self._put(lambda run: run.log_artifact(model_artifact(folder, name, metadata)))

    def finish(self, timeout_s: float = 10.0, exit_code: int = 0) -> TrackerReport:
        """End the run; return after `timeout_s` at the latest, whatever wandb does.

        A wandb that does not end in time is cut off, since Python would wait for it when the process exits. What it
        was given stands in `folder` by then, to be synced later.

        Args:
            timeout_s: seconds, at least 3.
            exit_code: of the job; wandb shows a run with another one than 0 as failed.
        """
        if self._thread is None:
            return self._report
        deadline = time.monotonic() + timeout_s
        self._exit_code = exit_code
        self._calls.put(None)
        if not self._opened.wait(timeout_s * 0.4) and self._report.mode == "online":
            # No answer from the server yet: what is left of the time is for going on offline.
            self._ending = True
            kill_service()
        self._ended.wait(deadline - time.monotonic() - 2.5 * _GRACE_S)
        self._thread.join(_GRACE_S)
        in_time = not self._thread.is_alive() or self._report.finished
        if not in_time:
            self._tell(f"wandb did not end within {timeout_s:.0f} s and was cut off")
        error = "; ".join(self._errors) or None
        report = replace(self._report, dropped=self._offered - self._report.sent, error=error)
        if self._thread.is_alive():
            # What the thread has to say to this is not news.
            self._cut = True
            kill_service()
            self._thread.join(_GRACE_S)
        return report

    def _put(self, call: Callable[[Any], object]) -> None:
        if self._thread is None:
            return
        self._offered += 1
        if self._calls.qsize() < _QUEUE:
            self._calls.put(call)
        elif not self._full:
            self._full = True
            self._log.warning("wandb is too slow: points are left out there; the event log has all of them")

    def _tell(self, text: str) -> None:
        # Some of wandb's troubles come again with every call.
        if not self._cut and text not in self._errors and len(self._errors) < _TOLD:
            self._errors.append(text)
            self._log.warning("%s; the run directory has everything", text)

    def _work(self) -> None:
        # Whatever wandb raises, training goes on without it: that is what the broad catches here are for.
        try:
            run = self._open()
            self._opened.set()
            self._report.folder = str(Path(run.dir).parent)
            while (call := self._calls.get()) is not None and not self._cut:
                try:
                    call(run)
                    self._report.sent += 1
                except Exception as error:
                    self._tell(f"a call to wandb failed: {in_words(error)}")
            run.finish(exit_code=self._exit_code)
            self._report.finished = True
        except Exception as error:
            self._tell(f"wandb cannot be used: {in_words(error)}")
        finally:
            self._opened.set()
            self._ended.set()
            self._leave()

    def _leave(self) -> None:
        """End wandb's service now, in this thread; left to the exit of the process, it could hang there."""
        try:
            import wandb

            wandb.teardown()
        except (Exception, SystemExit) as error:
            self._log.debug("wandb's service did not end well: %s", in_words(error))

    def _open(self) -> Any:
        make_private(self._folder)
        import wandb

        common: dict[str, Any] = {
            **quiet_settings(),
            # A killed job loses what was not flushed; wandb waits 15 s by default.
            "x_transaction_log_flush_interval": 1.0,
            # A press on Stop in wandb would raise KeyboardInterrupt in the middle of a training step.
            "stop_fn": self._asked_to_stop,
        }
        try:
            if self._report.mode == "online" and self._ending:
                raise TimeoutError("the job was over before it could be asked")
            run = self._init(wandb.Settings(init_timeout=self._init_timeout_s, **common), self._report.mode)
        except Exception as error:
            if self._report.mode != "online":
                raise
            self._tell(f"wandb's server cannot be used, going on offline: {in_words(error)}")
            self._report.mode = "offline"
            # wandb's service still tries, and holds the run id.
            kill_service()
            self._leave()
            run = self._init(wandb.Settings(**common), "offline")
        use_own_step(run)
        return run

    def _init(self, settings: Any, mode: str) -> Any:
        import wandb

        given = {**self._settings, "mode": mode, "dir": str(self._folder.parent), "settings": settings}
        # A requeued job goes on with its run; offline, wandb cannot know of one and warns when asked.
        given["resume"] = "allow" if mode == "online" else None
        # Not the run that somebody's notebook has open in this process.
        return wandb.init(**given, reinit="create_new")

    def _asked_to_stop(self) -> None:
        self._log.warning("somebody asked in wandb to stop this run; stop it with: hpcft cancel")

    def _set_environment(self) -> None:
        aside = set_environment(self._folder, LOGIN | TRIAL)
        if aside:
            self._log.info("set aside for this job, whose own configuration counts: %s", ", ".join(aside))

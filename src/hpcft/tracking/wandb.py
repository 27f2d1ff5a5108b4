"""The tracker: every call to wandb is made by one background thread, so that none can hold training up."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.tracking.credentials import Mode

_QUEUE = 100_000
_INIT_TIMEOUT_S = 30.0


@dataclass
class TrackerReport:
    """What became of a run's tracking.

    Attributes:
        mode: the mode really used; `offline` when the server could not be had.
        sent: calls handed to wandb. dropped: calls that were not, since the queue was full.
        finished: whether wandb ended in time.
        folder: wandb's folder of this attempt, for `wandb sync`.
        error: what went wrong, if something did.
    """

    mode: str
    sent: int = 0
    dropped: int = 0
    finished: bool = False
    folder: str | None = None
    error: str | None = None


class Tracker:
    """One wandb run of one attempt. Made by rank 0 alone.

    Args:
        folder: the run directory's `wandb/`.
        mode: `online`, `offline` or `disabled`.
        settings: arguments of `wandb.init`: project, entity, id, name, job_type, config, tags, notes.
        log: for what the user should know.
    """

    def __init__(self, folder: Path, mode: Mode, settings: dict[str, Any], log: logging.Logger) -> None:
        self._folder = folder
        self._settings = settings
        self._log = log
        self._report = TrackerReport(mode)
        self._calls: queue.Queue[Callable[[Any], None] | None] = queue.Queue(_QUEUE)
        self._exit_code = 0
        self._thread: threading.Thread | None = None
        if mode != "disabled":
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Send figures of a step. `step` is a metric of its own: wandb drops what comes with a lower step of its
        own counting, which a job that goes on from a checkpoint has."""
        self._put(lambda run: run.log({**metrics, "step": step}))

    def summary(self, values: dict[str, Any]) -> None:
        """Set final single values."""
        self._put(lambda run: run.summary.update(values))

    def artifact(self, folder: Path, name: str, metadata: dict[str, Any]) -> None:
        """Log a model folder. wandb reads the files where they are instead of copying them first."""

        def call(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            for file in sorted(folder.iterdir()):
                artifact.add_file(str(file), policy="immutable")
            run.log_artifact(artifact)

        self._put(call)

    def finish(self, timeout_s: float = 10.0, exit_code: int = 0) -> TrackerReport:
        """End the run; return after `timeout_s` at the latest, whatever wandb does.

        A wandb that does not end in time is left behind: its service process is killed, since at exit Python would
        wait for it. What was logged offline is on disk by then.
        """
        if self._thread is None:
            return self._report
        self._exit_code = exit_code
        self._put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._report.error = self._report.error or f"wandb did not end within {timeout_s:.0f} s"
            self._log.warning("%s; the run directory has everything", self._report.error)
            _abandon_service()
        return self._report

    def _put(self, call: Callable[[Any], None] | None) -> None:
        if self._thread is None:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._report.dropped += 1
            if self._report.dropped == 1:
                self._log.warning("wandb is too slow: points are left out there; the event log has all of them")

    def _work(self) -> None:
        try:
            run = self._open()
        except Exception as error:
            # Whatever wandb raises, training goes on without it.
            self._report.error = f"wandb cannot be used: {error}"
            self._log.warning("%s", self._report.error)
            return
        self._report.folder = str(run.dir)
        while (call := self._calls.get()) is not None:
            try:
                call(run)
                self._report.sent += 1
            except Exception as error:
                self._report.error = f"a call to wandb failed: {error}"
                self._log.warning("%s", self._report.error)
        try:
            run.finish(exit_code=self._exit_code)
            self._report.finished = True
        except Exception as error:
            self._report.error = f"wandb could not end its run: {error}"
            self._log.warning("%s", self._report.error)

    def _open(self) -> Any:
        import wandb

        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR", "WANDB_CONFIG_DIR"):
            os.environ[name] = str(self._folder)
        common = {"silent": True, "console": "off", "save_code": False, "x_disable_meta": True}
        common |= {"x_transaction_log_flush_interval": 1.0, "disable_git": True}
        try:
            settings = wandb.Settings(init_timeout=_INIT_TIMEOUT_S, **common)
            run = self._init(settings, self._report.mode)
        except Exception as error:
            if self._report.mode != "online":
                raise
            self._log.warning("wandb cannot be reached (%s); going on offline", error)
            self._report.mode, self._report.error = "offline", f"online failed: {error}"
            run = self._init(wandb.Settings(**common), "offline")
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run

    def _init(self, settings: Any, mode: Any) -> Any:
        import wandb

        return wandb.init(mode=mode, resume="allow", settings=settings, dir=str(self._folder), **self._settings)


def _abandon_service() -> None:
    """Kill this process's own wandb service, and forget it, so that exit does not wait for it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text(encoding="ascii", errors="replace")
            name = stat[stat.index("(") + 1 : stat.rindex(")")]
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            if parent == os.getpid() and name.startswith(("wandb-core", "gpu_stats")):
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, ValueError):
            # The process has ended meanwhile.
            continue

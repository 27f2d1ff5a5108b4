"""What a rank uses while it trains, looked at every few seconds by a thread of its own.

From the first step to the last, in the process that trains: what the machine does before and after, and what others do
on it, is not in these figures.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from hpcft.measure.machine import nvml_of
from hpcft.measure.memory import GB
from hpcft.runs.events import EventLog

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# Figures of which the largest is kept; of the others the mean over time.
_LARGEST = ("memory_gb", "gpu_memory_gb")


@dataclass
class _Figure:
    """A figure over time."""

    sum: float = 0.0
    seconds: float = 0.0
    most: float = -math.inf

    def add(self, value: float, seconds: float) -> None:
        """Count a value that held for so long."""
        self.sum += value * seconds
        self.seconds += seconds
        self.most = max(self.most, value)


@dataclass
class Monitor:
    """Samples of one rank, as a context: they begin and end with it.

    Each sample is a record of `path`: `cpu_percent` (of the process and its children; 100 is one core), `memory_gb`
    (resident), `read_mb_s` and `write_mb_s` (of storage); with a GPU `gpu_percent` (time in which a kernel ran),
    `gpu_memory_gb` and `gpu_power_w` of this rank's card. What cannot be read is absent.

    Args:
        path: the rank's file; appended to.
        device: of the rank.
        every_s: seconds between two samples; 0: none at all.
    """

    path: Path
    device: torch.device
    every_s: float
    _figures: dict[str, _Figure] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if self.every_s > 0:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="monitor")
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            # It writes a last sample, so that a job of a few seconds has one.
            self._thread.join(timeout=10)

    def summary(self) -> dict[str, float]:
        """`system/<figure>`: means over the time that was watched, of memory the most; empty when nothing was seen."""
        with self._lock:
            return {
                f"system/{name}": of.most if name in _LARGEST else of.sum / of.seconds
                for name, of in self._figures.items()
                if of.seconds > 0
            }

    def _watch(self) -> None:
        try:
            with nvml_of(self.device) as gpu:
                samples = EventLog(self.path, sync_seconds=60)
                try:
                    self._sample_until_told(_Sampler(gpu), samples)
                finally:
                    samples.close()
        except Exception as error:
            # A figure of the machine is no reason to stop a training.
            log.warning("what the job uses is not watched any more: %s", error)

    def _sample_until_told(self, sampler: _Sampler, samples: EventLog) -> None:
        last = time.monotonic()
        while True:
            told = self._stop.wait(self.every_s)
            now = time.monotonic()
            found = sampler.sample(now - last)
            with self._lock:
                for name, value in found.items():
                    self._figures.setdefault(name, _Figure()).add(value, now - last)
            samples.append("sample", **{name: round(value, 3) for name, value in found.items()})
            last = now
            if told:
                return


class _Sampler:
    """Reads the counters of this process and its card; rates are since the last time."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._process = psutil.Process()
        self._cpu_s = self._cpu()
        self._bytes = self._storage()

    def sample(self, seconds: float) -> dict[str, float]:
        """The figures now.

        Args:
            seconds: since the last time.
        """
        seconds = max(seconds, 1e-6)
        cpu_s, moved = self._cpu(), self._storage()
        found = {
            "cpu_percent": max(0.0, 100 * (cpu_s - self._cpu_s) / seconds),
            "memory_gb": self._process.memory_info().rss / GB,
        }
        if moved is not None and self._bytes is not None:
            names = ("read_mb_s", "write_mb_s")
            found |= {n: max(0, b - a) / 1e6 / seconds for n, a, b in zip(names, self._bytes, moved, strict=True)}
        self._cpu_s, self._bytes = cpu_s, moved
        return found | (self._gpu() if self._gpu is not None else {})

    def _cpu(self) -> float:
        """Seconds of processor time of the process and its children, those that have ended too."""
        own = self._process.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in self._process.children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.Error:
                # Ended meanwhile.
                continue
            total += times.user + times.system
        return float(total)

    def _storage(self) -> tuple[int, int] | None:
        try:
            found = self._process.io_counters()
        except (AttributeError, psutil.Error):
            # Not told on this system.
            return None
        return found.read_bytes, found.write_bytes

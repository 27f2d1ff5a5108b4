"""What the user's own finished runs needed, against what was estimated for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hpcft.errors import HpcftError
from hpcft.measure.fit import GB, Estimate, Target
from hpcft.measure.twin_step import estimate_of
from hpcft.models.availability import model_folder
from hpcft.models.shapes import read_config
from hpcft.runs.run import Run, RunState
from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS

_KEYS = {"cuda": "train/peak_vram_gb", "cpu": "train/peak_rss_gb"}
# Each of them costs a second or so.
_MOST_RUNS = 5
# Of a single run it is not known how far another one would be from it.
_ALONE = 0.10
_BESIDES = 0.03


@dataclass(frozen=True)
class Calibration:
    """Measured peaks divided by estimated ones.

    Attributes:
        factor: their geometric mean. low, high: the smallest and the largest.
        runs: names of the runs that it stands on.
    """

    factor: float
    low: float
    high: float
    runs: tuple[str, ...]

    def applied(self, estimate: Estimate, device: str) -> tuple[float, float]:
        """The estimate's range by these runs, in bytes. On a GPU the peaks are of tensors alone."""
        spread = _ALONE if len(self.runs) == 1 else _BESIDES
        low, high = self.low * (1 - spread), self.high * (1 + spread)
        if device == "cpu":
            return low * estimate.middle, high * estimate.middle
        rest = [part for part in estimate.parts if part.name not in estimate.tensors]
        tensors = estimate.of_tensors()
        return low * tensors + sum(p.low for p in rest), high * tensors + sum(p.high for p in rest)


def calibrate(job: Job, model_type: str, target: Target, runs: Iterable[Run]) -> Calibration | None:
    """Compare finished trainings of the same architecture, quantisation and kind of device, the newest first; None
    when there is none."""
    found: dict[str, float] = {}
    for run in sorted(runs, key=_end, reverse=True):
        if len(found) == _MOST_RUNS:
            break
        ratio = _ratio(run, job, model_type, target)
        if ratio is not None:
            found[run.name] = ratio
    if not found:
        return None
    values = list(found.values())
    mean = math.exp(sum(map(math.log, values)) / len(values))
    return Calibration(mean, min(values), max(values), tuple(found))


def _end(run: Run) -> float:
    try:
        return run.paths.done.stat().st_mtime
    except OSError:
        return 0.0


def _ratio(run: Run, job: Job, model_type: str, target: Target) -> float | None:
    """Measured by estimated, of one run; None where it is another kind of run."""
    if run.state is not RunState.SUCCESS:
        return None
    try:
        peak = run.metrics.get(_KEYS[target.device])
        own = Job.model_validate(run.config)
    except (ValidationError, HpcftError):
        # Of an older version of this tool, or damaged: nothing to learn from.
        return None
    same = own.kind == "train" and VARIANTS[own.variant].quantization == VARIANTS[job.variant].quantization
    folder = model_folder(own.model)
    if not same or not isinstance(peak, int | float) or folder is None:
        return None
    if read_config(folder).get("model_type") != model_type:
        return None
    try:
        estimate = estimate_of(_as_trained(own, run), target)
    except HpcftError:
        return None
    if estimate is None:
        return None
    return float(peak) * GB / (estimate.middle if target.device == "cpu" else estimate.of_tensors())


def _as_trained(job: Job, run: Run) -> Job:
    """The job with the length that its rows really had: that of the fullest step's padded rows."""
    longest = max((_row_length(event) for event in run.events("step")), default=0.0)
    if not longest:
        return job
    length = max(8, min(job.data.max_length, math.ceil(longest)))
    return job.model_copy(update={"data": job.data.model_copy(update={"max_length": length})})


def _row_length(event: dict[str, Any]) -> float:
    rows = event.get("samples") or 0
    return float(event.get("padded_tokens", 0)) / rows if rows else 0.0

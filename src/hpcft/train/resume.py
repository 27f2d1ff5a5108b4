"""Where an attempt goes on: the newest checkpoint that is good, and only while attempts gain something."""

from __future__ import annotations

import logging
from pathlib import Path

from hpcft.errors import ConfigError, FutileError
from hpcft.runs.attempt import holder_of
from hpcft.runs.events import read_log
from hpcft.runs.paths import RunPaths
from hpcft.train.checkpoint import Manifest, checkpoints, faults, read_manifest, remove_leftovers, set_aside
from hpcft.train.context import Context
from hpcft.train.ranks import from_all, from_first

log = logging.getLogger(__name__)

# Records of a person's act, after which the attempts are counted anew.
_ASKED_FOR = frozenset(("submitted", "requeued"))


def newest_good(context: Context) -> tuple[Path, Manifest] | None:
    """The checkpoint to go on from; damaged ones on the way are given another name. Called by every rank, each of
    which reads a part of the files.

    Raises:
        ConfigError: it was written by another number of ranks or another ZeRO stage.
    """
    if context.recorder is not None:
        for name in remove_leftovers(context.paths):
            log.warning("%s was cut off in the middle and is removed", name)
    while True:
        found = from_first(_newest(context) if context.recorder is not None else None)
        if found is None:
            return None
        folder, manifest = found
        bad = from_all(faults(folder, manifest, context.rank.rank, context.rank.world_size))
        if not any(bad):
            _require_same_shape(context, folder, manifest)
            return folder, manifest
        if context.recorder is not None:
            _set_aside(context, folder, [fault for part in bad for fault in part])


def require_gain(context: Context, step: int) -> None:
    """End a chain of requeued attempts that gets nowhere.

    Args:
        step: that this attempt goes on from.

    Raises:
        FutileError: on every rank, when the last attempts of this job gained no step.
    """
    limit = context.job.resources.max_idle_attempts
    idle = from_first(_idle_attempts(context.paths, context.attempt, step) if context.rank.is_first else 0)
    if idle >= limit:
        raise FutileError(
            f"no step was gained in {idle} attempts: each began at step {step} and ended without a newer checkpoint",
            where=str(context.paths.root),
            hint="give a step and a save more time (resources.time), a partition that does not preempt, or more "
            f"attempts (resources.max_idle_attempts); then: hpcft resume {context.paths.root.name}",
        )


def longest_save_s(paths: RunPaths) -> float | None:
    """Seconds that the longest save of all attempts took; None when none was made."""
    records = (r for n in paths.attempt_numbers() for r in read_log(paths.events(n)).records)
    return max((float(r["seconds"]) for r in records if r["kind"] == "checkpoint" and "seconds" in r), default=None)


def _newest(context: Context) -> tuple[Path, Manifest] | None:
    for folder in checkpoints(context.paths):
        manifest = read_manifest(folder)
        if manifest is not None:
            return folder, manifest
        _set_aside(context, folder, ["its manifest is missing or damaged"])
    return None


def _set_aside(context: Context, folder: Path, bad: list[str]) -> None:
    kept_as = set_aside(folder)
    log.warning("%s is damaged and is not used (%s); it is kept as %s", folder.name, "; ".join(bad), kept_as.name)
    if context.recorder is not None:
        context.recorder.event("damaged_checkpoint", folder=folder.name, kept_as=kept_as.name, faults=bad)


def _require_same_shape(context: Context, folder: Path, manifest: Manifest) -> None:
    world_size, zero_stage = context.rank.world_size, context.job.zero_stage
    if (manifest.world_size, manifest.zero_stage) != (world_size, zero_stage):
        raise ConfigError(
            f"{folder.name} was written by {manifest.world_size} ranks with ZeRO {manifest.zero_stage}; "
            f"this attempt has {world_size} ranks with ZeRO {zero_stage}",
            where=str(folder),
            hint="go on with the same resources.nodes, resources.gpus_per_node and training.zero",
        )


def _idle_attempts(paths: RunPaths, attempt: int, step: int) -> int:
    """How many attempts right before this one gained no step. Only those of the same Slurm job count, since only they
    follow each other without anybody looking, and of them those since somebody asked for the run."""
    mine = holder_of(paths, attempt)
    if mine is None or mine.job_id is None:
        return 0
    asked = max((float(r["t"]) for r in read_log(paths.client).records if r["kind"] in _ASKED_FOR), default=0.0)
    idle = 0
    for number in reversed([n for n in paths.attempt_numbers() if n < attempt]):
        other = holder_of(paths, number)
        if other is None or other.job_id != mine.job_id or _ended_before(paths, number, asked):
            break
        starts = [r for r in read_log(paths.events(number)).records if r["kind"] == "start"]
        # One that did not come as far as to start has gained nothing either.
        if starts and int(starts[0]["resume_step"]) < step:
            break
        idle += 1
    return idle


def _ended_before(paths: RunPaths, number: int, moment: float) -> bool:
    last = max((float(r["t"]) for r in read_log(paths.events(number)).records), default=None)
    return last is not None and last < moment

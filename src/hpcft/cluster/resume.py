"""Going on with a run that has stopped, failed or was cancelled: the same run, a new job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpcft.cluster.profile import Profile, load_profile
from hpcft.cluster.queue import JobState, ask_local
from hpcft.cluster.state import Standing, stand
from hpcft.cluster.steer import note, stop_process
from hpcft.cluster.submit import Submitted, record_intent, submit_local, submit_slurm
from hpcft.errors import ConfigError, TryAgainError, UnavailableError, UsageError
from hpcft.runs.files import write_atomic
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import Record, read_record
from hpcft.runs.run import RunState
from hpcft.runs.submission import Journal, this_user
from hpcft.spec.build import build, flat
from hpcft.spec.job import Job
from hpcft.spec.layers import SpecError, pairs_layer, yaml_layer

# What the first submission knew besides, and later ones are still asked about.
_CARRIED = ("content", "stage", "sweep", "trial")
# A checkpoint is that of so many ranks.
_SHAPE = ("resources.nodes", "resources.gpus_per_node")
# A local job that was asked to stop saves first.
_STOPS_WITHIN_S = 300.0


def resume(root: Path, pairs: Sequence[str], say: Callable[[str], None]) -> Submitted:
    """Submit a run again, as it is, to go on from its newest checkpoint.

    Args:
        root: the run directory.
        pairs: `resources.key=value`, for the job from now on.
        say: receives warnings.

    Raises:
        UsageError: it has finished, or its job waits or runs.
        ConfigError, SpecError: a value is wrong, or cannot be changed any more, or Slurm refused it.
        TryAgainError: it has just ended, or another client is submitting it.
        UnavailableError: whether it still runs cannot be known now.
    """
    record = read_record(root)
    _refuse_unless_over(stand([record])[0])
    return _submit(record, pairs, say)


def restart_local(standing: Standing, say: Callable[[str], None]) -> Submitted:
    """Stop a local job, after it has saved, and start it again.

    Raises:
        TryAgainError: it has not stopped within five minutes.
        UsageError, ConfigError: as `resume`.
    """
    record = standing.record
    if record.job_id is not None and ask_local(record.job_id).state is JobState.RUNNING:
        note(record.root, "requeued", job_id=record.job_id, saves_first=True)
        stop_process(record)
        end = time.monotonic() + _STOPS_WITHIN_S
        while ask_local(record.job_id).state is JobState.RUNNING:
            if time.monotonic() > end:
                raise TryAgainError(f"{record.name} has not stopped yet", where=str(record.root))
            time.sleep(0.2)
    return resume(record.root, [], say)


def _refuse_unless_over(standing: Standing) -> None:
    record, queue = standing.record, standing.queue
    if record.done:
        raise UsageError(f"{record.name} has finished; there is nothing left to do")
    gone = queue is not None and queue.answered and not queue.name
    if standing.state is RunState.UNKNOWN and gone and record.job_id is not None:
        # It is in no queue, and has been silent. With a name it is there, in a state whose word is new to us.
        return
    if standing.state is RunState.UNKNOWN and record.job_id is not None:
        raise UnavailableError(
            f"whether {record.name} still runs cannot be known now: {standing.words}",
            where=str(record.root),
            hint="nothing was submitted; try again in a while",
        )
    if queue is not None and queue.is_final and not standing.state.is_over:
        raise TryAgainError(f"{record.name}: {standing.words}", where=str(record.root), hint="try again in a minute")
    if record.submission is not None and record.submission.is_open:
        # Recording the intent says what to do about it.
        return
    if record.submission is not None and record.submission.kind == "rendered":
        script = RunPaths(record.root).script
        raise UsageError(
            f"the script of {record.name} was written to be submitted by you",
            where=str(script),
            hint=f"sbatch {script}",
        )
    if standing.state in (RunState.PENDING, RunState.STARTED):
        raise UsageError(
            f"{record.name} is {'waiting' if standing.state is RunState.PENDING else 'running'}: {standing.words}",
            where=f"job {record.job_id}",
            hint=f"hpcft requeue {record.name} starts it again; hpcft cancel {record.name} ends it",
        )


def _submit(record: Record, pairs: Sequence[str], say: Callable[[str], None]) -> Submitted:
    paths = RunPaths(record.root)
    job, changed = _changed(paths, pairs)
    if record.run_id is None or record.cluster is None:
        raise UsageError(f"{record.name} was never submitted, so there is nothing to go on with", where=str(paths.root))
    if job.of is not None and not RunPaths(Path(job.of)).done.is_file():
        raise UsageError(
            f"{record.name} works on {Path(job.of).name}, which has not finished", hint=f"hpcft resume {job.of}"
        )
    profile = load_profile(record.cluster, f"{paths.client.name}: the cluster that it was submitted to")
    facts: dict[str, Any] = {name: record.intent[name] for name in _CARRIED if name in record.intent}
    facts |= {"by": this_user(), **({"changed": changed} if changed else {})}
    before = paths.config.read_text(encoding="utf-8")
    with Journal(paths) as journal:
        record_intent(journal, job, profile, paths, record.run_id, **facts)
        if changed:
            text = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_atomic(paths.config, text)
        try:
            return _send(job, profile, paths, record.run_id, journal, say)
        except BaseException:
            if changed and journal.state in ("intent", "refused"):
                # Nothing was sent, so nothing has changed.
                write_atomic(paths.config, before)
            raise


def _send(
    job: Job, profile: Profile, paths: RunPaths, run_id: str, journal: Journal, say: Callable[[str], None]
) -> Submitted:
    if profile.scheduler == "local":
        return submit_local(job, profile, paths, journal)
    return submit_slurm(job, profile, paths, run_id, journal, say)


def _changed(paths: RunPaths, pairs: Sequence[str]) -> tuple[Job, dict[str, list[Any]]]:
    """The run's job with other resources, and what has changed: key → [before, now]."""
    config = yaml_layer(paths.config)
    layer = pairs_layer(list(pairs), "--set")
    if layer.problems:
        raise SpecError(layer.problems)
    for key, (_, where) in layer.values.items():
        if not key.startswith("resources."):
            raise ConfigError(
                "only resources can be changed of a run that goes on: the rest decides what it makes",
                where=where if key in where else f"{where} {key}",
                hint="for another job: hpcft submit results/RUN/config.yaml --set KEY=VALUE",
            )
    before, now = flat(build([config]).job), build([config, layer]).job
    changed = {key: [before[key], value] for key, value in flat(now).items() if before[key] != value}
    if any(key in changed for key in _SHAPE) and any(paths.checkpoints.glob("checkpoint-*")):
        ranks = before["resources.nodes"] * before["resources.gpus_per_node"]
        raise ConfigError(
            f"its checkpoints are those of {ranks} rank{'s' if ranks > 1 else ''}, and cannot be divided anew",
            where=", ".join(key for key in _SHAPE if key in changed),
            hint=f"for a new run: hpcft submit {paths.config}",
        )
    return now, changed

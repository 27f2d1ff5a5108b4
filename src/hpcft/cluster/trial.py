"""A trial of a sweep: its run directory, made when the trial starts, or found when its job was queued again.

    python -m hpcft.cluster.trial SWEEP NUMBER

is what each task of an array runs first. Exit codes: 0 the worker can start, 3 there is nothing left to do.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from hpcft.cluster.queue import ask
from hpcft.errors import DataError, HpcftError, TryAgainError
from hpcft.runs.attempt import this_job
from hpcft.runs.create import new_run_id
from hpcft.runs.events import read_log
from hpcft.runs.files import explained, make_private, write_atomic
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import about
from hpcft.runs.submission import Journal, submissions, withdrawn
from hpcft.runs.sweep import SweepFolder, Trial, trial_name
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import mapping_layer, yaml_layer

NOTHING_TO_DO = 3
# What a trial's journal takes over from its sweep's.
_TAKEN = ("cluster", "scheduler", "internet", "ranks", "host")


def trial_job(sweep: SweepFolder, trial: Trial) -> Job:
    """The job of a trial: that of the sweep with the trial's own values.

    Raises:
        SpecError: the files were changed since the sweep was submitted.
    """
    own = {"name": trial_name(trial.number), "results": str(sweep.paths.root), "tracking.group": sweep.name}
    layers = [yaml_layer(sweep.paths.job), mapping_layer(trial.overrides | own, f"trial {trial.number}")]
    return build(layers).job


def make_trial(sweep: SweepFolder, trial: Trial) -> tuple[Job, RunPaths]:
    """Make a trial's run directory, or what is missing of it, and give its job.

    Raises:
        NotAllowedError: it cannot be made.
    """
    paths = sweep.paths.trial(trial.number)
    job = trial_job(sweep, trial)
    with explained(paths.root, "make the run directory"):
        make_private(paths.root)
        if not paths.code.is_symlink():
            paths.code.symlink_to(Path("..", sweep.paths.archive.name))
        if not paths.provenance.exists():
            shutil.copyfile(sweep.paths.as_run.provenance, paths.provenance)
    if not paths.config.exists():
        write_atomic(paths.config, yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    return job, paths


def find_trial(sweep: SweepFolder, number: int) -> Trial:
    """A trial of the manifest.

    Raises:
        DataError: the manifest has none of that number.
    """
    for trial in sweep.trials():
        if trial.number == number:
            return trial
    raise DataError(f"has no trial {number}", where=str(sweep.paths.manifest))


def begin(root: Path, number: int, job_id: str, job_name: str) -> int:
    """Make or find the run directory of a trial that this job is to do.

    Args:
        root: the sweep's folder.
        job_id: of the array's task, `123_4`. job_name: the array's; its key tells the submission.

    Returns:
        The exit code.
    """
    sweep = SweepFolder(root)
    if withdrawn(sweep.paths.as_run, job_name):
        return _nothing(f"the submission {job_name} was given up")
    job, paths = make_trial(sweep, find_trial(sweep, number))
    if paths.done.is_file():
        return _nothing(f"trial {number} has finished before")
    _link_log(sweep, paths, job_id)
    with Journal(paths) as journal:
        known = submissions(paths)
        last = known[-1] if known else None
        if last is not None and last.job_id == job_id:
            return 0
        if last is not None and last.job_id is not None and ask([last.job_id])[last.job_id].is_active:
            return _nothing(f"trial {number} is that of job {last.job_id}")
        if last is not None and last.is_open:
            # This job's predecessor, the only one who writes here, was killed in between.
            journal.number = last.number
        else:
            try:
                run_id = next((str(r["run_id"]) for r in read_log(paths.client).records if "run_id" in r), new_run_id())
                journal.open_submission(run_id)
            except TryAgainError:
                return _nothing(f"another job has just begun trial {number}")
            facts = _facts(sweep) | {"after_attempt": max(paths.attempt_numbers(), default=0)}
            facts |= {"sweep": sweep.name, "trial": number, **about(job)}
            journal.note("intent", run_id=run_id, job_name=job_name, **facts)
        journal.note("submitted", job_id=job_id)
    return 0


def _facts(sweep: SweepFolder) -> dict[str, Any]:
    intents = [r for r in read_log(sweep.paths.as_run.client).records if r["kind"] == "intent"]
    return {key: intents[-1][key] for key in _TAKEN if key in intents[-1]} if intents else {}


def _link_log(sweep: SweepFolder, paths: RunPaths, job_id: str) -> None:
    """Let the run's log be the one that Slurm writes for this task."""
    aside = paths.root / ".job.log.new"
    with explained(paths.batch_log, "link the log"):
        aside.unlink(missing_ok=True)
        aside.symlink_to(Path("..", sweep.paths.logs.name, f"{job_id}.log"))
        aside.replace(paths.batch_log)


def _nothing(why: str) -> int:
    print(f"{why}; nothing to do", file=sys.stderr)
    return NOTHING_TO_DO


def main() -> int:
    """Begin the trial of this array task, and return the exit code."""
    os.umask(0o077)
    # They are the worker's to answer, which starts in a moment.
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    root, trial = sys.argv[1:]
    try:
        return begin(Path(root), int(trial), this_job(), os.environ.get("SLURM_JOB_NAME", ""))
    except HpcftError as error:
        print(f"hpcft: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

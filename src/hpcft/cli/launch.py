"""From a plan to a job: checks that need no job, the run directory, the submission."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpcft.cli.follow import failure, follow, report
from hpcft.cli.job_options import Plan
from hpcft.cli.output import say
from hpcft.cli.preflight import job_environment, preflight
from hpcft.cli.subject import check_teacher_name, with_teacher
from hpcft.cluster.profile import Profile
from hpcft.cluster.queue import start_time
from hpcft.cluster.render import render
from hpcft.cluster.submit import Submitted, check_one_node, record_intent, submit_local, submit_slurm
from hpcft.errors import ConfigError, HpcftError
from hpcft.models.availability import check_architecture, check_model
from hpcft.models.tools import TOOLS, check_environment, environment_of
from hpcft.runs.create import discard, make_run_directory, new_run_id
from hpcft.runs.files import write_atomic
from hpcft.runs.paths import RunPaths
from hpcft.runs.provenance import record_provenance, snapshot_code
from hpcft.runs.run import Run, RunState
from hpcft.runs.submission import Journal, submissions
from hpcft.spec.distill import STUDENT
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job
from hpcft.spec.kinds import ABOUT_RUNS

# Larger files are read by the job itself; up to here a mistake in them is told before anything is queued.
_CHECKED_BYTES = 256 * 1024 * 1024


@dataclass
class Launched:
    """A submitted job."""

    run: Run
    submitted: Submitted


def check(plan: Plan, *, made: bool = True) -> None:
    """Refuse what can be seen to fail, and warn of what may.

    Args:
        made: whether the model is there already.

    Raises:
        ConfigError, DataError: with what is wrong and where.
    """
    check_inputs(plan, made=made)
    preflight(plan)


def check_inputs(plan: Plan, *, made: bool = True) -> None:
    """Refuse a model or data that the job cannot have.

    Args:
        made: whether the model is there already.

    Raises:
        ConfigError, DataError: with what is wrong and where.
    """
    job = with_teacher(plan.resolved.job)
    if plan.profile.scheduler == "local":
        check_one_node(job)
    if job.kind in ABOUT_RUNS:
        return
    check_environment(job)
    if job.kind == "quantize" and job.quantize.calibrated:
        from hpcft.stages.calibration import training_data

        training_data(job)
    if job.distills:
        from hpcft.models.teacher import check_teacher

        check_teacher_name(job, plan.profile.internet, job_environment(plan))
        check_teacher(job, plan.profile.internet, job_environment(plan))
    if job.kind == "train":
        if job.model.name != STUDENT:
            check_model(job.model, plan.profile.internet, job_environment(plan))
    elif made:
        from hpcft.models.open import check_subject

        check_subject(job, plan.profile.internet, job_environment(plan))
    if job.kind == "merge" and job.of is None:
        # Without a run's data it is compared on made-up prompts.
        return
    from hpcft.data.sources import is_hub
    from hpcft.data.split import check_labels, load, named_sets

    paths = [path for _, path in named_sets(job.data)] + ([job.data.validation] if job.data.validation else [])
    if not any(is_hub(path) for path in paths) and sum(map(_size, paths)) <= _CHECKED_BYTES:
        data = load(job.data, job.training.seed, training=job.kind == "train")
        if job.distills and data.labels:
            raise ConfigError(
                "the rows are of classes, and a classifier has no next-token distributions to learn from a teacher",
                where="data.dataset",
                hint="name the task of the rows if they ask for text: --set data.task=generation",
            )
        if data.labels and job.kind == "train":
            check_labels(data.labels, job.model.num_labels)
        if job.kind == "train" and job.model.name != STUDENT:
            check_architecture(job.model, data.task)


def _size(path: str) -> int:
    try:
        return user_path(path).stat().st_size
    except (OSError, RuntimeError):
        # Not there, or no possible name, or ~ of an unknown user: the reader says it in words.
        return 0


def preview(plan: Plan) -> tuple[RunPaths, str]:
    """Where the run would be, and its script, without making anything."""
    job = plan.resolved.job
    paths = RunPaths((Path(job.results) / (job.name or plan.stem)).absolute())
    return paths, render(absolute(job), plan.profile, paths, "run-id")


def launch(
    plan: Plan,
    start: Callable[[Job, Profile, RunPaths, Journal], Submitted] | None = None,
    *,
    after: Sequence[str] = (),
    made: bool = True,
    **facts: object,
) -> Launched:
    """Make the run directory and submit the job; a refusal leaves nothing behind.

    Args:
        plan: the job and its cluster.
        start: how to start it, where it is not submitted to the profile's scheduler.
        after: ids of the Slurm jobs that have to succeed first.
        made: whether the model is there already; one that another job will make cannot be looked at.
        facts: what else its journal is to hold.
    """
    check(plan, made=made)
    job = absolute(plan.resolved.job)
    paths = make_run_directory(Path(job.results), job.name, plan.stem)
    run_id = new_run_id()
    accepted = False
    try:
        text = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomic(paths.config, text)
        record_provenance(paths, Path.cwd(), plan.resolved.origins)
        snapshot_code(paths)
        with Journal(paths) as journal:
            record_intent(journal, job, plan.profile, paths, run_id, **facts)
            if start is not None:
                submitted = start(job, plan.profile, paths, journal)
            elif plan.profile.scheduler == "local":
                submitted = submit_local(job, plan.profile, paths, journal)
            else:
                submitted = submit_slurm(job, plan.profile, paths, run_id, journal, say, after)
        accepted = True
    finally:
        if not accepted and not _in_doubt(paths):
            discard(paths)
    if job.name and paths.root.name != job.name:
        say(f"'{job.name}' is taken; this run is {paths.root.name}")
    return Launched(Run(paths.root), submitted)


def wait(launched: Launched, *, quiet: bool = False) -> None:
    """Follow a job to its end and, unless `quiet`, print what came out.

    Raises:
        HpcftError: it did not finish; with the reason.
    """
    standing = follow(launched.run)
    if standing.state is not RunState.SUCCESS:
        raise failure(launched.run, standing)
    if not quiet:
        report(launched.run)


def absolute(job: Job) -> Job:
    """The job with paths that mean the same on every node and from every folder."""
    job = with_teacher(job)
    update: dict[str, Any] = {"results": str(user_path(job.results).absolute())}
    sets: dict[str, Any] = {
        "dataset": _located(job.data.dataset),
        "mix": [_located_in_mix(text) for text in job.data.mix],
    }
    if job.data.validation is not None:
        sets["validation"] = _located(job.data.validation)
    update["data"] = job.data.model_copy(update=sets)
    model = user_path(job.model.name)
    if model.is_dir() and job.model.name != STUDENT:
        update["model"] = job.model.model_copy(update={"name": str(model.absolute())})
    if job.distill.cache_folder is not None:
        shared = str(user_path(job.distill.cache_folder).absolute())
        update["distill"] = job.distill.model_copy(update={"cache_folder": shared})
    if job.kind == "quantize" and job.quantize.calibrated:
        # As it is found here: the job's own environment need not have HPCFT_TOOLS.
        chosen = job.quantize.environment
        folder = environment_of(TOOLS["gptq"]) if chosen is None else user_path(chosen).absolute()
        update["quantize"] = job.quantize.model_copy(update={"environment": str(folder)})
    return job.model_copy(update=update)


def _located(text: str) -> str:
    """A data set by its whole path where it is a file."""
    file = user_path(text)
    return str(file.absolute()) if file.is_file() else text


def _located_in_mix(text: str) -> str:
    from hpcft.data.split import name_and_path

    name, path = name_and_path(text)
    return _located(path) if name is None else f"{name}={_located(path)}"


def _in_doubt(paths: RunPaths) -> bool:
    return any(submission.was_sent for submission in submissions(paths))


def inside_allocation() -> bool:
    """Whether this is a shell that salloc gave: an allocation, and not one of its steps."""
    return "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ


def allocation() -> dict[str, str]:
    """The whole allocation as `resources`: its nodes, and a rank for each GPU or task of a node.

    Raises:
        ConfigError: the allocation does not say what it has.
    """
    nodes = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES")
    if not nodes:
        raise ConfigError("the allocation does not say how many nodes it has", where="SLURM_JOB_NUM_NODES")
    gpus = os.environ.get("SLURM_GPUS_PER_NODE", "").rpartition(":")[2]
    tasks = os.environ.get("SLURM_NTASKS_PER_NODE", "")
    if not tasks and os.environ.get("SLURM_NTASKS", "").isdecimal():
        tasks = str(max(1, int(os.environ["SLURM_NTASKS"]) // int(nodes)))
    ranks = gpus if gpus.isdecimal() else tasks
    return {"nodes": nodes, **({"gpus_per_node": ranks} if ranks.isdecimal() else {})}


def write_script(job: Job, profile: Profile, paths: RunPaths, journal: Journal) -> Submitted:
    """Write the batch script for the user to submit."""
    write_atomic(paths.script, render(job, profile, paths, journal_run_id(paths)))
    journal.note("rendered")
    return Submitted("", paths.batch_log)


def start_in_allocation(job: Job, profile: Profile, paths: RunPaths, journal: Journal) -> Submitted:
    """Run the job's own batch script in this allocation, with its output in the run directory."""
    write_atomic(paths.script, render(job, profile, paths, journal_run_id(paths)))
    environment = os.environ | {"HPCFT_FOREGROUND": "1"}
    journal.note("sending")
    with paths.batch_log.open("ab") as log:
        process = subprocess.Popen(
            ["bash", str(paths.script)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    job_id = f"{process.pid}-{start_time(process.pid) or '0'}"
    journal.note("submitted", job_id=job_id, allocation=os.environ["SLURM_JOB_ID"])
    return Submitted(job_id, paths.batch_log)


def journal_run_id(paths: RunPaths) -> str:
    """The run's id, from the intent that was just written."""
    run_id = Run(paths.root).id
    if run_id is None:
        raise HpcftError("the run has no id", where=str(paths.client))
    return run_id

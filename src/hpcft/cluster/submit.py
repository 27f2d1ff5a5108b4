"""Submitting exactly once: the intent is on disk before sbatch, and a doubt is settled by looking, not by asking
again."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcft.cluster.local import start_ranks
from hpcft.cluster.lookup import look_up
from hpcft.cluster.profile import Profile
from hpcft.cluster.render import job_name, profile_environment, render
from hpcft.cluster.slurm import accounts, gpus, overriding_variables, partitions, time_limits
from hpcft.errors import ConfigError, HpcftError, UnavailableError
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import about
from hpcft.runs.submission import Journal, key_of, this_host
from hpcft.spec.job import Job
from hpcft.spec.types import parse_time

# After a doubt the queue is looked at this often: accounting is up to some seconds behind.
_LOOKS_S = (0.0, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Submitted:
    """A job that is queued or running."""

    job_id: str
    log: Path


def record_intent(journal: Journal, job: Job, profile: Profile, paths: RunPaths, run_id: str, **facts: object) -> str:
    """Write what is about to be submitted, as the run's one open submission.

    Args:
        facts: what else is to be known of it.

    Returns:
        The key that its job is found by, at the end of the job's name.

    Raises:
        TryAgainError: the run is being submitted by another client, or one was killed over it.
    """
    key = journal.open_submission(run_id)
    journal.note(
        "intent",
        run_id=run_id,
        cluster=profile.name,
        scheduler=profile.scheduler,
        internet=profile.internet,
        job_name=job_name(paths, key),
        ranks=job.world_size,
        host=this_host(),
        after_attempt=max(paths.attempt_numbers(), default=0),
        **about(job),
        **facts,
    )
    return key


def submit_slurm(
    job: Job,
    profile: Profile,
    paths: RunPaths,
    run_id: str,
    journal: Journal,
    say: Callable[[str], None],
    after: Sequence[str] = (),
) -> Submitted:
    """Submit the job of the intent that was recorded last to Slurm.

    Args:
        say: receives warnings.
        after: ids of the jobs that have to succeed first.

    Raises:
        ConfigError: Slurm refused it; with Slurm's own words and the names that it would take.
        UnavailableError: no Slurm here, or none that answers, or it is not known whether the job was queued.
    """
    key = key_of(run_id, journal.number)
    job_id = submit_script(render(job, profile, paths, key, after), key, journal, say)
    return Submitted(job_id, paths.batch_log)


def submit_script(script: str, key: str, journal: Journal, say: Callable[[str], None]) -> str:
    """Submit a script, which may be an array's, for the submission that the journal has opened, by one sbatch at most.

    Args:
        script: its text, which is kept in the journal's folder.
        key: what its job is found by; its name has to end with `.` and this.
        say: receives warnings.

    Returns:
        The job's id.

    Raises:
        ConfigError, UnavailableError: as `submit_slurm`.
    """
    paths, began = journal.paths, time.time()
    if overriding := overriding_variables():
        say(f"not used for this submission, since they would override the script: {', '.join(overriding)}")
    try:
        from hpcft.cluster.executor import Doubt, Refused, ScriptExecutor

        executor = ScriptExecutor(paths, script)
    except RuntimeError as error:
        raise UnavailableError(
            "there is no Slurm here: srun is not found",
            hint="on a machine without Slurm: --cluster local; on a cluster: is its module loaded?",
        ) from error
    # From here on there may be a job, whatever becomes of this process.
    journal.note("sending")
    try:
        job_id = executor.queue(keep_open=journal.locks)
    except Refused as error:
        journal.note("refused", message=str(error))
        raise refusal(str(error)) from None
    except KeyboardInterrupt:
        # The request may be on its way; the run directory must outlive it.
        journal.note("unsure", message="interrupted while sbatch was called")
        raise
    except Doubt as error:
        say(f"sbatch gave no clear answer ({error}); looking for the job in the queue")
        found = _look_up(key, began)
        if found is None:
            journal.note("unsure", message=str(error))
            raise UnavailableError(
                f"it is not known whether the job was queued: {error}",
                where=str(paths.root),
                hint=f"it was not submitted again; hpcft show {paths.root.name} tells whether it has started, and "
                "hpcft doctor --repair looks for it in the queue and frees the run if it is not there",
            ) from None
        job_id = found
    journal.note("submitted", job_id=job_id)
    return job_id


def check_one_node(job: Job) -> None:
    """Refuse a job for several nodes on this machine.

    Raises:
        ConfigError: more than one node.
    """
    if job.resources.nodes > 1:
        raise ConfigError(
            f"{job.resources.nodes} nodes are asked for, and this machine is one",
            where="resources.nodes",
            hint="use --gpus-per-node for several ranks here, or a cluster",
        )


def submit_local(job: Job, profile: Profile, paths: RunPaths, journal: Journal) -> Submitted:
    """Start a job's ranks on this machine.

    Raises:
        ConfigError: more than one node.
    """
    check_one_node(job)
    seconds = parse_time(job.resources.time)
    journal.note("sending")
    try:
        job_id = start_ranks(
            paths,
            local_environment(job, profile),
            python=profile.python or sys.executable,
            ranks=job.world_size,
            minutes=seconds / 60,
            # A warning before the job has begun would never be given.
            grace_s=min(job.resources.signal_seconds, seconds // 2),
        )
    except HpcftError as error:
        journal.note("refused", message=str(error))
        raise
    journal.note("submitted", job_id=job_id)
    return Submitted(job_id, paths.batch_log)


def local_environment(job: Job, profile: Profile) -> dict[str, str]:
    """The environment of local ranks: the user's own, since it is the user's machine, without what would make a
    rank believe that it is another job's."""
    drop = ("SLURM_", "SBATCH_", "PMI", "OMPI_")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        keep.pop(name, None)
    # Measured: more than one is no faster for a small model on a quiet machine, and many times slower beside a
    # busy neighbour. Set it for a large model on the CPU.
    keep.setdefault("OMP_NUM_THREADS", "1")
    keep |= {"PYTHONUNBUFFERED": "1", **dict(profile_environment(profile))}
    if job.world_size > 1:
        keep |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return keep


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _look_up(key: str, began: float) -> str | None:
    for wait in _LOOKS_S:
        time.sleep(wait)
        if found := look_up([key], began).jobs.get(key):
            return found
    return None


# Slurm's words, the key to change, and who knows what is valid; the first that fits counts, so the narrower comes
# first. "Job violates accounting/QOS policy" is no matter of the account.
_REFUSALS: tuple[tuple[str, str, Callable[[], list[str]] | None], ...] = (
    (r"account or account/partition|invalid account", "resources.account", accounts),
    (
        r"partition specified|partition name|permitted to use this partition|partition not available",
        "resources.partition",
        partitions,
    ),
    (r"invalid qos", "resources.qos", None),
    (r"feature specification", "resources.constraint", None),
    (r"generic resource|gres", "resources.gpu_type", gpus),
    (r"maxwall|requested time limit|time limit specification|--time", "resources.time", time_limits),
    (r"node count|maxnode", "resources.nodes", None),
    (r"processors|cpu count", "resources.cpus_per_task", None),
    (r"memory|--mem", "resources.mem_gb", None),
    (r"node configuration", "resources", gpus),
    (r"unrecognized option|invalid node name|reservation|invalid --", "sbatch: in the profile", None),
    (r"limit|policy", "resources", None),
)


def refusal(words: str) -> HpcftError:
    """Slurm's refusal as an error that names the key to change and what would be taken."""
    plain = " ".join(line.removeprefix("sbatch: error:").strip() for line in words.splitlines() if line.strip())
    if re.search(r"unable to contact|command not found", plain, re.IGNORECASE):
        return UnavailableError(
            f"Slurm cannot be reached: {plain}", hint="nothing was queued; try again, or --cluster local"
        )
    for pattern, key, ask in _REFUSALS:
        if re.search(pattern, plain, re.IGNORECASE):
            valid = ask() if ask else []
            hint = f"change {key}" + (f"; valid here: {', '.join(valid)}" if valid else "")
            return ConfigError(f"Slurm refused the job: {plain}", where=key, hint=hint)
    return ConfigError(f"Slurm refused the job: {plain}", hint="nothing was queued")

"""The checks before a submission that cost next to nothing; `hpcft doctor` shows the same ones, and more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hpcft.cli.output import say
from hpcft.cluster.containers import container_findings
from hpcft.cluster.findings import Finding, Light, green, grey, red, yellow
from hpcft.cluster.folders import existing, space, writable
from hpcft.cluster.gpus import gpu_memory
from hpcft.cluster.preflight import partition_findings
from hpcft.errors import ConfigError, NotAllowedError
from hpcft.spec.distill import STUDENT
from hpcft.spec.kinds import ABOUT_RUNS
from hpcft.tracking.credentials import key_available

if TYPE_CHECKING:
    from hpcft.cli.job_options import Plan
    from hpcft.measure.fit import Target
    from hpcft.models.shapes import Weights
    from hpcft.spec.job import Job

# What is found of the folder that the run goes to.
_FOLDERS = ("results", "space", "quota")
_ELSEWHERE = "--results FOLDER    # with more room"


def preflight(plan: Plan) -> None:
    """Refuse what surely fails, and warn, once a process, of what may.

    Raises:
        ConfigError, NotAllowedError: with everything that is red; the latter where it is all about the folder.
    """
    found = findings(plan)
    for finding in found:
        if finding.light is Light.YELLOW:
            _warn(f"{finding.check}: {finding.message}" + (f"; {finding.mend}" if finding.mend else ""))
    reds = [finding for finding in found if finding.light is Light.RED]
    if reds:
        first, *others = reds
        message = "; ".join([first.message, *(f"{f.where or f.check}: {f.message}" for f in others)])
        kind = NotAllowedError if all(f.check in _FOLDERS for f in reds) else ConfigError
        raise kind(message, where=first.where or first.check, hint="; ".join(f.mend for f in reds if f.mend))


@cache
def _warn(text: str) -> None:
    say(f"warning: {text}")


def findings(plan: Plan) -> list[Finding]:
    """What is seen of a job in a moment: its partition, its container, its folder, its data, its memory, wandb."""
    job, profile = plan.resolved.job, plan.profile
    found = partition_findings(job) if profile.scheduler == "slurm" else []
    found += container_findings(profile)
    results = Path(job.results)
    found += [writable("results", results, "--results FOLDER    # where you may write")]
    if existing(results).is_dir() and found[-1].light is Light.GREEN:
        found.append(space(results, *disk_needed(plan), _ELSEWHERE))
    return [*found, *_data(plan), *_memory(plan), *wandb_findings(plan)]


def job_environment(plan: Plan) -> dict[str, str]:
    """Where the job will look for its caches: this shell's variables and the profile's."""
    return dict(os.environ) | plan.profile.env


def hub_sets(job: Job) -> list[str]:
    """The data sets of a job that come from the hub."""
    from hpcft.data.sources import is_hub
    from hpcft.data.split import named_sets

    if job.kind in (*ABOUT_RUNS, "merge") and job.of is None:
        return []
    paths = [path for _, path in named_sets(job.data)] + ([job.data.validation] if job.data.validation else [])
    return [path for path in dict.fromkeys(paths) if is_hub(path)]


def _data(plan: Plan) -> Iterator[Finding]:
    from hpcft.data.sources import is_cached
    from hpcft.models.availability import switched_off

    job, environ = plan.resolved.job, job_environment(plan)
    if plan.profile.internet and not switched_off(environ):
        return
    for name in hub_sets(job):
        if is_cached(name, job.data.subset, environ):
            yield green("data", f"{name} is in the cache")
        else:
            message = f"the data set '{name}' is not in the cache, and the job has no internet"
            subset = f" --set data.subset={job.data.subset}" if job.data.subset else ""
            model = (
                f"--variant distill --teacher {job.distill.teacher}" if job.distills else f"--model {job.model.name}"
            )
            mend = f"hpcft fetch {model} --dataset {name}{subset}"
            yield red("data", message, f"{mend}    # where there is internet", "data.dataset")


def disk_needed(plan: Plan) -> tuple[float | None, float]:
    """Bytes of checkpoints to come, and of one of them; None where the model is not here to be counted."""
    from hpcft.measure.fit import checkpoint_bytes, disk_bytes

    job, weights = plan.resolved.job, _weights(plan)
    if weights is None:
        return None, 0.0
    return disk_bytes(job, weights, _target(plan)), checkpoint_bytes(job, weights, _target(plan))


def _memory(plan: Plan) -> Iterator[Finding]:
    """Whether a GPU holds at least what needs no look at the activations."""
    from hpcft.measure.fit import GB, estimate

    job = plan.resolved.job
    if job.kind != "train" or plan.profile.scheduler != "slurm" or job.resources.accelerator == "cpu":
        return
    room, how = gpu_memory(plan.profile, job.resources.gpu_type)
    weights = _weights(plan)
    if room is None or weights is None:
        yield grey("GPU memory", how if room is None else "the model is not on this machine; hpcft fit asks the hub")
        return
    least = estimate(job, weights, _target(plan), None).low / GB
    message = f"weights, gradients and optimizer take {least:.1f} GB of {room:g} ({how})"
    if least > room:
        yield yellow(
            "GPU memory", f"{message}: it does not fit", "hpcft fit    # with the same options, names what fits"
        )
    else:
        yield green("GPU memory", f"{message}; hpcft fit counts the activations too")


def _target(plan: Plan) -> Target:
    from hpcft.measure.fit import Target

    return Target("cpu" if plan.resolved.job.resources.accelerator == "cpu" else "cuda")


def _weights(plan: Plan) -> Weights | None:
    """Numbers of parameters, from the headers of the model's files; None where they are not here."""
    from hpcft.models.availability import model_folder
    from hpcft.models.shapes import count, file_shapes, read_config

    job = plan.resolved.job
    if job.kind != "train" or job.model.name == STUDENT:
        return None
    folder = model_folder(job.model, job_environment(plan))
    shapes = file_shapes(folder) if folder is not None else {}
    if folder is None or not shapes:
        return None
    try:
        return count(shapes, read_config(folder), job)
    except ConfigError:
        # Of a family that is not in the table, the modules of an adapter are not known before it is loaded.
        return None


def _passed_on(plan: Plan) -> dict[str, str]:
    """The variables that the job will have of those here; one that runs in this allocation has them all."""
    from hpcft.cluster.render import exported

    profile = plan.profile
    whole = profile.scheduler != "slurm" or "SLURM_JOB_ID" in os.environ
    return {name: os.environ[name] for name in (os.environ if whole else exported(profile))} | profile.env


def wandb_findings(plan: Plan) -> Iterator[Finding]:
    """Whether the run can be tracked as it asks to be."""
    mode, internet = plan.resolved.job.tracking.mode, plan.profile.internet
    known = key_available(_passed_on(plan))
    here = known or key_available()
    if here and not known and (mode == "online" or (mode == "auto" and internet)):
        message = "a key is in this shell's variables alone, which no job gets"
        light, mend = (red, "wandb login    # or --wandb offline") if mode == "online" else (yellow, "wandb login")
        yield light("wandb", f"{message}: it would record offline", mend, "tracking.mode")
    elif mode == "online" and not known:
        yield red("wandb", "no key is stored for wandb", "wandb login    # or --wandb offline", "tracking.mode")
    elif mode == "online" and not internet:
        yield yellow(
            "wandb", "the nodes have no internet; the run records offline", "hpcft sync    # from the login node"
        )
    elif here:
        yield green("wandb", "a key is stored" if known else "this shell has a key")
    elif mode == "auto":
        yield grey("wandb", "no key is stored: runs record offline; wandb login, then hpcft sync")

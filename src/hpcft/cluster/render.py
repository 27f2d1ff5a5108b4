"""The batch script of a job: one template, and one gate that every value passes on its way into it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpcft.cluster.profile import Profile
from hpcft.errors import ConfigError
from hpcft.runs.paths import RunPaths
from hpcft.runs.sweep import SweepPaths
from hpcft.spec import assets
from hpcft.spec.identifiers import identifier_fault, path_fault, slug
from hpcft.spec.job import Job

# What a job gets from the submitting shell, by name. Nothing else: an environment is where secrets are.
_EXPORTED = (
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PATH",
    "LANG",
    "LC_ALL",
    "SLURM_CONF",
    "MODULEPATH",
    "MODULESHOME",
    "LMOD_PKG",
    "LMOD_CMD",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN_PATH",
    "XDG_CACHE_HOME",
    "HPCFT_CACHE",
    "NETRC",
    "WANDB_BASE_URL",
    "SSL_CERT_FILE",
)


def job_name(paths: RunPaths, run_id: str) -> str:
    """`{run directory's name}.{run id}`: readable, and the run id is the key that a lost job is found by."""
    name = paths.root.name
    readable = name if identifier_fault(name) is None else slug(name)
    return f"{readable[:64]}.{run_id}"


def render(job: Job, profile: Profile, paths: RunPaths, run_id: str, after: Sequence[str] = ()) -> str:
    """The text of the batch script.

    Args:
        after: ids of the jobs that have to succeed first. When one fails, Slurm cancels this one: it would wait for
            ever.

    Raises:
        ConfigError: a path that a script cannot carry.
    """
    check_paths(paths, profile)
    return str(_templates().get_template("job.sh.j2").render(_values(job, profile, paths, run_id, after)))


def check_paths(paths: RunPaths, profile: Profile) -> None:
    """Refuse a path that a script cannot carry.

    Raises:
        ConfigError: naming it.
    """
    for place, path in (("the run directory", str(paths.root)), ("Python", profile.python or sys.executable)):
        if fault := path_fault(path):
            raise ConfigError(f"the path of {place} {fault}", where=path, hint="choose another folder with --results")


def render_array(
    job: Job, profile: Profile, sweep: SweepPaths, key: str, array: str, offset: int, behind: Sequence[str] = ()
) -> str:
    """The text of the batch script of an array of trials.

    Args:
        job: of all trials; what it asks of the cluster is the same for each.
        key: of the submission.
        array: of sbatch, such as `0-999%8`.
        offset: number of the trial that is task 0.
        behind: ids of the jobs that end first, however they end.
    """
    check_paths(sweep.as_run, profile)
    own: dict[str, Any] = {
        "log": f"{sweep.logs}/%A_%a.log",
        "code": str(sweep.archive),
        "array": array,
        "offset": offset,
    }
    own["behind"] = ":".join(behind)
    values = _values(job, profile, sweep.as_run, key, ()) | own
    return str(_templates().get_template("array.sh.j2").render(values))


def render_agents(
    job: Job, profile: Profile, paths: RunPaths, key: str, agents: int, sweep_id: str, count: int | None, cluster: str
) -> str:
    """The text of the batch script of an array of W&B's agents.

    Args:
        agents: their number. count: trials of each; None: as long as the server has some.
        sweep_id: `entity/project/id`.
        cluster: name or path of the profile, which the trials take.
    """
    check_paths(paths, profile)
    python = profile.python or sys.executable
    own: dict[str, Any] = {"array": f"0-{agents - 1}", "log": f"{paths.root}/logs/%A_%a.log", "sweep_id": sweep_id}
    own |= {"count": count, "cluster": cluster, "project": str(Path.cwd()), "programs": str(Path(python).parent)}
    return str(_templates().get_template("agents.sh.j2").render(_values(job, profile, paths, key, ()) | own))


def render_environment(profile: Profile) -> str:
    """The part of a script that makes a job's environment: modules, set-up lines, variables."""
    values = {"modules": profile.modules, "setup": profile.setup, "env": profile_environment(profile)}
    return str(_templates().get_template("environment.sh.j2").render(values))


def _templates() -> Any:
    return _templates_of(tuple(assets.folders("slurm_templates")))


# Each chunk of a sweep is a script of its own.
@lru_cache(maxsize=4)
def _templates_of(folders: tuple[Path, ...]) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folders),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (a shell script; each value passes a filter or the spec's own types)
    )
    environment.filters["sh"] = shlex.quote
    environment.filters["sbatch_path"] = _sbatch_path
    environment.filters["sbatch_value"] = _sbatch_value
    return environment


def exported(profile: Profile) -> list[str]:
    """Names of this shell's variables that a job gets."""
    return list(dict.fromkeys(name for name in (*_EXPORTED, *profile.export) if name in os.environ))


def profile_environment(profile: Profile) -> list[tuple[str, str]]:
    """Variables of a job on a cluster, by name."""
    env = dict(profile.env)
    if not profile.internet:
        # The hub's clients wait for minutes for a network that is not there.
        env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if profile.node_scratch:
        env |= {"HPCFT_NODE_SCRATCH": profile.node_scratch}
    return sorted(env.items())


def asked_options(job: Job) -> list[tuple[str, str]]:
    """What the job asks of Slurm, as (option, value) of sbatch and salloc alike."""
    r = job.resources
    found: list[tuple[str, str]] = [("nodes", str(r.nodes)), ("ntasks-per-node", str(job.ranks_per_node))]
    if r.cpus_per_task:
        found.append(("cpus-per-task", str(r.cpus_per_task)))
    if (gpus := _gpus(job)) is not None:
        found.append(("gpus-per-node", gpus))
    if r.mem_gb is not None:
        found.append(("mem", f"{round(r.mem_gb * 1024)}M"))
    found.append(("time", r.time))
    placement = (("partition", r.partition), ("account", r.account), ("qos", r.qos), ("constraint", r.constraint))
    return [*found, *((name, value) for name, value in placement if value)]


def _gpus(job: Job) -> str | None:
    r = job.resources
    if r.accelerator == "cpu":
        return None
    return f"{r.gpu_type}:{r.gpus_per_node}" if r.gpu_type else str(r.gpus_per_node)


def _values(job: Job, profile: Profile, paths: RunPaths, run_id: str, after: Sequence[str]) -> dict[str, Any]:
    r = job.resources
    if any(not job_id.isdecimal() for job_id in after):
        raise ConfigError("a job can only wait for Slurm jobs", where=", ".join(after))
    return {
        "job_name": job_name(paths, run_id),
        "run_id": run_id,
        "nodes": r.nodes,
        "ranks_per_node": job.ranks_per_node,
        "asked": asked_options(job),
        "log": str(paths.batch_log),
        "signal_seconds": r.signal_seconds,
        "export": ",".join(exported(profile)) or "NIL",
        "after": ":".join(after),
        "sbatch": sorted(profile.sbatch.items()),
        "run": str(paths.root),
        "code": str(paths.code),
        "modules": profile.modules,
        "setup": profile.setup,
        "env": profile_environment(profile),
        "container": profile.container,
        "srun": profile.srun,
        "python": profile.python or sys.executable,
    }


def _sbatch_path(path: str) -> str:
    """A path in a directive: quoted, since sbatch splits at blanks. The gate has refused quotes and `%`."""
    return f'"{path}"'


def _sbatch_value(value: str) -> str:
    if any(c in value for c in "\"'\\`$"):
        raise ConfigError(f"{value[:40]!r} has a quote or a substitution in it", where="sbatch: in the profile")
    return f'"{value}"'


def what_it_asks(job: Job, profile: Profile) -> list[tuple[str, str]]:
    """What the job asks of the cluster: (label, value)."""
    r = job.resources
    cpu = r.accelerator == "cpu"
    gpus = "none" if cpu else f"{r.gpus_per_node} a node" + (f", {r.gpu_type}" if r.gpu_type else "")
    rows = [
        ("cluster", f"{profile.name} ({profile.scheduler})"),
        ("nodes", str(r.nodes)),
        ("ranks", f"{job.world_size} ({job.ranks_per_node} a node)"),
        ("GPUs", gpus),
        ("CPUs", "the cluster's default" if r.cpus_per_task is None else f"{r.cpus_per_task} a rank"),
        ("memory", "the cluster's default" if r.mem_gb is None else f"{r.mem_gb:g} GB a node"),
        ("time", r.time),
    ]
    rows += [(k, str(v)) for k, v in (("partition", r.partition), ("account", r.account), ("qos", r.qos)) if v]
    stage = job.zero_stage
    return [*rows, ("DeepSpeed", "not used" if stage is None else f"ZeRO {stage}")]

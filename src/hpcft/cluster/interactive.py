"""An interactive shell with a job's resources and environment, from the same profile and the same options."""

from __future__ import annotations

from pathlib import Path

from hpcft.cluster.profile import Profile
from hpcft.cluster.render import asked_options, render_environment
from hpcft.spec.job import Job


def salloc_command(job: Job, profile: Profile, rcfile: Path) -> list[str]:
    """The command that waits for the allocation and opens a shell on its first node.

    The allocation is as wide as the job's, so `hpcft run` inside takes it whole; the shell is one task of it.

    Args:
        rcfile: what bash reads first, `shell_text`, at a place that the nodes see.
    """
    command = ["salloc", *(f"--{option}={value}" for option, value in asked_options(job))]
    command += [f"--{name}={value}" if value else f"--{name}" for name, value in sorted(profile.sbatch.items())]
    srun = ["srun", "--pty", "--overlap", "--nodes=1", "--ntasks=1", *profile.srun]
    return [*command, *srun, *profile.container, "bash", "--rcfile", str(rcfile), "-i"]


def shell_text(profile: Profile) -> str:
    """What the shell reads first: the user's own start-up file, then a job's environment."""
    start = f"# A shell of hpcft on the cluster {profile.name}.\n[ -r ~/.bashrc ] && . ~/.bashrc\n"
    return start + render_environment(profile)

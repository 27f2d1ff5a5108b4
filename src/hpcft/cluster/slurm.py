"""Calling Slurm's commands: bounded in time, never through a shell, and telling "no" from "no answer"."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Answer:
    """What a command said.

    Attributes:
        code: exit code; None when it did not answer in time or could not be started.
    """

    code: int | None
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """It answered without an error."""
        return self.code == 0


def environment() -> dict[str, str]:
    """The environment of Slurm's commands: without SBATCH_* and its like, which would override a script's own
    directives, and with messages in English, which are read."""
    drop = ("SBATCH_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT")
    return {k: v for k, v in os.environ.items() if not k.startswith(drop)} | {"LC_ALL": "C.UTF-8"}


def overriding_variables() -> list[str]:
    """SBATCH_* variables that are set now."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_"))


def call(command: list[str], timeout_s: float = _TIMEOUT_S) -> Answer:
    """Run one command."""
    if shutil.which(command[0]) is None:
        return Answer(None, "", f"{command[0]}: command not found")
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{command[0]} did not answer within {timeout_s:.0f} s")
    except OSError as error:
        return Answer(None, "", f"{command[0]}: {error.strerror}")
    return Answer(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def controller_answers() -> bool:
    """Whether a Slurm controller can be reached from here."""
    if shutil.which("scontrol") is None:
        return False
    answer = call(["scontrol", "ping"], timeout_s=5)
    return answer.ok and "UP" in answer.out


def partitions() -> list[str]:
    """Names of the cluster's partitions, the default one first; empty when it does not say."""
    answer = call(["sinfo", "--noheader", "--format=%P"], timeout_s=10)
    names = list(dict.fromkeys(answer.out.split())) if answer.ok else []
    return [n.rstrip("*") for n in sorted(names, key=lambda n: not n.endswith("*"))]


def accounts() -> list[str]:
    """Accounts that this user may charge; empty when accounting does not say."""
    user = os.environ.get("USER") or str(os.getuid())
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account"]
    answer = call(command, timeout_s=10)
    return sorted(set(answer.out.split())) if answer.ok else []

"""Calling Slurm's commands: bounded in time, never through a shell, and telling "no" from "no answer"."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from hpcft.runs.submission import this_user

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


# Messages in English; and lists of an array's waiting tasks whole, which Slurm else ends after 64 characters.
_OURS = {"LC_ALL": "C.UTF-8", "SLURM_BITSTR_LEN": "0"}


def environment() -> dict[str, str]:
    """The environment of Slurm's commands: without SBATCH_* and its like, which would override a script's own
    directives, and with messages in English, which are read."""
    drop = ("SBATCH_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SLURM_TIME_FORMAT")
    return {k: v for k, v in os.environ.items() if not k.startswith(drop)} | _OURS


def overriding_variables() -> list[str]:
    """SBATCH_* variables that are set now."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_"))


def call(command: list[str], timeout_s: float = _TIMEOUT_S, keep_open: Sequence[int] = ()) -> Answer:
    """Run one command.

    Args:
        keep_open: descriptors that it inherits, for the sake of the locks on them.
    """
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
            pass_fds=keep_open,
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


@dataclass(frozen=True)
class Partition:
    """A partition, or the part of one whose nodes are alike.

    Attributes:
        time: its limit as Slurm writes it, `1-00:00:00` or `infinite`.
        gpus: what a node has, `h100` → 4; a GPU whose type has no name stands under "".
    """

    name: str
    is_default: bool
    time: str
    gpus: dict[str, int]


_GPU = re.compile(r"(?:^|,)gpu:(?:(?P<type>[^:,(]+):)?(?P<count>\d+)")


def parse_gpus(gres: str) -> dict[str, int]:
    """GPUs in a GRES field, type → number; a GPU whose type has no name stands under "".

    >>> parse_gpus("gpu:a100:4(S:0-1),nvme:1"), parse_gpus("gpu:2"), parse_gpus("(null)")
    ({'a100': 4}, {'': 2}, {})
    """
    return {m["type"] or "": int(m["count"]) for m in _GPU.finditer(gres)}


def parse_partitions(text: str) -> list[Partition]:
    """Lines of `sinfo --format=%P|%l|%G`; others are stepped over. The default partition comes first.

    >>> parse_partitions("cpu|2:00:00|(null)\\ngpu*|infinite|gpu:a100:4(S:0-1),nvme:1\\n")[0].gpus
    {'a100': 4}
    """
    found = []
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 3 and parts[0]:
            found.append(Partition(parts[0].rstrip("*"), parts[0].endswith("*"), parts[1], parse_gpus(parts[2])))
    return sorted(found, key=lambda p: not p.is_default)


def parse_partition_values(text: str) -> dict[str, dict[str, str]]:
    """Lines of `scontrol show partition --oneliner`: the values of each partition, by its name.

    >>> parse_partition_values("PartitionName=low Default=NO GraceTime=30 PreemptMode=REQUEUE\\n")["low"]["GraceTime"]
    '30'
    """
    found = [dict(word.partition("=")[::2] for word in line.split()) for line in text.splitlines()]
    return {values["PartitionName"]: values for values in found if values.get("PartitionName")}


def _ask_partitions() -> list[Partition]:
    answer = call(["sinfo", "--noheader", "--format=%P|%l|%G"], timeout_s=10)
    return parse_partitions(answer.out) if answer.ok else []


def partitions() -> list[str]:
    """Names of the cluster's partitions, the default one first; empty when it does not say."""
    return list(dict.fromkeys(p.name for p in _ask_partitions()))


def time_limits() -> list[str]:
    """The partitions' time limits, `debug: 1-00:00:00`; empty when the cluster does not say."""
    return list(dict.fromkeys(f"{p.name}: {p.time}" for p in _ask_partitions()))


def gpus() -> list[str]:
    """The GPUs of a node in each partition that has some, `gpu: 4 × h100`; empty when the cluster does not say."""
    return list(
        dict.fromkeys(f"{p.name}: {n} × {kind or 'GPU'}" for p in _ask_partitions() for kind, n in p.gpus.items())
    )


def accounts() -> list[str]:
    """Accounts that this user may charge; empty when accounting does not say."""
    show = ["sacctmgr", "--noheader", "--parsable2", "show"]
    command = [*show, "associations", f"user={this_user()}", "format=account"]
    answer = call(command, timeout_s=10)
    return sorted(set(answer.out.split())) if answer.ok else []

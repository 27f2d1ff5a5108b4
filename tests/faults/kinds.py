"""The faults: each does something to a case, or to its cluster, at a moment that the case has waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.wandb_server import HANG, KEY, FakeWandb
from faults.lab import Case, Skipped

from hpcft.cluster.repair import repair

PHASES = ("queued", "start", "step", "saving", "requeue", "finishing")
_MEMORY = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        inject: what is done, when the phase has come.
        phases: when it may be done.
        allowed: what may become of the run: `finished` (and then equal to the oracle), or causes of explain's.
        whole: it hits the whole cluster.
        prepare: what is done before the submission; gives what is undone at the end.
        submit: the fault of sbatch.
    """

    name: str
    inject: Callable[[Case], None]
    phases: tuple[str, ...] = ("step",)
    allowed: tuple[str, ...] = ("finished",)
    ranks: tuple[int, ...] = (1,)
    whole: bool = False
    spec: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Case], Callable[[], None]] | None = None
    submit: str = ""


def nothing(case: Case) -> None:
    """The fault is in the preparation or the submission."""


def preempt(case: Case) -> None:
    """A job of a higher partition takes the node for a moment."""
    case.lab.slurm(
        "sbatch", "--partition=gpu", f"--nodelist={case.node}", "--exclusive", "--time=1", "--output=/dev/null",
        "--job-name=preemptor", "--wrap=sleep 3",
    )  # fmt: skip


def requeue(case: Case) -> None:
    """Put it back into the queue at once: what a preemption without grace does."""
    case.lab.slurm("scontrol", "requeue", case.job_id)


def kill_ranks(case: Case) -> None:
    """kill -9 of every rank."""
    case.signal(signal.SIGKILL)


def kill_last_rank(case: Case) -> None:
    """kill -9 of one rank of several."""
    case.signal(signal.SIGKILL, slice(-1, None))


def pause_rank(case: Case) -> None:
    """One rank stands still for ten seconds."""
    case.signal(signal.SIGSTOP, slice(-1, None))
    time.sleep(10)
    with contextlib.suppress(Skipped, ProcessLookupError):
        case.signal(signal.SIGCONT, slice(-1, None))


def hang(case: Case) -> None:
    """One rank stands still for good."""
    case.signal(signal.SIGSTOP, slice(-1, None))


def kill_node(case: Case) -> None:
    """The node's daemon and all that it started die at once; the node is back after fifteen seconds."""
    cluster = case.lab.cluster
    victims = [cluster.pid(case.node)] if cluster.pid(case.node) else []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (process / "environ").read_bytes().split(b"\0")
            # slurmstepd calls itself `slurmstepd: [JOB.STEP]`. Other clusters of this machine have such nodes too.
            of_the_node = f"SLURMD_NODENAME={case.node}".encode() in environment
            of_the_job = f"[{case.job_id}.".encode() in (process / "cmdline").read_bytes()
            if f"SLURM_CONF={cluster.env()['SLURM_CONF']}".encode() in environment and (of_the_node or of_the_job):
                victims.append(int(process.name))
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(15)
    cluster.start()


def out_of_memory(case: Case) -> None:
    """The kernel finds no memory for rank 0 any more, and ends it."""
    group = _MEMORY / f"hpcft-{case.name}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(1024 * 1024))
        for pid in case.processes()[:1]:
            (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise Skipped(f"no control group for memory: {error}") from error


def limit_memory(case: Case) -> Callable[[], None]:
    """No rank gets more than so much address space."""
    # Not by `ulimit` in the job's script: Slurm need not hand limits on to the ranks.
    case.profile["container"] = ["prlimit", "--as=2000000000"]
    return lambda: None


def small_disk(case: Case) -> Callable[[], None]:
    """Put the run directory on a disk of its own."""
    folder = case.lab.folder / f"disk-{case.name}"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        raise Skipped("only root can mount a small disk")
    case.folder = case.results = folder
    case.paths = type(case.paths)(folder / case.name)

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)

    return unmount


def fill_disk(case: Case) -> None:
    """Not a byte is left, from now on."""
    with contextlib.suppress(OSError), (case.results / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(65536))
    with contextlib.suppress(OSError), (case.results / "ballast").open("ab", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 512)


def fill_disk_for_a_while(case: Case) -> None:
    """Not a byte is left for six seconds."""
    fill_disk(case)
    time.sleep(6)
    (case.results / "ballast").unlink()


def damage(case: Case) -> None:
    """While it waits to start again, spoil a file of its newest checkpoint."""
    newest = case.newest_checkpoint()
    if newest is None:
        raise Skipped("it has no checkpoint")
    file = case.random.choice(sorted(f for f in newest.rglob("*") if f.is_file() and f.stat().st_size))
    way = case.random.choice(("truncate", "flip", "remove"))
    content = bytearray(file.read_bytes())
    if way == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif way == "remove":
        file.unlink()
    else:
        content[case.random.randrange(len(content))] ^= 1 << case.random.randrange(8)
        file.write_bytes(content)


def spoil_model(case: Case) -> Callable[[], None]:
    """One weight of the base model is NaN."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = case.lab.folder / f"model-{case.name}"
    shutil.copytree(case.lab.model, folder)
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    name = sorted(name for name in tensors if "norm" in name)[0]
    tensors[name][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    case.spec["model"] = {"name": str(folder)}
    return lambda: None


def pause_controller(case: Case) -> None:
    """slurmctld stands still for twenty seconds, and what is sent to it waits or times out."""
    pid = case.lab.cluster.pid("slurmctld")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    os.kill(pid, signal.SIGCONT)


def pause_controller_at_the_requeue(case: Case) -> None:
    """slurmctld stands still as the batch script asks it to queue the job again."""
    case.signal(signal.SIGUSR2)
    pause_controller(case)


def kill_controller(case: Case) -> None:
    """slurmctld dies, and is back after fifteen seconds."""
    os.kill(case.lab.cluster.pid("slurmctld"), signal.SIGKILL)
    time.sleep(15)
    case.lab.cluster.start()


def kill_accounting(case: Case) -> None:
    """slurmdbd dies, and is back after fifteen seconds."""
    os.kill(case.lab.cluster.pid("slurmdbd"), signal.SIGKILL)
    time.sleep(15)
    case.lab.cluster.start()


def settle(case: Case) -> None:
    """What the user does after an error of sbatch: repair."""
    if case.run is None or case.run.job_id is None:
        time.sleep(61)
        repair(case.results, lambda _: None)


def wandb(wrong: int | float | None) -> Callable[[Case], Callable[[], None]]:
    """A wandb server that answers with a status, or never; None: that is not there."""

    def prepare(case: Case) -> Callable[[], None]:
        server = FakeWandb()
        url = server.url
        if wrong is None:
            server.close()
        else:
            server.fault = lambda request: wrong
        netrc = case.lab.folder / f"netrc-{case.name}"
        netrc.write_text(f"machine {url.removeprefix('http://')}\n  login user\n  password {KEY}\n")
        netrc.chmod(0o600)
        case.profile |= {"internet": True}
        case.environment |= {"WANDB_BASE_URL": url, "NETRC": str(netrc)}
        return server.close if wrong is not None else lambda: None

    return prepare


_ONLINE = {"tracking": {"mode": "online"}}
_LOW = {"resources": {"partition": "low"}}
_LATER = {"sbatch": {"begin": "now+8"}}
FAULTS = (
    Fault("preemption with grace", preempt, ("start", "step", "saving", "finishing"), profile=_LOW),
    Fault("preemption without grace", requeue, ("start", "step", "saving", "requeue", "finishing")),
    Fault("kill -9 of the step", kill_ranks, ("start", "step", "saving", "finishing"), ("finished", "killed"), (1, 2)),
    Fault("kill -9 of one rank", kill_last_rank, ("step",), ("finished", "killed", "collective_timeout"), (2,)),
    Fault("node killed", kill_node, ("step", "saving")),
    Fault("a rank pauses", pause_rank, ("step",), ranks=(2,)),
    Fault(
        "a rank hangs", hang, ("step",), ("finished", "hang", "time_limit"),
        profile={"resources": {"time": "2", "signal_seconds": 15}},
    ),
    Fault("host out of memory", out_of_memory, ("step",), ("finished", "host_oom", "killed")),
    Fault("address space used up", nothing, ("start",), ("finished", "host_oom"), prepare=limit_memory),
    Fault("disk full for a while", fill_disk_for_a_while, ("start", "step", "saving"), ("finished", "disk_full"),
          prepare=small_disk),
    Fault("disk full", fill_disk, ("step", "saving", "finishing"), ("disk_full",), prepare=small_disk),
    Fault("damaged checkpoint", damage, ("requeue",)),
    Fault("NaN", nothing, ("start",), ("nan_loss",), prepare=spoil_model),
    Fault("wandb not there", nothing, ("step",), spec=_ONLINE, prepare=wandb(None)),
    Fault("wandb hangs", nothing, ("step",), spec=_ONLINE, prepare=wandb(HANG)),
    Fault("wandb answers 500", nothing, ("step",), spec=_ONLINE, prepare=wandb(500)),
    Fault("wandb answers 429", nothing, ("step",), spec=_ONLINE, prepare=wandb(429)),
    Fault("sbatch accepts and times out", settle, ("step",), submit="accepts_and_times_out"),
    Fault("sbatch accepts and dies", settle, ("step",), submit="accepts_and_dies"),
    Fault("controller pauses", pause_controller, ("start", "step", "finishing"), whole=True),
    Fault("controller pauses as it is requeued", pause_controller_at_the_requeue, ("step",), whole=True),
    # A job that it has accepted and not saved yet is forgotten.
    Fault("controller killed", kill_controller, ("queued", "start", "step", "requeue"), ("finished", "never_started"),
          whole=True, profile=_LATER),
    Fault("accounting killed", kill_accounting, ("queued", "step", "requeue"), whole=True, profile=_LATER),
)  # fmt: skip

"""Which rank this process is, and its process group."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# (rank, rank on this node, ranks) as each launcher names them; torch's own names win.
_LAUNCHERS = (
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
    ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS"),
    # SLURM_STEP_NUM_TASKS, not SLURM_NTASKS: a plain `python` inside an allocation is one rank, whatever the
    # allocation could hold.
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
)


@dataclass(frozen=True)
class Rank:
    """This process among the job's ranks."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Rank 0 writes the record."""
        return self.rank == 0


def read_rank(environ: MutableMapping[str, str]) -> Rank:
    """The rank that a launcher gave this process; one rank alone when there was none."""
    for names in _LAUNCHERS:
        if all(environ.get(name, "").isdecimal() for name in names):
            rank, local, world = (int(environ[name]) for name in names)
            return Rank(rank, local, world)
    return Rank()


def join(rank: Rank, device: torch.device, *, deepspeed: bool) -> None:
    """Start the process group, through DeepSpeed where it is used, before anything else asks for one.

    Transformers' and DeepSpeed's later set-up take the group that exists; left to themselves, ZeRO-3 would see a
    world of one while the model loads.
    """
    if rank.world_size == 1 and not deepspeed:
        return
    # DeepSpeed and accelerate take it for the GPU's number, which is 0 in each task that is shown its own GPU alone.
    local = device.index if device.type == "cuda" else rank.local_rank
    os.environ.update(RANK=str(rank.rank), LOCAL_RANK=str(local), WORLD_SIZE=str(rank.world_size))
    if rank.world_size == 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(free_port()))
    import deepspeed as ds

    if device.type == "cpu":
        _skip_shared_memory_op()
    ds.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        timeout=timedelta(minutes=30),
        verbose=False,
    )


def _skip_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce at the first start on each CPU node: 19 s and a
    C++ compiler, for a kernel that only its tensor-parallel inference calls."""
    # Not `import … as`: the package's attribute `torch` is torch itself, not the module of that name.
    backend: Any = import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _distributed() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Ranks of the process group, 1 without one. Not the GPUs that this process sees, and not what a launcher said."""
    import torch.distributed as dist

    return dist.get_world_size() if _distributed() else 1


def from_first(value: T) -> T:
    """The first rank's value, on every rank."""
    import torch.distributed as dist

    if not _distributed():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: T) -> list[T]:
    """Every rank's value, by rank, on every rank."""
    import torch.distributed as dist

    if not _distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every rank is here."""
    import torch.distributed as dist

    if _distributed():
        dist.barrier()


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Sums over all ranks, in float64 where the device has it."""
    import torch
    import torch.distributed as dist

    if not _distributed():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(v) for v in tensor.tolist()]

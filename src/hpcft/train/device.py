"""The device of a rank, and why it is not a GPU where one was asked for."""

from __future__ import annotations

import ctypes
import logging
import os
import socket
from typing import TYPE_CHECKING, Literal

from hpcft.errors import ConfigError
from hpcft.train.ranks import Rank

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_WAY_OUT = (
    "ask for a newer driver on the nodes, or install the torch that fits this one: "
    "uv pip install --torch-backend=auto torch"
)


def choose_device(accelerator: Literal["auto", "cuda", "cpu"], scheduler: str, rank: Rank) -> torch.device:
    """The device of this rank.

    Args:
        accelerator: what the job or its profile asks for. `auto` means CUDA under Slurm, where a day on the CPU
            instead would be noticed by nobody, and the best there is (CUDA, MPS, CPU) elsewhere.
        scheduler: `slurm` or `local`.
        rank: this process.

    Raises:
        ConfigError: a GPU was asked for and none is visible, or fewer than ranks.
    """
    import torch

    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        visible = torch.cuda.device_count()
        # One GPU visible to each task is how some sites bind them.
        index = 0 if visible == 1 else rank.local_rank
        if index >= visible:
            raise ConfigError(
                f"rank {rank.local_rank} of this node has no GPU: {visible} are visible",
                where="resources.gpus_per_node",
            )
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if accelerator == "cuda" or scheduler == "slurm":
        raise ConfigError(
            f"the job asked for a GPU and {socket.gethostname()} shows none to it "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}; {_cause()})",
            where="resources.accelerator",
            hint=_WAY_OUT
            if _driver_is_too_old()
            else "ask for GPUs in the profile, check the node with nvidia-smi, or mean it: "
            "--set resources.accelerator=cpu",
        )
    if _driver_is_too_old():
        log.warning("no GPU is used: %s; %s", _cause(), _WAY_OUT)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that this machine's NVIDIA driver can run, (12, 2); None without a driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def _built_for() -> tuple[int, int] | None:
    import torch

    if torch.version.cuda is None:
        return None
    major, minor = torch.version.cuda.split(".")[:2]
    return int(major), int(minor)


def _driver_is_too_old() -> bool:
    """Programs of one CUDA major version run on every driver of that version, or of a later one."""
    driver, built = driver_cuda(), _built_for()
    return driver is not None and built is not None and driver[0] < built[0]


def _cause() -> str:
    driver, built = driver_cuda(), _built_for()
    if built is None:
        return "this torch is built without CUDA"
    text = f"torch is built for CUDA {built[0]}.{built[1]}"
    if driver is None:
        return f"{text}, and there is no NVIDIA driver"
    return f"{text}, and the NVIDIA driver runs CUDA {driver[0]}.{driver[1]}"

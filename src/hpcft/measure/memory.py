"""Peak memory where the work is done, and sizes on disk. GB means 1024³ bytes."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

GB = 1024**3


def reset_peak(device: torch.device) -> None:
    """Start measuring anew. Linux lets a process reset its own peak of resident memory; where it does not, the
    peak is that since the process began."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        log.info("the peak of resident memory cannot be reset here (%s): it is the one since the process began", error)


def peak_gb(device: torch.device) -> dict[str, float]:
    """This process's peak since `reset_peak`.

    Returns:
        GPU memory that its tensors held as `train/peak_vram_gb`; without a GPU its resident memory, under its own
        name, `train/peak_rss_gb`.
    """
    import torch

    if device.type == "cuda":
        return {"train/peak_vram_gb": torch.cuda.max_memory_allocated(device) / GB}
    return {"train/peak_rss_gb": _peak_resident() / GB}


def devices_of(model: torch.nn.Module) -> list[torch.device]:
    """Where a model's weights are, each device once, in the order of its layers."""
    return list(dict.fromkeys(parameter.device for parameter in model.parameters()))


def peak_by_device(devices: Sequence[torch.device]) -> list[dict[str, Any]]:
    """This process's peak on each device since `reset_peak`, with the device's name where it has one."""
    import torch

    found = []
    for device in devices:
        name = {"name": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
        figures = {key.partition("/")[2]: value for key, value in peak_gb(device).items()}
        found.append({"device": str(device), **name, **figures})
    return found


def _peak_resident() -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        # Not Linux.
        log.debug("no /proc/self/status; the peak is the one since the process began")
    # macOS counts in bytes, the others in kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def over_ranks(values: dict[str, float]) -> dict[str, float]:
    """The maximum of each figure over the ranks of the process group, on every rank; as it is without a group.

    The rank that needed most tells what a GPU must have.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return values
    everyone: list[dict[str, float]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, values)
    keys = dict.fromkeys(key for rank in everyone for key in rank)
    return {key: max(rank[key] for rank in everyone if key in rank) for key in keys}


def folder_size_gb(folder: Path) -> float:
    """Size of a model folder's weight files, not of what else lies there (tokenizer, optimizer states)."""
    return sum(f.stat().st_size for f in folder.glob("*.safetensors")) / GB

"""What a figure was measured on, and whether the machine was quiet meanwhile."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "torchao", "accelerate", "flash-attn", "liger-kernel")
# Above these a figure would not be found again: share of the machine's cores that others used, and growth of the
# median time from the first third of the queries to the last.
_OTHERS = 0.10
_DRIFT = 1.10


def fingerprint(device: torch.device) -> dict[str, Any]:
    """The machine and the versions.

    Returns:
        `id`, the same for machines of one kind: accelerator with its driver, or processor with the threads in use;
        and all of it in words. The host's name is not part of it.
    """
    import torch

    hardware: dict[str, Any] = {
        "device": device.type,
        "cpu": _cpu(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        hardware |= {"gpu": torch.cuda.get_device_name(device), "driver": _driver(), "cuda": torch.version.cuda}
    told = json.dumps(hardware, sort_keys=True)
    return {
        "id": hashlib.sha256(told.encode()).hexdigest()[:12],
        **hardware,
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        log.debug("no /proc/cpuinfo")
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    with _nvml() as nvml:
        return None if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVIDIA's management library, or None where it is not."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("NVML does not answer (%s): no energy, clocks or other processes of the GPU", error)
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


@dataclass
class Watch:
    """The machine during a measurement.

    Attributes:
        energy_j: of the GPUs, where NVML counts it.
        troubles: why the figures may not be found again; empty when nothing was seen.
    """

    energy_j: float | None = None
    troubles: list[str] = field(default_factory=list)


@contextmanager
def watch(devices: Sequence[torch.device]) -> Iterator[Watch]:
    """Look at the machine before and after what is measured inside.

    Args:
        devices: that the model is on.
    """
    found = Watch()
    own, busy, start = psutil.Process().cpu_times(), psutil.cpu_times(), time.monotonic()
    energy = _energy_mj(devices)
    yield found
    elapsed = time.monotonic() - start
    if energy is not None and (after := _energy_mj(devices)) is not None:
        found.energy_j = (after - energy) / 1000
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    now, all_now = psutil.Process().cpu_times(), psutil.cpu_times()
    mine = (now.user + now.system) - (own.user + own.system)
    everyone = (all_now.user + all_now.system) - (busy.user + busy.system)
    others = max(0.0, everyone - mine) / (elapsed * cores)
    gpus = [device for device in devices if device.type == "cuda"]
    if not gpus and others > _OTHERS:
        found.troubles.append(f"other processes used {100 * others:.0f} % of the machine's cores")
    found.troubles += dict.fromkeys(words for gpu in gpus for words in _gpu_troubles(gpu))


def _energy_mj(devices: Sequence[torch.device]) -> int | None:
    """Of all of them together; None where one does not count it."""
    if any(device.type != "cuda" for device in devices):
        return None
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            return sum(int(nvml.nvmlDeviceGetTotalEnergyConsumption(_handle(nvml, gpu))) for gpu in devices)
        except nvml.NVMLError:
            # Cards before Volta do not count it.
            return None


def _handle(nvml: Any, device: torch.device) -> Any:
    """NVML counts all cards of the machine, torch those that this process sees; the identity is the same."""
    import torch

    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


@contextmanager
def nvml_of(device: torch.device) -> Iterator[Callable[[], dict[str, float]] | None]:
    """A function that reads a card: `gpu_percent` of the time in which a kernel ran, `gpu_memory_gb` in use by all
    processes, `gpu_power_w`, those of them that the card tells; None where there is no card or no NVML."""
    if device.type != "cuda":
        yield None
        return
    with _nvml() as nvml:
        if nvml is None:
            yield None
            return
        handle = _handle(nvml, device)
        readers: dict[str, Callable[[], float]] = {
            "gpu_percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "gpu_memory_gb": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / 1024**3,
            "gpu_power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        }

        def read() -> dict[str, float]:
            found: dict[str, float] = {}
            for name, reader in readers.items():
                # A part of a card (MIG) does not tell all.
                with suppress(nvml.NVMLError):
                    found[name] = reader()
            return found

        yield read


def _gpu_troubles(device: torch.device) -> list[str]:
    found: list[str] = []
    with _nvml() as nvml:
        if nvml is None:
            return found
        handle = _handle(nvml, device)
        try:
            others = [p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid != os.getpid()]
            reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        except nvml.NVMLError as error:
            return [f"the GPU's state cannot be read: {error}"]
        if others:
            found.append(f"{len(others)} other process(es) on the GPU")
        slowed = {
            "the GPU is slowed down by heat": nvml.nvmlClocksThrottleReasonSwThermalSlowdown
            | nvml.nvmlClocksThrottleReasonHwThermalSlowdown,
            "the GPU is slowed down by its power limit": nvml.nvmlClocksThrottleReasonSwPowerCap
            | nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
        }
        found += [words for words, bits in slowed.items() if reasons & bits]
    return found


def drift(times: Sequence[float]) -> str | None:
    """Words for a median time that grew or fell from the first third of the measurements to the last."""
    third = len(times) // 3
    if third < 3:
        return None
    ratio = statistics.median(times[-third:]) / statistics.median(times[:third])
    if 1 / _DRIFT <= ratio <= _DRIFT:
        return None
    return f"the time changed by a factor of {ratio:.2f} from the first third of the queries to the last"

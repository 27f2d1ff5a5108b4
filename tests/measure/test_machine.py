"""Energy over all GPUs that a model is on, and what disturbs a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpcft.measure import machine

GPUS = [torch.device("cuda", 0), torch.device("cuda", 1)]


class Refused(Exception):
    """As NVML's of a card that does not count."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Millijoules of each card; one that is not here counts none."""
    energy: dict[int, int] = {}

    def of(index: int) -> int:
        if index not in energy:
            raise Refused
        energy[index] += 500
        return energy[index]

    @contextmanager
    def nvml() -> Iterator[Any]:
        yield SimpleNamespace(nvmlDeviceGetTotalEnergyConsumption=of, NVMLError=Refused)

    monkeypatch.setattr(machine, "_nvml", nvml)
    monkeypatch.setattr(machine, "_handle", lambda _, device: device.index)
    monkeypatch.setattr(machine, "_gpu_troubles", lambda device: ["hot"])
    return energy


def test_energy_is_that_of_all_gpus_together(counted: dict[int, int]) -> None:
    counted |= {0: 1000, 1: 7000}
    with machine.watch(GPUS) as seen:
        pass
    assert seen.energy_j == 1.0
    assert seen.troubles == ["hot"], "the same words of two cards stand once"


def test_energy_is_absent_where_one_of_them_does_not_count_it(counted: dict[int, int]) -> None:
    counted[0] = 1000
    with machine.watch(GPUS) as seen:
        pass
    assert seen.energy_j is None


def test_without_a_gpu_there_is_no_energy() -> None:
    with machine.watch([torch.device("cpu")]) as seen:
        pass
    assert seen.energy_j is None

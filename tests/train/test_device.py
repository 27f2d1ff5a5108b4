"""The device of a rank: the order, what is never done in silence, and a driver that is too old."""

from __future__ import annotations

import logging

import pytest
import torch
from accelerate.state import AcceleratorState

from hpcft.errors import ConfigError
from hpcft.spec.job import Job
from hpcft.train import device as module
from hpcft.train.arguments import training_arguments
from hpcft.train.device import choose_device
from hpcft.train.ranks import Rank


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many GPUs, with MPS or not, and a driver for a CUDA version."""

    def make(*, gpus: int = 0, mps: bool = False, driver: tuple[int, int] | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(module, "driver_cuda", lambda: driver)

    return make


@pytest.mark.parametrize(
    ("parts", "expected"),
    [({"gpus": 1, "mps": True}, "cuda:0"), ({"mps": True}, "mps"), ({}, "cpu")],
    ids=["cuda first", "then mps", "then cpu"],
)
def test_c1_auto_takes_cuda_then_mps_then_cpu(machine, parts, expected):
    machine(**parts)
    assert str(choose_device("auto", "local", Rank())) == expected


def test_each_rank_takes_its_own_gpu_and_a_missing_one_is_named(machine):
    machine(gpus=2)
    assert str(choose_device("cuda", "slurm", Rank(1, 1, 2))) == "cuda:1"
    with pytest.raises(ConfigError, match="rank 2 of this node has no GPU: 2 are visible"):
        choose_device("cuda", "slurm", Rank(2, 2, 3))


def test_one_visible_gpu_a_task_is_the_rank_s_own(machine):
    machine(gpus=1)
    assert str(choose_device("cuda", "slurm", Rank(3, 3, 4))) == "cuda:0"


@pytest.mark.parametrize(("accelerator", "scheduler"), [("cuda", "local"), ("auto", "slurm"), ("cuda", "slurm")])
def test_a_job_that_asked_for_a_gpu_never_runs_on_the_cpu(machine, accelerator, scheduler):
    machine(mps=True)
    with pytest.raises(ConfigError, match="asked for a GPU") as caught:
        choose_device(accelerator, scheduler, Rank())
    assert "resources.accelerator=cpu" in str(caught.value)


def test_a_driver_too_old_is_named_with_the_way_out(machine):
    machine(driver=(12, 2))
    with pytest.raises(ConfigError, match=r"torch is built for CUDA 13\.0, and the NVIDIA driver runs CUDA 12\.2") as e:
        choose_device("cuda", "slurm", Rank())
    assert "newer driver" in str(e.value)
    assert "--torch-backend=auto" in str(e.value)


def test_a_driver_of_the_same_major_version_is_not_blamed(machine):
    machine(driver=(13, 0))
    with pytest.raises(ConfigError) as caught:
        choose_device("cuda", "slurm", Rank())
    assert "newer driver" not in str(caught.value)


def test_at_home_a_driver_too_old_is_warned_of_before_the_cpu_is_used(machine, caplog):
    machine(driver=(12, 2))
    with caplog.at_level(logging.WARNING, "hpcft"):
        assert str(choose_device("auto", "local", Rank())) == "cpu"
    assert "no GPU is used" in caplog.text


def test_a_machine_without_a_driver_is_read_as_such():
    assert module.driver_cuda() is None or len(module.driver_cuda()) == 2


def test_a_rank_alone_that_sees_several_gpus_trains_on_one_with_the_batch_that_was_asked_for(machine, tmp_path):
    machine(gpus=4)
    job = Job.model_validate({"model": {"dtype": "float32"}, "training": {"per_device_train_batch_size": 2}})
    arguments = training_arguments(job, tmp_path, torch.device("cuda", 0), resumed=False)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 2)
    # What accelerate has kept of the device is not for other tests.
    AcceleratorState._reset_state(reset_partial_state=True)

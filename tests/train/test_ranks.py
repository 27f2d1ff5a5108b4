"""Which rank this is, and the size of the world."""

from __future__ import annotations

import os

import pytest
import torch

from hpcft.train.ranks import Rank, free_port, join, read_rank, world_size


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, Rank(0, 0, 1)),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, Rank(3, 1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "4"}, Rank(2, 0, 4)),
        # A plain python inside an allocation of four tasks is one rank.
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}, Rank(0, 0, 1)),
        ({"SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_LOCALID": "1", "SUBMITIT_LOCAL_NTASKS": "2"}, Rank(1, 1, 2)),
    ],
)
def test_each_launchers_names_are_read(environ: dict[str, str], rank: Rank) -> None:
    assert read_rank(environ) == rank


def test_e14_te6_the_world_is_the_process_group_and_not_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch.distributed as dist

    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert world_size() == 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    dist.init_process_group("gloo", rank=0, world_size=1)
    try:
        assert world_size() == 1
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("device", "local"), [("cuda:0", "0"), ("cuda:3", "3"), ("cpu", "3")])
def test_a_rank_s_own_gpu_is_told_by_its_number_among_those_that_it_sees(
    monkeypatch: pytest.MonkeyPatch, device: str, local: str
) -> None:
    """Where each task is shown its own GPU alone, that one is number 0 on every rank."""
    import deepspeed

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "unset")
    monkeypatch.setattr(deepspeed, "init_distributed", lambda **_: None)
    join(Rank(3, 3, 4), torch.device(device), deepspeed=True)
    assert [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["3", local, "4"]

"""Peak memory under its own name and over all ranks, sizes of weights alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcft.measure.memory import GB, devices_of, folder_size_gb, over_ranks, peak_by_device, peak_gb, reset_peak

CPU = torch.device("cpu")


def test_te2_without_a_gpu_there_is_no_vram_figure() -> None:
    assert set(peak_gb(CPU)) == {"train/peak_rss_gb"}


def test_te2_on_a_gpu_the_figure_is_what_its_tensors_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"peak": 7 * GB}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.update(peak=0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["peak"])
    device = torch.device("cuda", 1)
    assert peak_gb(device) == {"train/peak_vram_gb": 7.0}
    reset_peak(device)
    assert peak_gb(device) == {"train/peak_vram_gb": 0.0}


def test_te2_of_a_model_on_several_gpus_each_has_its_name_and_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: (3 + device.index) * GB)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert peak_by_device([torch.device("cuda", 0), torch.device("cuda", 1)]) == [
        {"device": "cuda:0", "name": "card 0", "peak_vram_gb": 3.0},
        {"device": "cuda:1", "name": "card 1", "peak_vram_gb": 4.0},
    ]


def test_a_models_devices_are_those_of_its_weights() -> None:
    layers = [torch.nn.Linear(2, 2, device=name) for name in ("meta", "cpu", "meta")]
    assert devices_of(torch.nn.Sequential(*layers)) == [torch.device("meta"), torch.device("cpu")]


def test_the_peak_sees_what_was_held_and_can_be_reset(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        reset_peak(CPU)
    if "cannot be reset" in caplog.text:
        pytest.skip("this system does not let a process reset its peak of resident memory")
    before = peak_gb(CPU)["train/peak_rss_gb"]
    block = torch.ones(64 * 1024 * 1024)
    held = peak_gb(CPU)["train/peak_rss_gb"]
    assert held - before > 0.2
    del block
    reset_peak(CPU)
    assert peak_gb(CPU)["train/peak_rss_gb"] < held - 0.1


def test_where_the_peak_cannot_be_reset_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(Path, "write_text", refuse)
    with caplog.at_level("INFO"):
        reset_peak(CPU)
    assert "the one since the process began" in caplog.text
    assert peak_gb(CPU)["train/peak_rss_gb"] > 0


def test_without_proc_the_figure_is_getrusages(monkeypatch: pytest.MonkeyPatch) -> None:
    from_proc = peak_gb(CPU)["train/peak_rss_gb"]

    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    # Not less, since this one cannot be reset.
    assert peak_gb(CPU)["train/peak_rss_gb"] >= from_proc * 0.99


def test_te2_figures_are_the_maximum_over_the_ranks_on_every_rank(tmp_path: Path) -> None:
    code = (
        "import sys, torch.distributed as dist; from hpcft.measure.memory import over_ranks\n"
        "rank = int(sys.argv[1])\n"
        "dist.init_process_group('gloo', init_method='file://' + sys.argv[2], rank=rank, world_size=2)\n"
        "mine = {'a': rank, 'b': 5 - rank} | ({'only_here': 1} if rank else {})\n"
        "print(sorted(over_ranks(mine).items()))\n"
        "dist.destroy_process_group()"
    )
    commands = [[sys.executable, "-c", code, str(rank), str(tmp_path / "rendezvous")] for rank in (0, 1)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        answers = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert answers == ["[('a', 1), ('b', 5), ('only_here', 1)]"] * 2


def test_without_a_process_group_there_is_one_rank() -> None:
    assert over_ranks({"a": 1.5}) == {"a": 1.5}


def test_ta6_te8_a_models_size_is_that_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x" * 500)
    (tmp_path / "training_loss.png").write_bytes(b"x" * 5000)
    (tmp_path / "optimizer.pt").write_bytes(b"x" * 9000)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(b"x" * 7000)
    assert folder_size_gb(tmp_path) == pytest.approx(1500 / 1024**3)

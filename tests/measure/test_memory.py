"""Peak memory under its own name, sizes of weights alone, the world from the process group."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcft.measure.memory import folder_size_gb, over_ranks, peak_gb, reset_peak

CPU = torch.device("cpu")


def test_te2_without_a_gpu_there_is_no_vram_figure() -> None:
    assert set(peak_gb(CPU)) == {"train/peak_rss_gb"}


def test_the_peak_sees_what_was_held_and_can_be_reset() -> None:
    reset_peak(CPU)
    before = peak_gb(CPU)["train/peak_rss_gb"]
    block = torch.ones(64 * 1024 * 1024)
    held = peak_gb(CPU)["train/peak_rss_gb"]
    assert held - before > 0.2
    del block
    reset_peak(CPU)
    assert peak_gb(CPU)["train/peak_rss_gb"] < held - 0.1


def test_without_a_process_group_there_is_one_rank() -> None:
    assert over_ranks({"a": 1.5}) == {"a": 1.5}


def test_ta6_a_models_size_is_that_of_its_weights(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "training_loss.png").write_bytes(b"x" * 5000)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").write_bytes(b"x" * 7000)
    assert folder_size_gb(tmp_path) == pytest.approx(1000 / 1024**3)

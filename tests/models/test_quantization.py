"""The bitsandbytes defect on avx512_bf16 CPUs is fenced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hpcft.models.counts import count_parameters
from hpcft.models.quantization import nf4_config
from hpcft.models.quickstart import build_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    build_model(path, steps=0, hidden=64, layers=2, vocab=512)
    return path


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=nf4_config(torch.float32), device_map={"": "cpu"}
    )


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal as bytes: packed weights read as floats are full of NaN, which equals nothing."""
    return a.numel() == b.numel() and torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8))


def gradient_norm(model: torch.nn.Module) -> float:
    model.train()
    embedding = model.get_input_embeddings()
    embedding.weight.requires_grad_(True)
    ids = torch.arange(40).reshape(2, 20)
    model(input_ids=ids, labels=ids).loss.backward()
    norm = float(embedding.weight.grad.norm())
    embedding.weight.grad = None
    return norm


def test_gradient_norm_is_the_same_before_and_after_an_eval_forward(folder: Path) -> None:
    model = load(folder)
    before = gradient_norm(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(40).reshape(2, 20))
    assert gradient_norm(model) == pytest.approx(before, rel=1e-6)


def test_saved_weights_are_exact_after_an_eval_forward(folder: Path) -> None:
    model = load(folder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(40).reshape(2, 20))
    after = model.state_dict()
    assert all(same(before[k], after[k]) for k in before)


def test_without_the_fence_the_weights_would_change(folder: Path) -> None:
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this CPU has no avx512_bf16, so bitsandbytes does not repack")
    model = load(folder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            assert module.support_avx512bf16_for_cpu is False
            module.support_avx512bf16_for_cpu = True
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(40).reshape(2, 20))
    after = {k: v for k, v in model.state_dict().items() if k in before}
    assert not all(same(before[k], after[k]) for k in after)


def test_ta4_packed_weights_are_counted_as_the_matrices_they_stand_for(folder: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert count_parameters(load(folder)).total == count_parameters(plain).total

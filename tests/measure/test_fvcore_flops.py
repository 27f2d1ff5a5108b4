"""fvcore, told what it does not know, counts a loaded model as the formula and the twin do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from peft import LoraConfig, get_peft_model
from support.tiny_models import ENCODERS, FAMILIES, config
from torch.utils.flop_counter import FlopCounterMode
from torchao.quantization import Int8WeightOnlyConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
    LlamaConfig,
    TorchAoConfig,
)

from hpcft.measure.flops import analytic_forward_flops, forward_flops, query_flops
from hpcft.measure.fvcore_flops import Logits, traced_forward_flops
from hpcft.models.quantization import int8_config, nf4_config

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama(kv_heads: int = 2) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        vocab_size=1000,
        pad_token_id=0,
    )


def lora(r: int) -> LoraConfig:
    return LoraConfig(r=r, target_modules=ALL, task_type="CAUSAL_LM")


def batch(rows: int = 2, length: int = 50) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 400, (rows, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    AutoModelForCausalLM.from_config(llama()).save_pretrained(path)
    return path


def load(folder: Path, quantization: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization, dtype=torch.float32, device_map={"": "cpu"}
    ).eval()


@pytest.mark.parametrize("kv_heads", [8, 2], ids=["dense", "gqa"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_g23_dense_and_grouped_heads_with_fused_attention_too(kv_heads: int, attention: str) -> None:
    shape = llama(kv_heads)
    model = AutoModelForCausalLM.from_config(shape, attn_implementation=attention).eval()
    counted = traced_forward_flops(model, batch(), use_cache=False)
    assert counted == analytic_forward_flops(shape, 2, 50) == forward_flops(shape).of(2, 50)


@pytest.mark.parametrize("r", [0, 1, 8, 20])
@pytest.mark.parametrize("held", ["plain", "nf4", "int8", "torchao-int8"])
def test_g23_lora_on_weights_of_any_bits(folder: Path, held: str, r: int) -> None:
    quantization = {
        "plain": None,
        "nf4": nf4_config(torch.float32),
        "int8": int8_config(),
        "torchao-int8": TorchAoConfig(Int8WeightOnlyConfig(version=2)),
    }[held]
    model, adapter = load(folder, quantization), lora(r) if r else None
    if adapter is not None:
        model = get_peft_model(model, adapter).eval()
    counted = traced_forward_flops(model, batch(), use_cache=False)
    assert counted == analytic_forward_flops(llama(), 2, 50, adapter=adapter)
    assert counted == forward_flops(llama(), adapter=adapter).of(2, 50)


def test_g23_classification() -> None:
    shape = llama()
    shape.num_labels = 3
    model = AutoModelForSequenceClassification.from_config(shape).eval()
    counted = traced_forward_flops(model, batch(), use_cache=False)
    assert counted == analytic_forward_flops(shape, 2, 50, num_labels=3) == forward_flops(shape, 3).of(2, 50)


@pytest.mark.parametrize("family", FAMILIES)
def test_g23_every_family_is_counted_as_its_twin(family: str) -> None:
    shape = config(family)
    if family in ENCODERS:
        model = AutoModelForSequenceClassification.from_config(shape).eval()
        counted, labels = traced_forward_flops(model, batch()), 2
    else:
        model = AutoModelForCausalLM.from_config(shape).eval()
        counted, labels = traced_forward_flops(model, batch(), use_cache=False), None
    assert counted == forward_flops(shape, labels).of(2, 50)


@pytest.mark.parametrize("held", ["plain", "nf4"])
def test_g23_decoding_with_a_cache(folder: Path, held: str) -> None:
    model = load(folder, nf4_config(torch.float32) if held == "nf4" else None)
    cache = DynamicCache(config=model.config)
    lengths = [17, 1, 1, 1]
    counts = [
        traced_forward_flops(
            model, {"input_ids": torch.full((1, n), 7)}, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        for n in lengths
    ]
    assert cache.get_seq_length() == 20
    assert sum(counts) == query_flops(llama()).of(17, 4)


def test_the_model_answers_as_before(folder: Path) -> None:
    model, inputs = load(folder, nf4_config(torch.float32)), batch()
    with torch.no_grad():
        before = model(**inputs).logits
        traced_forward_flops(model, inputs, use_cache=False)
        after = model(**inputs).logits
    assert torch.equal(before, after)


def test_an_operator_that_is_not_known_is_told() -> None:
    class Model(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> Any:
            return SimpleNamespace(logits=torch.addbmm(left[0], left, right))

    tensors = {"left": torch.ones(2, 3, 3), "right": torch.ones(2, 3, 3)}
    with pytest.raises(ArithmeticError, match="aten::addbmm"):
        traced_forward_flops(Model(), tensors)


def test_what_the_libraries_count_without_help_is_too_little(folder: Path) -> None:
    """Why there are handlers; when this fails, a library has learnt and a handler may go."""
    plain, nf4, inputs = load(folder, None), load(folder, nf4_config(torch.float32)), batch()
    truth = analytic_forward_flops(llama(), 2, 50)

    def fvcore(model: Any) -> float:
        bare = FlopCountAnalysis(Logits(model, inputs, {"use_cache": False}), tuple(inputs.values()))
        with torch.no_grad():
            return float(bare.unsupported_ops_warnings(False).total()) / truth

    def torch_counter(model: Any) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(**inputs)
        return float(counter.get_total_flops()) / truth

    assert 0.4 < fvcore(plain) < 0.5
    assert fvcore(nf4) < 0.2
    assert torch_counter(nf4) < 0.3

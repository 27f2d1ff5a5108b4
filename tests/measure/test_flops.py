"""FLOPs are counted, and equal the formula."""

from __future__ import annotations

import pytest
from peft import LoraConfig
from transformers import LlamaConfig

from hpcft.measure.flops import StepFlops, analytic_forward_flops, forward_flops, training_flops


def llama(kv_heads: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        vocab_size=1000,
    )


def lora(r: int) -> LoraConfig:
    return LoraConfig(r=r, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize(("batch", "length"), [(1, 17), (3, 100), (2, 333)])
def test_g23_the_forward_count_is_the_formula_for_dense_and_grouped_heads(
    kv_heads: int, batch: int, length: int
) -> None:
    config = llama(kv_heads)
    assert forward_flops(config).of(batch, length) == analytic_forward_flops(config, batch, length)


def test_te4_full_training_is_three_forwards() -> None:
    config = llama(4)
    assert training_flops(config, None).of(1, 100) == 3 * forward_flops(config).of(1, 100)


@pytest.mark.parametrize("r", [4, 8, 16])
def test_te4_lora_training_is_two_forwards_and_the_adapters_and_not_three(r: int) -> None:
    config = llama(4)
    forward = analytic_forward_flops(config, 1, 100)
    kv = config.num_key_value_heads * 16
    adapters = 3 * r * (128 + 128 + 128 + kv) * 2 * 100
    # Forward, and the backward through the frozen base that reaches down to the first adapter: less than two
    # forwards, since nothing below the first layer's adapters needs a gradient. Each adapter is trained whole.
    count = training_flops(config, lora(r)).of(1, 100)
    assert 1.95 * forward < count - 3 * adapters < 2.1 * forward


def test_gradient_checkpointing_costs_about_one_more_forward() -> None:
    config = llama(4)
    more = training_flops(config, None, gradient_checkpointing=True).of(1, 100) - training_flops(config, None).of(
        1, 100
    )
    # The output head is not computed again.
    assert 0.5 * forward_flops(config).of(1, 100) < more < forward_flops(config).of(1, 100)


def test_a_quantised_configuration_counts_as_the_plain_one() -> None:
    config = llama(4)
    plain = forward_flops(config)
    config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert forward_flops(config) == plain


def test_totals_add_up_batches_of_any_shape() -> None:
    flops = StepFlops(linear=10, quadratic=3)
    shapes = [(2, 5), (1, 7)]
    tokens = sum(b * n for b, n in shapes)
    squares = sum(b * n * n for b, n in shapes)
    assert flops.total(tokens, squares) == sum(flops.of(b, n) for b, n in shapes)

"""FLOPs are counted, and equal the formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from support.tiny_models import WRITERS, build, config
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
)

from hpcft.measure import flops
from hpcft.measure.flops import (
    StepFlops,
    analytic_forward_flops,
    forward_flops,
    query_flops,
    training_parts,
)
from hpcft.models.adapter import with_adapter
from hpcft.models.load import load_base, load_config
from hpcft.spec.job import Job
from hpcft.train.run import _flops


def llama(kv_heads: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        vocab_size=1000,
    )


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


def lora(r: int, targets: list[str]) -> LoraConfig:
    return LoraConfig(r=r, lora_dropout=0.1, target_modules=targets, task_type="CAUSAL_LM")


def lora_training_by_formula(config: LlamaConfig, r: int, targets: list[str], batch: int, length: int) -> int:
    """Forward, gradients of activations down to the first adapter, and the adapters themselves.

    A weight with n numbers costs 2n a token forward and 2n for the gradient of its input; an adapter's weight 2n more
    for its own gradient. Before the first layer's adapters nothing needs a gradient: the inputs of its q, k and v do
    not, nor does each of its queries, keys and values that has no adapter.
    """
    h, inner = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * config.head_dim
    shape = {
        "q_proj": (h, h),
        "k_proj": (h, kv),
        "v_proj": (h, kv),
        "o_proj": (h, h),
        "gate_proj": (h, inner),
        "up_proj": (h, inner),
        "down_proj": (inner, h),
    }
    product = 2 * h * length
    per_token = 2 * h * config.vocab_size
    for layer in range(config.num_hidden_layers):
        # Does the input of this module need a gradient?
        flows = dict.fromkeys(("q_proj", "k_proj", "v_proj"), layer > 0)
        q, k, v = (flows[name] or name in targets for name in flows)
        flows["o_proj"] = q or k or v
        flows |= dict.fromkeys(("gate_proj", "up_proj"), flows["o_proj"] or "o_proj" in targets)
        flows["down_proj"] = flows["gate_proj"] or bool({"gate_proj", "up_proj"} & set(targets))
        per_token += sum(2 * a * b for name, (a, b) in shape.items() if flows[name])
        # Scores: gradients of queries and keys. Values: gradients of the weights (if the scores need one) and values.
        per_token += product * (q + k + (q or k) + v)
        for name in targets:
            a, b = shape[name]
            per_token += 2 * r * (a + b) * 2 + 2 * r * (b + (a if flows[name] else 0))
    return analytic_forward_flops(config, batch, length) + batch * length * per_token


def generated(model: Any, prompt_tokens: int, new_tokens: int) -> int:
    """FLOPs of a real generation, as transformers runs it."""
    ids = torch.randint(3, 400, (1, prompt_tokens))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
    assert output.shape[1] == prompt_tokens + new_tokens
    return int(counter.get_total_flops())


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize(("batch", "length"), [(1, 17), (3, 100), (2, 333)])
def test_g23_the_forward_count_is_the_formula_for_dense_and_grouped_heads(
    kv_heads: int, batch: int, length: int
) -> None:
    config = llama(kv_heads)
    assert forward_flops(config).of(batch, length) == analytic_forward_flops(config, batch, length)


def test_te4_full_training_is_three_forwards() -> None:
    config = llama(4)
    assert training_parts(config, None).whole.of(1, 100) == 3 * forward_flops(config).of(1, 100)


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("r", [4, 8, 16])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], MLP, ATTENTION + MLP], ids="-".join)
def test_te4_g23_lora_training_is_the_formula(kv_heads: int, r: int, targets: list[str]) -> None:
    config = llama(kv_heads)
    counted = training_parts(config, lora(r, targets)).whole
    assert counted.of(2, 100) == lora_training_by_formula(config, r, targets, 2, 100)


def test_te4_lora_on_a_large_model_costs_four_and_not_six_flops_a_weight_and_token() -> None:
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
    )
    # Full training is 6N; N leaves out the table of embeddings, which multiplies nothing.
    weights = training_parts(config, None).whole.linear / 6
    assert weights == pytest.approx(1.1e9 - 32000 * 2048, rel=0.01)
    assert training_parts(config, lora(8, ["q_proj", "v_proj"])).whole.linear == pytest.approx(4 * weights, rel=0.01)


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"]], ids=["full", "lora"])
def test_the_twin_counts_what_a_real_step_does(targets: list[str] | None) -> None:
    config = llama(2)
    adapter = lora(8, targets) if targets else None
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    if adapter is not None:
        model = get_peft_model(model, adapter)
    ids = torch.randint(0, config.vocab_size, (3, 50))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    assert training_parts(config, adapter).whole.of(3, 50) == counter.get_total_flops()


def test_te4_gpt2_is_counted_too() -> None:
    config = GPT2Config(n_embd=128, n_layer=2, n_head=4, vocab_size=500, bos_token_id=0, eos_token_id=0)
    # 12 h² weights a layer and the head; two attention products.
    assert forward_flops(config) == StepFlops(linear=2 * (2 * 12 * 128**2 + 128 * 500), quadratic=2 * 2 * 2 * 128)


def test_te4_of_a_mixture_the_experts_that_a_token_meets_are_counted() -> None:
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = MixtralConfig(**shape, num_key_value_heads=8, vocab_size=500, num_local_experts=4, num_experts_per_tok=2)
    forward = forward_flops(config)
    dense = analytic_forward_flops(LlamaConfig(**shape, num_key_value_heads=8, vocab_size=500), 1, 1)
    expert, router = 2 * 2 * 3 * 128 * 256, 2 * 2 * 128 * 4
    assert forward.of(1, 1) == dense + expert + router
    assert training_parts(config, None).whole.linear == 3 * forward.linear


def test_a_model_that_does_not_follow_the_terms_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "_count", lambda model, length, **_: (length**3, length**3))
    with pytest.raises(ArithmeticError, match="not linear plus quadratic"):
        forward_flops(llama(4))


def test_tokens_that_prompt_tuning_adds_are_counted_once_a_sequence() -> None:
    prompt = PromptTuningConfig(num_virtual_tokens=10, task_type="CAUSAL_LM")
    frozen = training_parts(llama(8), prompt).whole
    assert frozen.constant > 0
    assert frozen.total(50, 2500, 1) == frozen.of(1, 50)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_g23_an_encoder_s_flops_are_those_of_its_products(family: str) -> None:
    """Per layer four projections of h², two of h · inner, and two attention products; once a row pooler and head.
    Backward costs twice the forward."""
    h, inner, layers, labels = 32, 64, 2, 3
    expected = StepFlops(
        linear=3 * 2 * layers * (4 * h * h + 2 * h * inner),
        quadratic=3 * 2 * layers * 2 * h,
        constant=3 * 2 * (h * h + h * labels),
    )
    assert training_parts(config(family), None, num_labels=labels).whole == expected


def test_a_pooler_that_is_trained_beside_an_adapter_is_counted(tmp_path: Path) -> None:
    """As a job counts it: with the adapter of the model that it trains."""
    folder = build("bert", tmp_path / "bert")
    job = Job.model_validate(
        {
            "model": {"name": str(folder), "attn_implementation": "eager"},
            "data": {"task": "classification"},
            "lora": {"lora_dropout": 0.0},
            "resources": {"accelerator": "cpu"},
        }
    )
    model = with_adapter(load_base(job, torch.device("cpu"), ["a", "b", "c"]), job, classifier=True).train()
    ids = torch.randint(3, 400, (3, 50))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    before = torch.random.get_rng_state()
    parts = _flops(job, load_config(job.model), model, 3)
    assert parts is not None
    assert parts.whole.of(3, 50) == counter.get_total_flops()
    assert torch.equal(torch.random.get_rng_state(), before), "dropout does not depend on being counted"


@pytest.mark.parametrize(("family", "adapter"), [("llama", None), ("llama", "lora"), ("gpt2", "lora"), ("bert", None)])
def test_recomputation_is_what_a_real_step_with_checkpoints_does_besides(family: str, adapter: str | None) -> None:
    shape = config(family)
    classes = 3 if family == "bert" else None
    lora_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None
    loader: Any = AutoModelForSequenceClassification if classes else AutoModelForCausalLM
    options = {"num_labels": classes} if classes else {}
    model = loader.from_config(config(family, **options), attn_implementation="eager")
    model.config.use_cache = False
    if lora_config is not None:
        model = get_peft_model(model, lora_config)
    model.train()
    model.enable_input_require_grads()
    ids = torch.randint(3, 400, (3, 50))

    def step() -> int:
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
        return int(counter.get_total_flops())

    without = step()
    model.gradient_checkpointing_enable()
    with_checkpoints = step()
    parts = training_parts(shape, lora_config, gradient_checkpointing=True, num_labels=classes)
    assert parts.whole.of(3, 50) == with_checkpoints
    assert parts.recomputation.of(3, 50) == with_checkpoints - without > 0
    assert parts.forward == forward_flops(shape, classes, lora_config)
    assert parts.backward.of(3, 50) == without - parts.forward.of(3, 50)


def test_te4_of_four_flops_a_weight_of_a_frozen_base_recomputation_is_apart() -> None:
    shape = llama(4)
    parts = training_parts(shape, lora(1, ["q_proj"]), gradient_checkpointing=True)
    forward, backward, again = (part.linear for part in (parts.forward, parts.backward, parts.recomputation))
    assert backward == pytest.approx(forward, rel=0.01)
    assert parts.whole.linear == forward + backward + again
    # What nothing needs for a gradient is not computed again: the output head, the last product of each layer.
    head, down = shape.hidden_size * shape.vocab_size, shape.num_hidden_layers * 128 * 384
    assert again == forward - 2 * (head + down)


def test_without_checkpoints_nothing_is_computed_again() -> None:
    assert training_parts(llama(4), None).recomputation == StepFlops(0, 0)


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("new_tokens", [1, 2, 9])
def test_g23_a_query_is_what_generation_with_a_cache_does(family: str, new_tokens: int) -> None:
    shape = config(family)
    model = AutoModelForCausalLM.from_config(shape, attn_implementation="eager").eval()
    assert generated(model, 23, new_tokens) == query_flops(shape).of(23, new_tokens)


@pytest.mark.parametrize("kv_heads", [8, 2], ids=["dense", "gqa"])
@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"], [*ATTENTION, *MLP, "lm_head"]])
def test_g23_a_query_is_exact_step_by_step_for_dense_gqa_and_lora(kv_heads: int, targets: list[str] | None) -> None:
    shape, adapter = llama(kv_heads), lora(12, targets) if targets else None
    model: Any = AutoModelForCausalLM.from_config(shape, attn_implementation="eager").eval()
    if adapter is not None:
        model = get_peft_model(model, adapter).eval()
    counted = query_flops(shape, adapter)
    whole = [counted.of(17, n) for n in range(1, 8)]
    ids = torch.randint(3, 400, (1, 17))
    steps, cache = [], None
    for _ in whole:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        steps.append(counter.get_total_flops())
        cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
    assert [sum(steps[: n + 1]) for n in range(len(whole))] == whole


def test_a_query_without_a_new_token_is_the_prompt_s_pass() -> None:
    counted = query_flops(llama(8))
    assert counted.of(17, 0) == counted.of(17, 1)


def test_a_query_with_virtual_tokens_has_no_figure() -> None:
    with pytest.raises(ArithmeticError, match="virtual tokens"):
        query_flops(llama(8), PromptTuningConfig(num_virtual_tokens=10, task_type="CAUSAL_LM"))


def test_te4_flops_come_from_the_model_not_from_its_name(tmp_path: Path) -> None:
    shape = llama(8)
    named = tmp_path / "Llama-3-70B"
    shape.save_pretrained(named)
    described = json.loads((named / "config.json").read_text())
    (named / "config.json").write_text(json.dumps({**described, "_name_or_path": "meta-llama/Llama-3-70B"}))
    loaded = AutoConfig.from_pretrained(named)
    assert query_flops(loaded) == query_flops(shape)
    assert forward_flops(loaded).of(1, 100) == analytic_forward_flops(shape, 1, 100) < 2 * 1e6 * 100
    assert training_parts(loaded, None).whole == training_parts(shape, None).whole


def test_gradient_checkpointing_costs_about_one_more_forward() -> None:
    config = llama(4)
    more = training_parts(config, None, gradient_checkpointing=True).whole.of(1, 100) - training_parts(
        config, None
    ).whole.of(1, 100)
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


def test_the_twin_is_whole_while_zero_3_divides_models(tmp_path: Path) -> None:
    """One rank counts alone; a model that is divided asks all of them, and waits for ever."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    shape = AutoConfig.from_pretrained(build("llama", tmp_path / "model"))
    zero = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    assert is_deepspeed_zero3_enabled()
    assert all(p.numel() and not hasattr(p, "ds_id") for p in flops.twin(shape).parameters())
    assert is_deepspeed_zero3_enabled()
    assert zero.is_zero3()

"""What a job needs in memory: states by arithmetic, activations counted on a twin, ranges, verdicts, advice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_models import config

from hpcft.measure.activations import Shape, held
from hpcft.measure.advice import changed, cheapest
from hpcft.measure.calibration import Calibration
from hpcft.measure.fit import (
    GB,
    Estimate,
    Part,
    Target,
    arithmetic,
    checkpoint_bytes,
    disk_bytes,
    estimate,
    host,
    step_shape,
    verdict,
    worst,
)
from hpcft.measure.flops import twin
from hpcft.models.shapes import Weights, count
from hpcft.spec.faults import faults
from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS

GPU, CPU = Target("cuda"), Target("cpu")
BILLION = Weights(900_000_000, 400_000, 100_000_000, 0, 5_000_000, 60_000_000, 30_000_000)


def job(variant: str = "lora", **values: Any) -> Job:
    """A job by its keys, `training__zero=2`."""
    tree: dict[str, Any] = {"variant": variant}
    for key, value in values.items():
        section, _, inner = key.partition("__")
        tree.setdefault(section, {})[inner] = value
    return Job.model_validate(tree)


def part(found: Estimate, name: str) -> Part:
    return next((p for p in found.parts if p.name == name), Part(name, 0, 0, ""))


@pytest.mark.parametrize(
    ("gpu", "name"),
    [(None, "bfloat16"), ("a100", "bfloat16"), ("new9000", "bfloat16"), ("Tesla-T4", "float32"), ("v100s", "float32")],
)
def test_auto_is_float32_on_a_gpu_without_bfloat16_of_its_own(gpu: str | None, name: str) -> None:
    assert arithmetic(job(resources__gpu_type=gpu), GPU) == name
    assert arithmetic(job(resources__gpu_type=gpu), CPU) == "float32"


def test_full_fine_tuning_takes_16_bytes_a_parameter_on_one_rank() -> None:
    found = estimate(job("full"), BILLION, GPU, None)
    states = sum(part(found, name).low for name in ("weights", "gradients", "optimizer states"))
    assert states == 16 * BILLION.base


@pytest.mark.parametrize(("stage", "bytes_each"), [(1, 2 + 2 + (8 + 4) / 4), (2, 2 + (2 + 8 + 4) / 4), (3, 16 / 4)])
def test_zero_divides_states_as_the_paper_says(stage: int, bytes_each: float) -> None:
    asked = job("full", training__zero=stage, resources__gpus_per_node=4)
    found = estimate(asked, BILLION, GPU, None)
    names = ("weights", "gradients", "optimizer states", "float32 weights")
    assert sum(part(found, name).low for name in names) == pytest.approx(bytes_each * BILLION.base)


def test_four_bits_and_their_constants_take_what_qlora_says() -> None:
    found = estimate(job("qlora"), BILLION, GPU, None)
    # 0.127 bits a parameter for the constants, and float32 for what is not quantised (PEFT prepares it so).
    constants = part(found, "quantisation constants").low
    assert 8 * constants / BILLION.linear == pytest.approx(0.127, abs=0.001)
    assert part(found, "weights").low == BILLION.linear / 2 + 4 * BILLION.rest


def test_an_adapter_leaves_no_states_of_the_base() -> None:
    found = estimate(job("lora"), BILLION, GPU, None)
    assert part(found, "weights").low == 2 * BILLION.base
    assert part(found, "optimizer states").low == 8 * BILLION.adapter
    eight = estimate(job("lora", training__optim="adamw_8bit"), BILLION, GPU, None)
    assert part(eight, "optimizer states").low == 2 * BILLION.adapter


def test_offload_moves_states_to_the_host() -> None:
    asked = job("full", training__offload="optimizer", training__zero=2, resources__gpus_per_node=4)
    found = estimate(asked, BILLION, GPU, None)
    assert not part(found, "optimizer states").high
    moved = next(p for p in host(asked, BILLION, found, GPU) if p.name == "offloaded optimizer")
    assert moved.low == (4 + 8 + 4) * BILLION.base


weights = st.builds(
    lambda linear, rest, adapter: Weights(linear, linear // 2000 + 1, rest, 0, adapter, linear // 20, linear // 20),
    st.integers(10**6, 10**11),
    st.integers(10**5, 10**9),
    st.integers(1, 10**6),
)


@given(w=weights, variant=st.sampled_from(["full", "lora", "qlora", "lora-int8"]), stage=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_a_higher_stage_never_needs_more_states(w: Weights, variant: str, stage: int) -> None:
    names = ("weights", "gradients", "optimizer states", "adapter")
    found = [
        estimate(job(variant, training__zero=s, resources__gpus_per_node=8), w, GPU, None) for s in (stage, stage + 1)
    ]
    low, high = (sum(part(f, name).low for name in names) for f in found)
    assert high <= low + 1


@given(
    w=weights, more=st.integers(1, 10**10), variant=st.sampled_from(["full", "lora", "qlora"]), ranks=st.integers(1, 8)
)
@settings(max_examples=60, deadline=None)
def test_more_parameters_never_need_less(w: Weights, more: int, variant: str, ranks: int) -> None:
    asked = job(variant, resources__gpus_per_node=ranks)
    larger = Weights(w.linear + more, w.rows, w.rest, w.head, w.adapter, w.largest, w.largest_linear)
    for target in (GPU, CPU):
        one, two = estimate(asked, w, target, None), estimate(asked, larger, target, None)
        assert two.low >= one.low
        assert one.low <= one.high
    assert checkpoint_bytes(asked, larger, GPU) >= checkpoint_bytes(asked, w, GPU)
    assert disk_bytes(asked, w, GPU) > 3 * checkpoint_bytes(asked, w, GPU)


def shape(rows: int = 2, length: int = 64, **values: Any) -> Shape:
    asked = job(
        values.pop("variant", "full"),
        training__per_device_train_batch_size=rows,
        data__max_length=length,
        **values,
    )
    return step_shape(asked, CPU)


def test_activations_grow_with_rows_and_length_and_shrink_by_checkpointing() -> None:
    small = config("llama", hidden_size=64, intermediate_size=192, num_hidden_layers=4)
    one = held(small, None, shape()).activations
    assert held(small, None, shape(rows=4)).activations == pytest.approx(2 * one, rel=0.2)
    assert held(small, None, shape(length=256)).activations > 3.5 * one
    again = held(small, None, shape(rows=16, training__gradient_checkpointing=True)).activations
    assert again < 0.7 * held(small, None, shape(rows=16)).activations


def test_the_twin_counts_what_a_real_step_holds() -> None:
    """The peak of a step that PyTorch's own profiler of allocations sees, on real tensors."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers import AutoModelForCausalLM

    small = config("llama", hidden_size=128, intermediate_size=384, num_hidden_layers=3)
    told = held(small, None, shape(rows=4, length=128))
    model = AutoModelForCausalLM.from_config(small, attn_implementation="sdpa").train()
    model.config.use_cache = False
    ids = torch.zeros((4, 128), dtype=torch.long)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
    changes = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        now += change.nbytes()
        peak = max(peak, now)
    # Above it, since some backward kernels are counted with the parts that they are described by.
    assert told.with_gradients == pytest.approx(peak, rel=0.10)
    assert told.with_gradients >= peak


def test_a_deep_model_is_counted_by_two_shallow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = config("llama", num_hidden_layers=14)
    asked = shape(training__gradient_checkpointing=True)
    found = held(deep, None, asked)
    monkeypatch.setattr("hpcft.measure.activations._SHALLOW", (6, 14))
    assert held(deep, None, asked).activations == pytest.approx(found.activations, rel=0.01)


@pytest.mark.parametrize("variant", [name for name, variant in VARIANTS.items() if variant.adapter])
def test_parameters_are_counted_from_names_and_shapes_as_from_the_model(variant: str) -> None:
    from peft import get_peft_model

    from hpcft.models.adapter import adapter_config
    from hpcft.models.counts import count_parameters

    for family in ("llama", "gpt2", "phi3", "gemma2"):
        if (variant, family) == ("bitfit", "gpt2"):
            continue
        asked = job(variant, lora__target_module_group="both", lora__r=4, peft__drop_layers=1, peft__reduction=3)
        kind = config(family)
        model = twin(kind)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        found = count(shapes, kind.to_dict(), asked)
        whole = count_parameters(get_peft_model(model, adapter_config(asked, kind)))
        assert (found.base + found.adapter, found.adapter) == (whole.total, whole.trainable), family


def test_a_verdict_is_told_from_the_range() -> None:
    assert verdict(1, 2, 3) == "fits"
    assert verdict(1, 4, 3) == "tight"
    assert verdict(4, 5, 3) == "does not fit"
    assert verdict(4, 5, None) == "unknown"
    assert worst(["fits", "unknown", "tight"]) == "tight"


def test_the_cheapest_change_comes_first_and_keeps_the_effective_batch() -> None:
    asked = job("full", training__per_device_train_batch_size=8, resources__gpus_per_node=2, training__zero=2)
    assert cheapest(asked, lambda j: j.training.gradient_checkpointing) == {"training.gradient_checkpointing": True}
    smaller = cheapest(asked, lambda j: j.training.per_device_train_batch_size <= 2)
    assert smaller is not None
    assert smaller["training.per_device_train_batch_size"] == 2
    assert smaller["training.gradient_accumulation_steps"] == 16
    assert cheapest(asked, lambda j: j.zero_stage == 3) == {"training.zero": 3}
    assert cheapest(asked, lambda j: j.variant == "qlora") == {"variant": "qlora"}
    assert cheapest(asked, lambda j: j.training.offload == "all") == {"training.offload": "all", "training.zero": 3}
    assert cheapest(asked, lambda j: False) is None


def test_changes_are_put_together_and_what_is_not_needed_is_left_out() -> None:
    asked = job("full", training__per_device_train_batch_size=8)
    both = cheapest(asked, lambda j: j.variant == "qlora" and j.training.gradient_checkpointing)
    assert both == {"training.gradient_checkpointing": True, "variant": "qlora"}


@given(
    rows=st.sampled_from([1, 2, 3, 4, 6, 8]),
    ranks=st.integers(1, 4),
    variant=st.sampled_from(["full", "lora", "qlora"]),
    limit=st.floats(0.5, 64),
)
@settings(max_examples=60, deadline=None)
def test_every_advice_is_a_job_that_can_be_submitted(rows: int, ranks: int, variant: str, limit: float) -> None:
    asked = job(variant, training__per_device_train_batch_size=rows, resources__gpus_per_node=ranks)
    change = cheapest(asked, lambda j: estimate(j, BILLION, GPU, None).low <= limit * GB)
    if change is not None:
        other = changed(asked, change)
        assert other is not None
        assert not faults(other)
        batch = [
            j.training.per_device_train_batch_size * j.training.gradient_accumulation_steps for j in (asked, other)
        ]
        assert batch[0] == batch[1]
        assert estimate(other, BILLION, GPU, None).low <= limit * GB


def test_a_calibrated_range_follows_the_measured_peaks() -> None:
    found = Estimate("step", (Part("weights", 8 * GB, 10 * GB, ""), Part("CUDA context", GB, GB, "")), ("weights",))
    low, high = Calibration(1.1, 1.0, 1.2, ("a", "b")).applied(found, "cuda")
    assert low / GB == pytest.approx(1.0 * 0.97 * 9 + 1)
    assert high / GB == pytest.approx(1.2 * 1.03 * 9 + 1)

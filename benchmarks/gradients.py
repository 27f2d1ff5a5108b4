"""What it costs to measure the gradients' norms, as a share of an optimizer step.

    .venv/bin/python benchmarks/gradients.py [--device cpu] [--hidden 256] [--layers 4] [--variant lora] [--rounds 60]

One process, one model: the step (forward and backward of four micro-batches of 4 x 128 tokens, clipping, AdamW) is
timed, and between steps, on the same gradients and taking turns, three ways of ending it: clipping and the read of the
counters as without measuring; the same with the norms of all groups and layers in them; and for comparison a norm
read for each weight. The median of the paired differences is held against 0.1 % and 0.5 % of the step.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hpcft.models.adapter import with_adapter
from hpcft.spec.job import Job
from hpcft.train.gradients import GradientNorms, clip

SEED, BATCH, LENGTH, MICRO_BATCHES, WARM_UP = 0, 4, 128, 4, 5
GOALS = (0.001, 0.005)


def timed(act: Callable[[], Any], device: torch.device) -> float:
    """Seconds that something takes, with all that it leaves the device to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--variant", choices=("lora", "full"), default="lora")
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    torch.manual_seed(SEED)
    device = torch.device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    shape: dict[str, Any] = {"hidden_size": given.hidden, "intermediate_size": 3 * given.hidden, "vocab_size": 8192}
    config = LlamaConfig(**shape, num_hidden_layers=given.layers, num_attention_heads=8, num_key_value_heads=8)
    job = Job.model_validate({"variant": given.variant, "lora": {"target_module_group": "both", "lora_dropout": 0}})
    model: Any = with_adapter(LlamaForCausalLM(config), job, classifier=False).to(device)
    model.train()
    norms = GradientNorms(model, "llama")
    weights = norms.parameters
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    ids = torch.randint(0, 8192, (BATCH, LENGTH), device=device)
    counts = torch.ones(4, dtype=torch.float64, device=device)

    def gradient() -> None:
        optimizer.zero_grad()
        for _ in range(MICRO_BATCHES):
            (model(input_ids=ids, labels=ids, use_cache=False).loss / MICRO_BATCHES).backward()

    # Far above the gradient's norm: the clipping is computed, and the next one meets the same gradient.
    def without() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1e6)
        counts.tolist()

    def measured() -> None:
        clip(norms, 1e6)
        squares = norms.take()
        assert squares is not None
        norms.norms(torch.cat([counts, squares]).tolist()[4:])

    def each_by_itself() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1e6)
        counts.tolist()
        for weight in weights:
            assert weight.grad is not None
            weight.grad.norm().item()

    steps, ends = list[float](), {end: list[float]() for end in (without, measured, each_by_itself)}
    for turn in range(WARM_UP + given.rounds):
        step = timed(gradient, device)
        order = list(ends)[turn % 3 :] + list(ends)[: turn % 3]
        taken = {end: timed(end, device) for end in order}
        step += taken[without] + timed(optimizer.step, device)
        if turn >= WARM_UP:
            steps.append(step)
            for end, seconds in taken.items():
                ends[end].append(seconds)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, one thread"
    print(f"{name}, {', '.join(f'{n} {version(n)}' for n in ('torch', 'transformers', 'peft'))}, seed {SEED}")
    trained = sum(p.numel() for p in weights)
    print(f"Llama {given.layers} x {given.hidden}, {given.variant}, {len(weights)} weights of {trained:,} numbers")
    whole = statistics.median(steps)
    print(f"step {whole * 1e3:.2f} ms, its end without measuring {statistics.median(ends[without]) * 1e3:.3f} ms")
    for end, words in ((measured, "groups and layers"), (each_by_itself, "a read for each weight")):
        more = statistics.median(b - a for a, b in zip(ends[without], ends[end], strict=True))
        reached = [f"{goal:.1%}" for goal in GOALS if more / whole <= goal]
        held = f"within {reached[0]}" if reached else "within neither"
        print(f"{words}: {more * 1e6:+.0f} µs, {more / whole:+.3%} of the step; {held}")


if __name__ == "__main__":
    main()

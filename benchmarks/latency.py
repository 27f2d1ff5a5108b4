"""Is the latency that `hpcft bench` reports the one that a stop-watch shows? Side by side, in one process.

    .venv/bin/python benchmarks/latency.py [--model FOLDER] [--queries 10] [--rounds 7]

Three arms answer the same prompts with the same number of tokens: `hpcft.measure.latency.answer`, a loop timed by
hand, and the same loop again (A/A). Each round shuffles their order; the ratio of a round's medians is one sample.
The answer is inconclusive when the A/A noise is more than half of the margin.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from importlib.metadata import version
from typing import Any

import torch

from hpcft.data.collate import pad_left
from hpcft.measure.latency import answer
from hpcft.models.open import open_model, open_tokenizer
from hpcft.spec.job import Job

SEED = 0
NEW_TOKENS = 32
PROMPT_TOKENS = 128
MARGIN = 0.02


def by_hand(model: Any, tokenizer: Any, prompt: list[int]) -> float:
    """Milliseconds of one call, as anybody would time it."""
    batch = pad_left([prompt], tokenizer.pad_token_id)
    start = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            **batch,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return 1000 * (time.perf_counter() - start)


def ours(model: Any, tokenizer: Any, prompt: list[int]) -> float:
    """Milliseconds of one call, as `hpcft bench` measures it."""
    return answer(model, tokenizer, [prompt], max_new_tokens=NEW_TOKENS, exactly=True, cache="dynamic").latency_ms


def verdict(ratios: list[float], control: list[float]) -> str:
    """What the ratios say, given those of the same arm with itself."""
    noise = statistics.median(abs(ratio - 1) for ratio in control)
    off = abs(statistics.median(ratios) - 1)
    if noise > MARGIN / 2:
        return f"inconclusive: the same loop differs from itself by {noise:.1%}"
    return f"{'within' if off <= MARGIN else 'NOT within'} {MARGIN:.0%}: off by {off:.1%}, A/A noise {noise:.1%}"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    job = Job.model_validate({"kind": "bench", "model": {"name": given.model}, "resources": {"accelerator": "cpu"}})
    model, tokenizer = open_model(job, torch.device("cpu")), open_tokenizer(job)
    rng = random.Random(SEED)
    special = set(tokenizer.all_special_ids)
    ids = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
    prompts = [[rng.choice(ids) for _ in range(PROMPT_TOKENS)] for _ in range(given.queries)]
    arms = {"ours": ours, "hand": by_hand, "hand again": by_hand}
    for arm in arms.values():
        for prompt in prompts[:3]:
            arm(model, tokenizer, prompt)
    medians: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.rounds):
        taken: dict[str, list[float]] = {name: [] for name in arms}
        # One prompt at a time through all arms, so that a noisy moment meets all of them.
        for prompt in prompts:
            order = list(arms)
            rng.shuffle(order)
            for name in order:
                taken[name].append(arms[name](model, tokenizer, prompt))
        for name, values in taken.items():
            medians[name].append(statistics.median(values))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {versions}, one thread, seed {SEED}")
    shape = f"{given.queries} prompts of {PROMPT_TOKENS} tokens, {NEW_TOKENS} new ones"
    print(f"{given.model}: {shape}, {given.rounds} rounds")
    for name, values in medians.items():
        print(f"{name:<11} {statistics.median(values):8.2f} ms")
    ratios = [a / b for a, b in zip(medians["ours"], medians["hand"], strict=True)]
    control = [a / b for a, b in zip(medians["hand again"], medians["hand"], strict=True)]
    print(f"ours / hand {statistics.median(ratios):.4f}, hand / hand {statistics.median(control):.4f}")
    print(verdict(ratios, control))


if __name__ == "__main__":
    main()

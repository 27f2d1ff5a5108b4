"""What does a shown sample of a distillation cost? Processor time and memory, part by part, on the CPU.

    .venv/bin/python benchmarks/display.py [--tokens 100 200] [--vocab 32000] [--rounds 35]

Teacher and student say different tokens at a third of the places, drawn anew each round; their logits are bfloat16, and
the tokenizer is the quickstart model's. The parts are measured by themselves: the row's logits as float32, the
divergence of the two distributions, the likeliest tokens as texts, the similarity of these, their difference. `sample`
is all that the display does after the first two, with the difference shown; `python` is the most that it holds then.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hpcft.display import judge
from hpcft.display.tally import Sample
from hpcft.models.quickstart import build_model
from hpcft.spec.distill import DistillSection
from hpcft.train.distill import Sample as Compared
from hpcft.train.distill_losses import response
from hpcft.train.show import Show

SEED = 0
MIB = 1024**2


class Silent:
    """An outlet that drops everything."""

    encoding = "utf-8"

    def shown(self) -> Iterable[Sample]:
        """Nothing."""
        return ()

    def say(self, words: str) -> None:
        """Drop it."""

    def sample(self, sample: Sample, step: int, words: str) -> None:
        """Drop it."""


def logits(tokens: list[int], vocab: int) -> torch.Tensor:
    """Of which these tokens are the likeliest."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), vocab).to(torch.bfloat16)


def seconds(act: Callable[[], Any]) -> float:
    """Of this process alone, so that a busy neighbour weighs less."""
    began = time.process_time()
    act()
    return time.process_time() - began


def measure(tokenizer: Any, tokens: int, vocab: int, rounds: int) -> dict[str, float]:
    """Medians: parts in ms, memory in MiB."""
    rng = random.Random(SEED)
    show = Show(DistillSection(max_text_length=tokens, show_diff=True), tokenizer, Silent())
    show.begin_epoch(1, 1, rounds)
    taken: dict[str, list[float]] = {}

    def keep(name: str, value: float) -> None:
        taken.setdefault(name, []).append(value)

    for number in range(rounds + 3):
        told = [rng.randrange(3, len(tokenizer)) for _ in range(tokens)]
        said = [rng.randrange(3, len(tokenizer)) if rng.random() < 1 / 3 else token for token in told]
        made = [logits(said, vocab), logits(told, vocab)]
        began = time.process_time()
        rows = [each.float() for each in made]
        copied = time.process_time() - began
        texts = [tokenizer.decode(each, skip_special_tokens=True) for each in (said, told)]
        given = Compared(1, number, rounds, number, torch.tensor(told), *rows, loss=1.0, kl=1.0)
        if number < 3:
            show.sample(given)
            continue
        keep("copies, ms", 1000 * copied)
        keep("divergence, ms", 1000 * seconds(lambda: response(*rows, None, 4.0, kl_weight=0.0, ce_weight=0.0)))  # noqa: B023
        keep("likeliest and text, ms", 1000 * seconds(lambda: [show._text(row) for row in rows]))  # noqa: B023
        keep("similarity, ms", 1000 * seconds(lambda: judge.similarity(*texts)))  # noqa: B023
        keep("difference, ms", 1000 * seconds(lambda: judge.difference(*texts)))  # noqa: B023
        keep("sample, ms", 1000 * seconds(lambda: show.sample(given)))  # noqa: B023
        tracemalloc.start()
        show.sample(given)
        keep("copies, MiB", sum(row.nbytes for row in rows) / MIB)
        keep("python, MiB", tracemalloc.get_traced_memory()[1] / MIB)
        tracemalloc.stop()
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measure, and print."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--rounds", type=int, default=35)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        build_model(Path(folder), steps=0)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {versions}, one thread, seed {SEED}; {given.vocab} tokens, {given.rounds} rounds")
    for tokens in given.tokens:
        found = measure(tokenizer, tokens, given.vocab, given.rounds)
        print(f"{tokens} tokens: " + "; ".join(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()

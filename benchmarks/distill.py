"""What does a step of distillation cost? Side by side, in one process.

    .venv/bin/python benchmarks/distill.py [--hidden 256] [--layers 8] [--vocab 4096] [--rows 8] [--rounds 15]

Four arms do an optimizer step with the same rows, laid end to end: the teacher's forward and the student's own step as
anybody would write them, ours, ours with the teacher's likeliest tokens as they were kept on disk, and the first one
again (A/A). The student has half of the teacher's layers. Each round shuffles their order; the ratio of a round's times
is one sample. An answer is inconclusive when the A/A noise is more than half of its margin.
"""

from __future__ import annotations

import argparse
import copy
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hpcft.data.collate import FlatCollator
from hpcft.spec.distill import DistillSection
from hpcft.train.distill import Distiller
from hpcft.train.lessons import LessonCollator, Lessons, learn

SEED = 0
TOP_K = 64
# Of a step with the teacher, and of one without it, by the reference.
BARS = {"ours": 1.05, "kept": 0.80}


def llama(given: argparse.Namespace, layers: int) -> Any:
    """A model of random weights: what it says costs the same."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=given.vocab,
            hidden_size=given.hidden,
            intermediate_size=3 * given.hidden,
            num_hidden_layers=layers,
            num_attention_heads=given.hidden // 32,
            num_key_value_heads=given.hidden // 64,
            use_cache=False,
        )
    ).to(given.device)


def made_rows(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of about the shape of E2E's: a third prompt, the rest answer."""
    rng = random.Random(SEED)
    rows = []
    for _ in range(given.rows):
        length = rng.randint(given.length // 2, given.length)
        ids = [rng.randrange(3, given.vocab) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :]})
    return [{**row, "number": n} for n, row in enumerate(rows)]


class Arm:
    """A student of its own, and how it is trained."""

    def __init__(self, student: Any, loss: Callable[[Any], torch.Tensor]) -> None:
        self.student = copy.deepcopy(student).train()
        self.loss = loss
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4, fused=True)

    def step(self) -> float:
        """Seconds of an optimizer step."""
        device = self.student.device
        began = _clock(device)
        self.loss(self.student).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return _clock(device) - began


def _clock(device: torch.device) -> float:
    """Of a GPU the time when it has done all; of a CPU this process's own, so that a busy neighbour weighs less."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _on(device: Any, batch: Any) -> Any:
    return {k: _on(device, v) if isinstance(v, dict) else v.to(device) for k, v in batch.items()}


def arms(given: argparse.Namespace, folder: Path) -> dict[str, Arm]:
    """The arms, all with the same student, teacher and rows."""
    torch.manual_seed(SEED)
    teacher, student = llama(given, given.layers).eval().requires_grad_(False), llama(given, given.layers // 2)
    rows, plain = made_rows(given), FlatCollator()
    batch = _on(given.device, plain(rows))
    lessons = Lessons(folder, len(rows))
    told = learn(
        lessons, 0, teacher, rows, plain, batch_size=given.rows, top_k=TOP_K, temperature=4.0, device=given.device
    )
    lessons.write(0, *told)

    def apart(model: Any) -> torch.Tensor:
        with torch.no_grad():
            teacher(**{k: v for k, v in batch.items() if k != "labels"})
        loss: torch.Tensor = model(**batch).loss
        return loss

    objective, kept = Distiller(DistillSection(), teacher), Distiller(DistillSection(top_k=TOP_K, cache=True))
    found, of_disk = LessonCollator(plain), LessonCollator(plain, lessons)
    return {
        "apart": Arm(student, apart),
        "ours": Arm(student, lambda model: objective(model, _on(given.device, found(rows)))),
        "kept": Arm(student, lambda model: kept(model, _on(given.device, of_disk(rows)))),
        "apart again": Arm(student, apart),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("hidden", 256),
        ("layers", 8),
        ("vocab", 4096),
        ("rows", 8),
        ("length", 128),
        ("rounds", 15),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        compared = arms(given, Path(folder))
        for arm in compared.values():
            for _ in range(3):
                arm.step()
        taken: dict[str, list[float]] = {name: [] for name in compared}
        for _ in range(given.rounds):
            order = list(compared)
            rng.shuffle(order)
            for name in order:
                taken[name].append(compared[name].step())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {given.device}, {versions}, one thread, seed {SEED}")
    sizes = f"width {given.hidden}, {given.layers} and {given.layers // 2} layers, {given.vocab} tokens"
    print(f"{sizes}; {given.rows} rows of up to {given.length}, {given.rounds} rounds; top {TOP_K} kept")
    control = [a / b for a, b in zip(taken["apart again"], taken["apart"], strict=True)]
    noise = statistics.median(abs(ratio - 1) for ratio in control)
    for name, values in taken.items():
        ratio = statistics.median(a / b for a, b in zip(values, taken["apart"], strict=True))
        print(f"{name:<12} {1000 * statistics.median(values):8.1f} ms  {ratio:.3f}", end="")
        if name not in BARS:
            print()
        elif noise > abs(ratio - BARS[name]) / 2:
            print(f"  inconclusive: the same step differs from itself by {noise:.1%}")
        else:
            print(f"  {'within' if ratio <= BARS[name] else 'NOT within'} {BARS[name]}, A/A noise {noise:.1%}")


if __name__ == "__main__":
    main()

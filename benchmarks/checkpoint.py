"""How long a checkpoint takes that is whole and on the disk, beside a raw write and fsync of as many bytes.

    .venv/bin/python benchmarks/checkpoint.py [--folder FOLDER] [--hidden 512] [--layers 8] [--rounds 7]

One real job of variant full, which saves model, optimizer and all states after each of its steps. At each save three
arms take turns in shuffled order: the save itself with hashes and manifest, until it is renamed into place; one file of
as many bytes, written and brought to the disk; and that again (A/A). A job that is asked to stop finishes its step and
saves, so this ratio is what stands between the signal and the checkpoint beside one step. Inconclusive when the A/A
noise is more than half of the margin.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hpcft.models.quickstart import build_model
from hpcft.runs.create import begin_attempt, make_run_directory
from hpcft.spec.build import build
from hpcft.spec.layers import mapping_layer
from hpcft.train.checkpoint import commit
from hpcft.train.context import Context
from hpcft.train.ranks import Rank
from hpcft.train.recorder import Recorder
from hpcft.train.run import train
from hpcft.train.saving import SavingTrainer
from hpcft.train.stop import StopRequest

SEED, GOALS, WARM_UP = 0, (1.15, 1.3), 1


def raw(path: Path, size: int) -> float:
    """Seconds to write so many bytes and bring them to the disk."""
    block = os.urandom(8 * 1024 * 1024)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def main() -> None:
    """Train, save, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one when absent")
    for name, default in (("hidden", 512), ("layers", 8), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(SEED)
    rows: list[dict[str, float]] = []
    whole, size, kept = SavingTrainer._save_checkpoint, 0, 0.0

    def committed(*arguments: Any) -> Path:
        nonlocal kept
        folder = commit(*arguments)
        kept = time.perf_counter()
        return folder

    def save(self: Any, *arguments: Any) -> None:
        nonlocal size
        # The first save tells how many bytes it has.
        order = ["ours"] if not size else draw.sample(["ours", "raw", "raw again"], 3)
        taken = {}
        for arm in order:
            if arm == "ours":
                began = time.perf_counter()
                whole(self, *arguments)
                taken[arm], size = kept - began, self._bytes
            else:
                taken[arm] = raw(place / "raw", size)
        if len(order) == 3:
            rows.append(taken)

    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        place = Path(name)
        build_model(place / "tokens", steps=0, hidden=64, layers=2, vocab=512)
        tokenizer = AutoTokenizer.from_pretrained(place / "tokens")
        config = LlamaConfig(
            hidden_size=given.hidden,
            intermediate_size=3 * given.hidden,
            num_hidden_layers=given.layers,
            num_attention_heads=8,
            num_key_value_heads=8,
            vocab_size=8192,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(place / "model")
        tokenizer.save_pretrained(place / "model")
        values = {
            "variant": "full",
            "model.name": str(place / "model"),
            "data.dataset": "quickstart",
            "data.train_samples": 64,
            "training.max_steps": given.rounds + WARM_UP + 2,
            "training.per_device_train_batch_size": 1,
            "training.gradient_accumulation_steps": 1,
            # After each step.
            "training.save_minutes": 1e-9,
            "evaluation.enabled": False,
            "resources.accelerator": "cpu",
            "tracking.mode": "disabled",
        }
        job = build([mapping_layer({k: str(v) for k, v in values.items()}, "benchmark")]).job
        paths = make_run_directory(place / "results", "saves", "saves")
        paths.config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
        attempt = begin_attempt(paths)
        recorder = Recorder(paths, attempt, job.tracking.log_every)
        try:
            with patch.object(SavingTrainer, "_save_checkpoint", save), patch("hpcft.train.saving.commit", committed):
                train(Context(job, paths, Rank(), torch.device("cpu"), attempt, recorder, StopRequest()))
        finally:
            recorder.close()
    rows = rows[WARM_UP:]
    medians = {arm: statistics.median(row[arm] for row in rows) for arm in rows[0]}
    ratio = statistics.median(row["ours"] / row["raw"] for row in rows)
    control = statistics.median(row["raw again"] / row["raw"] for row in rows)
    print(f"{platform.machine()}, {', '.join(f'{n} {version(n)}' for n in ('torch', 'transformers'))}, seed {SEED}")
    print(f"{len(rows)} saves of {size / 1024**2:.0f} MiB")
    for arm in ("ours", "raw", "raw again"):
        print(f"{arm:10} {medians[arm]:.2f} s")
    print(f"ours / raw {ratio:.3f}, raw again / raw {control:.3f}")
    if abs(control - 1) > (GOALS[-1] - 1) / 2:
        print("inconclusive")
    else:
        reached = [str(goal) for goal in GOALS if ratio <= goal]
        print(f"within {reached[0]}" if reached else "within neither goal")


if __name__ == "__main__":
    main()

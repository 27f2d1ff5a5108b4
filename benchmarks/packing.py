"""How full packed windows are, and whether packing changes what is learned.

    .venv/bin/python benchmarks/packing.py FILE… [--windows 512 1024 2048] [--rows 4000]

Each file is a data set (CSV, TSV, JSON or JSON lines), encoded by the quickstart model's tokenizer as a job would do
it. For each window: the share of places that hold a token, packed and padded to the longest row of batches of 8. Then,
on a small random model in float32: the mean loss of the answers' tokens, rows one by one against packed windows; and
how far a row's output moves when the other rows of its window are replaced.
"""

from __future__ import annotations

import argparse
import platform
import random
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.data.collate import Collator, FlatCollator
from hpcft.data.encode import encode
from hpcft.data.packing import pack
from hpcft.data.split import load
from hpcft.models.quickstart import build_model
from hpcft.spec.job import DataSection

SEED, BATCH, WINDOWS = 0, 8, 12


def filled(rows: list[dict[str, Any]], window: int) -> float:
    """Tokens by places, with every row in a window of its own."""
    return sum(len(row["input_ids"]) for row in rows) / (len(rows) * window)


def padded(rows: list[dict[str, Any]]) -> float:
    """Tokens by places, in shuffled batches that are as long as their longest row."""
    lengths = [len(row["input_ids"]) for row in rows]
    random.Random(SEED).shuffle(lengths)
    batches = [lengths[i : i + BATCH] for i in range(0, len(lengths), BATCH)]
    return sum(lengths) / sum(len(batch) * max(batch) for batch in batches)


@torch.no_grad()
def answer_loss(model: Any, batches: list[dict[str, torch.Tensor]]) -> float:
    """Mean loss over all answers' tokens of all batches."""
    total, count = 0.0, 0
    for batch in batches:
        labels = batch.pop("labels")[:, 1:]
        logits = model(**batch, use_cache=False).logits[:, :-1]
        flat = (logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
        total += float(torch.nn.functional.cross_entropy(*flat, ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


@torch.no_grad()
def leak(model: Any, window: dict[str, Any], vocabulary: int) -> float:
    """How far the output of a window's last row moves when all rows before it are replaced."""
    begin = max(i for i, position in enumerate(window["position_ids"]) if position == 0)
    rng = random.Random(SEED)
    others = [rng.randrange(vocabulary) for _ in range(begin)]
    positions = torch.tensor([window["position_ids"]])
    outputs = []
    for ids in (window["input_ids"], others + window["input_ids"][begin:]):
        outputs.append(model(input_ids=torch.tensor([ids]), position_ids=positions, use_cache=False).logits[0, begin:])
    return float((outputs[0] - outputs[1]).abs().max())


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--windows", nargs="+", type=int, default=[512, 1024, 2048])
    parser.add_argument("--rows", type=int, default=4000)
    given = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {version('torch')}, transformers {version('transformers')}, seed {SEED}")
    with tempfile.TemporaryDirectory() as folder:
        build_model(Path(folder), steps=0, hidden=64, layers=2, vocab=1024)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        for file in given.files:
            section = DataSection(dataset=str(file), train_samples=given.rows, eval_samples=1)
            data = load(section, SEED)
            for window in given.windows:
                rows = encode(data.train, tokenizer, data.prompt, window).rows
                windows = pack(rows, window)
                few = windows[:: max(1, len(windows) // WINDOWS)][:WINDOWS]
                pieces = [row for packed in few for row in split(packed)]
                losses = [
                    answer_loss(model, [FlatCollator()([packed]) for packed in few]),
                    answer_loss(model, [Collator(tokenizer.pad_token_id)([row]) for row in pieces]),
                ]
                several = [w for w in few if w["position_ids"].count(0) > 1]
                moved = max((leak(model, w, len(tokenizer)) for w in several), default=0.0)
                print(
                    f"{file.name}, {len(rows)} rows, windows of {window}: {filled(windows, window):.5f} filled "
                    f"(padded {padded(rows):.3f}); loss {losses[0]:.6f} packed, {losses[1]:.6f} row by row, difference "
                    f"{abs(losses[0] - losses[1]):.1e}; outputs move by {moved:.1e} with the other rows"
                )


def split(window: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a packed window."""
    begins = [i for i, position in enumerate(window["position_ids"]) if position == 0]
    ends = [*begins[1:], len(window["input_ids"])]
    return [{k: window[k][a:b] for k in ("input_ids", "labels")} for a, b in zip(begins, ends, strict=True)]


if __name__ == "__main__":
    main()

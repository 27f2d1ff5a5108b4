"""Defects of the labs before ours: a filter for the wrong class, and arguments that the libraries no longer take."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import torch
from support.notebook import code_cells
from transformers import AutoTokenizer

from hpcft.data.encode import encode_labels
from hpcft.data.split import load
from hpcft.spec.job import DataSection, Job
from hpcft.spec.labs import LABS
from hpcft.train.arguments import training_arguments

ROOT = Path(__file__).parent.parent.parent
WORDS = {"great": "positive", "dull": "negative"}


def test_ta9_classes_are_told_by_their_names_and_no_lab_filters_by_a_number(tiny_model: Path, tmp_path: Path) -> None:
    for notebook in (ROOT / "labs").glob("*/*.ipynb"):
        assert not any(re.search(r"label.{0,4}==|\.filter\(", cell) for cell in code_cells(notebook))
    told = [{"text": f"{word} film {n}", "label": name} for n in range(20) for word, name in WORDS.items()]
    table = tmp_path / "reviews.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in told))
    job = Job(data=DataSection(dataset=str(table), train_samples=0))
    data = load(job.data, 0)
    assert data.labels == ["negative", "positive"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = encode_labels(data.train, tokenizer, data.labels, 128).rows
    for pair, row in zip(data.train, rows, strict=True):
        assert data.labels[row["labels"]] == pair.target == WORDS[pair.source.split()[0]]


def test_ta9_the_trainer_s_arguments_are_those_of_the_installed_library(tmp_path: Path) -> None:
    for lab in LABS.values():
        for notebook in (ROOT / "labs" / lab.folder).glob("*.ipynb"):
            cells = "\n".join(code_cells(notebook))
            assert "evaluation_strategy" not in cells
            assert "Trainer(" not in cells
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        # Taken by its old name until version 6.
        warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
        made = training_arguments(Job(), tmp_path, torch.device("cpu"), resumed=False)
    assert made.eval_strategy == "epoch"

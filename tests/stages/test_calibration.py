"""The rows that GPTQ sees: of the training data, drawn with the seed, never of what the model is checked with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny_models import tokenizer

from hpcft.data.split import load
from hpcft.errors import ConfigError
from hpcft.spec.job import Job
from hpcft.stages.calibration import calibration_rows, training_data


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    path.write_text("source,target\n" + "".join(f"question {i},answer {i}\n" for i in range(50)))
    return path


def job(table: Path, *, samples: int = 16, seed: int = 42, of: Path | None = None, **data: Any) -> Job:
    return Job.model_validate(
        {
            "kind": "quantize",
            "of": None if of is None else str(of),
            "data": {"dataset": str(table), **data},
            "training": {"seed": seed},
            "quantize": {"method": "gptq-int4", "calibration_samples": samples},
        }
    )


def drawn(asked: Job) -> tuple[list[str], dict[str, Any]]:
    """The texts of the drawn rows, and what is told of them."""
    words = tokenizer("llama")
    rows, told = calibration_rows(asked, words, load(asked.data, asked.training.seed, training=False))
    assert {len(row) for row in rows} == {1}
    return [words.decode(row["input_ids"]) for row in rows], told


def test_none_of_them_is_validated_with(table: Path) -> None:
    asked = job(table, samples=1000)
    texts, told = drawn(asked)
    held_out = load(asked.data, 42).validation_pairs
    assert held_out
    assert not [p for p in held_out if any(f"{p.source}\n" in text for text in texts)]
    assert told["rows"] == len(texts) == 40
    assert told["data"] == str(table)


def test_they_are_drawn_with_the_seed(table: Path) -> None:
    assert drawn(job(table))[0] == drawn(job(table))[0]
    assert drawn(job(table))[0] != drawn(job(table, seed=1))[0]
    assert len(drawn(job(table))[0]) == 16


def test_they_end_as_in_training_and_are_cut_to_its_length(table: Path) -> None:
    texts, told = drawn(job(table, max_length=64))
    assert all(text.endswith("</s>") for text in texts)
    assert told["tokens"] <= 16 * 64


def test_an_own_validation_set_leaves_its_inputs_out(table: Path) -> None:
    texts, _ = drawn(job(table, samples=1000, validation=str(shorter(table, 30)), eval_samples=0))
    assert len(texts) == 20


def shorter(table: Path, rows: int) -> Path:
    path = table.with_name(f"first{rows}.csv")
    path.write_text("".join(table.read_text().splitlines(keepends=True)[: rows + 1]))
    return path


def test_a_stream_gives_them_too(table: Path) -> None:
    texts, _ = drawn(job(table, streaming=True, validation=str(shorter(table, 30)), eval_samples=0))
    assert len(texts) == 16


def test_a_set_that_is_asked_whole_is_not_calibrated_with(table: Path, tmp_path: Path) -> None:
    """What `--dataset` names is for checking; the rows are then those that the model was trained on."""
    trained, merged = tmp_path / "trained", tmp_path / "merged"
    other = shorter(table, 10)
    configs = {
        trained: {"kind": "train", "data": {"dataset": str(table)}, "training": {"seed": 7}},
        merged: {"kind": "merge", "of": str(trained), "data": {"dataset": str(other)}},
    }
    for folder, config in configs.items():
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    asked = job(other, validation=str(other), of=merged)
    section, seed = training_data(asked)
    assert (section.dataset, seed) == (str(table), 7)
    asked_whole = {f"question {i}\n" for i in range(10)}
    assert not [text for text in drawn(asked)[0] if any(question in text for question in asked_whole)]


def test_without_training_rows_both_sets_have_to_be_named(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"--dataset TRAINING --set data\.validation=VALIDATION"):
        training_data(job(table, validation=str(table)))
    whole = job(table, validation=str(shorter(table, 50)), eval_samples=0)
    with pytest.raises(ConfigError, match="no training row that is not validated with"):
        drawn(whole)


def test_a_classifiers_rows_are_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))
    asked = job(path, task="classification")
    words = tokenizer("bert")
    rows, told = calibration_rows(asked, words, load(asked.data, 42, training=False))
    assert told["rows"] == 16
    assert {tuple(row) for row in rows} == {("input_ids", "token_type_ids")}

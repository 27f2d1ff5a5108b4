"""Names that wandb is given."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.spec.variants import VARIANTS
from hpcft.tracking.names import artifact_name, canonical, run_name


@pytest.mark.parametrize("label", [variant.label for variant in VARIANTS.values()])
def test_te12_every_variants_label_makes_a_name_that_wandb_takes(label: str) -> None:
    assert re.fullmatch(r"model-[A-Za-z0-9._-]+", artifact_name(label))


def test_te12_the_two_labels_that_wandb_refused() -> None:
    assert artifact_name("Full LoRA") == "model-full-lora"
    assert artifact_name("LoRA+PTQ") == "model-lora-ptq"


@given(st.text(max_size=200))
def test_te12_any_text_makes_a_name_that_wandb_takes(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", artifact_name(text))


def test_labels_of_different_variants_make_different_names() -> None:
    assert len({artifact_name(variant.label) for variant in VARIANTS.values()}) == len(VARIANTS)


def test_e6_te7_a_runs_name_has_variant_dataset_and_id_and_no_clock() -> None:
    assert run_name("QLoRA", "LongRefiner_Combined", "k3f9") == "QLoRA_LongRefiner_Combined_run_k3f9"
    assert run_name("QLoRA", "data/pairs.csv", "k3f9") == run_name("QLoRA", "data/pairs.csv", "k3f9")


def test_other_names_of_a_figure_become_part_es_keys() -> None:
    trainers = {"loss": 1.0, "eval_loss": 2.0, "eval_accuracy": 0.5, "train_runtime": 9.0, "tokens_per_sec": 7.0}
    assert canonical(trainers) == {
        "train/loss": 1.0,
        "validation/loss": 2.0,
        "validation/accuracy": 0.5,
        "train/runtime_s": 9.0,
        "train/throughput_tokens_per_sec": 7.0,
    }


def test_a_figure_that_does_not_exist_stays_absent_and_an_unknown_one_keeps_its_name() -> None:
    assert canonical({}) == {}
    assert canonical({"epoch": 1.0, "train/loss": 3.0}) == {"epoch": 1.0, "train/loss": 3.0}

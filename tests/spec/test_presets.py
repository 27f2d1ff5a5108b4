"""Every preset that comes with the tool is a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.runs.create import make_run_directory
from hpcft.spec import assets
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer

NAMES = assets.names("jobs")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_builds_and_says_what_it_is(name: str) -> None:
    path = assets.packaged_folder("jobs") / f"{name}.yaml"
    build([yaml_layer(path)])
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("preset", "folder"),
    [
        ("e2e_attention", "e2e_attention_only"),
        ("e2e_mlp", "e2e_mlp_only"),
        ("samsum_attention", "samsum_attention_only"),
        ("samsum_mlp", "samsum_mlp_only"),
    ],
)
def test_b45_the_results_of_a_preset_stand_under_its_set_and_group(tmp_path: Path, preset: str, folder: str) -> None:
    job = build([yaml_layer(assets.packaged_folder("jobs") / f"{preset}.yaml")]).job
    assert job.results == "results"
    assert make_run_directory(tmp_path, job.name, "unnamed").root == tmp_path / folder


def test_c23_to_c26_the_classifier_s_defaults() -> None:
    job = build([yaml_layer(assets.packaged_folder("jobs") / "sst2_distilbert.yaml")]).job
    assert (job.model.name, job.data.subset, job.data.train_samples) == ("distilbert-base-uncased", "sst2", 500)
    assert (job.lora.r, job.lora.lora_alpha, job.lora.target_modules) == (8, 16, ["q_lin", "v_lin"])
    assert (job.training.learning_rate, job.training.per_device_train_batch_size) == (5e-4, 2)


def test_e5_the_combined_set_s_defaults() -> None:
    job = build([yaml_layer(assets.packaged_folder("jobs") / "longrefiner_qlora.yaml")]).job
    assert (job.variant, job.data.dataset) == ("qlora", "LongRefiner_Combined")
    assert (job.training.num_train_epochs, job.training.learning_rate) == (5, 1e-4)
    assert job.training.per_device_train_batch_size == 8

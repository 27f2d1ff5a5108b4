"""Every preset that comes with the tool is a job."""

from __future__ import annotations

import pytest

from hpcft.spec import assets
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer

NAMES = assets.names("jobs")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_builds_and_says_what_it_is(name: str) -> None:
    path = assets.packaged_folder("jobs") / f"{name}.yaml"
    build([yaml_layer(path)])
    assert path.read_text().startswith("# ")


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

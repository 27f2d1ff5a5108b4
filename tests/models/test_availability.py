"""Whether a model can be had, told before a job is submitted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.tiny_models import build

from hpcft.errors import ConfigError
from hpcft.models.availability import check_architecture, check_model, model_folder, weights_fault
from hpcft.models.load import load_base, load_config
from hpcft.spec.job import Job, ModelSection


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build("llama", tmp_path / "model")


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        check_model(ModelSection(name=str(folder)), internet=False)
    return str(caught.value)


def test_a_whole_folder_is_taken(model: Path) -> None:
    check_model(ModelSection(name=str(model)), internet=False)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5])
def test_weights_that_were_cut_off_are_named(model: Path, kept: float) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if kept == 0.5 else int(kept)])
    assert str(path) in refusal(model)
    job = Job.model_validate({"model": {"name": str(model)}, "resources": {"accelerator": "cpu"}})
    with pytest.raises(ConfigError, match="broken"):
        load_base(job, torch.device("cpu"))


def test_weights_of_another_kind_of_file_are_named(model: Path) -> None:
    (model / "model.safetensors").write_bytes(os.urandom(4096))
    assert "safetensors" in refusal(model)


def test_a_part_of_the_weights_that_is_missing_is_named(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors" in refusal(model)


def test_a_file_without_tensors_is_whole(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    assert weights_fault(tmp_path / "empty.safetensors") is None


def test_a_model_of_text_and_pictures_is_refused_with_what_to_take(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    both = {"model_type": "gemma3", "text_config": {**config, "model_type": "gemma3_text"}, "vision_config": {}}
    (model / "config.json").write_text(json.dumps(both))
    section = ModelSection(name=str(model))
    for refuse in (lambda: check_architecture(section, "generation"), lambda: load_config(section)):
        with pytest.raises(ConfigError, match="more than text"):
            refuse()


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "guild/base"}))
    assert "--model guild/base" in refusal(tmp_path)


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "pickle" in refusal(model)


def test_a_model_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    section = ModelSection(name="guild/tiny")
    assert model_folder(section) is None
    with pytest.raises(ConfigError, match="hpcft fetch --model guild/tiny"):
        check_model(section, internet=False)
    snapshot = _cached(tmp_path / "hub", model)
    assert model_folder(section) == snapshot
    check_model(section, internet=False)


def test_a_model_that_is_in_the_cache_in_part_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (_cached(tmp_path / "hub", model) / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="in the cache in part") as caught:
        check_model(ModelSection(name="guild/tiny"), internet=False)
    assert "hpcft fetch --model guild/tiny" in str(caught.value)


def test_a_revision_that_is_not_in_the_cache_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    _cached(tmp_path / "hub", model)
    with pytest.raises(ConfigError, match="at revision v2"):
        check_model(ModelSection(name="guild/tiny", revision="v2"), internet=False)


def _cached(hub: Path, model: Path) -> Path:
    """Put a model into a hub's cache, as `guild/tiny`."""
    repository = hub / "models--guild--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    return Path(shutil.copytree(model, repository / "snapshots" / "c0ffee"))

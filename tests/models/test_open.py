"""Opening a model to answer with: on one device, or spread over the GPUs of a process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpcft.errors import ConfigError
from hpcft.models import open as opening
from hpcft.models.load import compute_dtype
from hpcft.spec.job import Job


def job(folder: Path) -> Job:
    return Job.model_validate({"kind": "bench", "model": {"name": str(folder)}, "bench": {"device_map": "auto"}})


@pytest.mark.parametrize(("places", "fits"), [([0, 1], True), ([0, "cpu"], False), ([0, "disk"], False)])
def test_what_does_not_fit_on_the_gpus_is_refused_and_not_measured_from_the_hosts_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[Any], fits: bool
) -> None:
    model = SimpleNamespace(hf_device_map=dict(enumerate(places)), config=SimpleNamespace(), eval=lambda: "opened")
    asked: list[bool] = []
    monkeypatch.setattr(opening, "load_base", lambda *_, spread, **__: asked.append(spread) or model)
    if fits:
        assert opening.open_model(job(tmp_path), torch.device("cuda", 0), spread=True) == "opened"
    else:
        with pytest.raises(ConfigError, match="does not fit on the GPUs"):
            opening.open_model(job(tmp_path), torch.device("cuda", 0), spread=True)
    assert asked == [True]


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({}, "none"),
        ({"load_in_8bit": True}, "bnb-int8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bnb-fp4"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "actorder": "static"}}},
            },
            "gptq-int4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "actorder": None}}},
            },
            "compressed-tensors-float8",
        ),
    ],
)
def test_the_label_of_a_quantisation_is_read_from_the_models_files(
    tmp_path: Path, config: dict[str, Any], label: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    assert opening.subject(job(tmp_path)).quantization == label


@pytest.mark.parametrize(("own", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_only_where_the_gpu_does_not_emulate_it(
    monkeypatch: pytest.MonkeyPatch, own: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: own or including_emulation)
    assert compute_dtype(Job(), torch.device("cuda", 0)) == expected

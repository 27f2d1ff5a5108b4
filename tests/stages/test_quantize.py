"""`quantize`: fewer bits, the same answers, no base needed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.worker import Worker
from transformers import AutoModelForCausalLM

from hpcft.errors import HpcftError
from hpcft.models.quantization import post_training_config
from hpcft.runs.run import Run
from hpcft.spec.job import Job
from hpcft.stages.quantize import _accept

METHODS = ["bnb-int8", "bnb-nf4", "bnb-fp4", "torchao-int8"]


def size(run: Run) -> int:
    return sum(f.stat().st_size for f in run.paths.final_model.glob("*.safetensors"))


def report(run: Run) -> dict[str, dict[str, float]]:
    return json.loads((run.paths.root / "quantize.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_it_opens_without_the_base_and_in_its_bits(quantized: dict[str, Run], tmp_path: Path, method: str) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(quantized[method].paths.final_model, alone)
    model = AutoModelForCausalLM.from_pretrained(alone, local_files_only=True, device_map={"": "cpu"})
    kinds = {type(m).__name__ for n, m in model.named_modules() if n.endswith("q_proj")}
    weights = {type(m.weight).__name__ for n, m in model.named_modules() if n.endswith("q_proj")}
    expected = {"bnb-int8": "Linear8bitLt", "bnb-nf4": "Linear4bit", "bnb-fp4": "Linear4bit"}
    assert kinds == {expected[method]} if method in expected else "Int8" in weights.pop()


@pytest.mark.parametrize("method", METHODS)
def test_perplexity_is_checked_on_what_was_saved(quantized: dict[str, Run], method: str) -> None:
    found = report(quantized[method])
    assert 1 < found["after"]["perplexity"] < 1.5 * found["before"]["perplexity"]
    metrics = quantized[method].metrics
    assert metrics["quantize/perplexity_after"] == found["after"]["perplexity"]


def test_te8_weights_on_disk_shrink_as_their_bits_do(quantized: dict[str, Run], merged: dict[str, Run]) -> None:
    """Those of linear layers; the embedding and the head stay as they are."""

    def weights(run: Run) -> int:
        tensors = load_file(run.paths.final_model / "model.safetensors")
        return sum(t.nbytes for n, t in tensors.items() if re.search(r"_proj\.weight(_qdata|:qdata)?$", n))

    whole = weights(merged["lora"])
    assert weights(quantized["bnb-int8"]) * 4 == whole
    assert weights(quantized["bnb-nf4"]) * 8 == whole
    assert weights(quantized["bnb-fp4"]) * 8 == whole
    assert size(quantized["bnb-nf4"]) < size(quantized["bnb-int8"]) < size(merged["lora"])
    assert size(quantized["torchao-int8"]) < size(merged["lora"])


def test_the_label_in_wandb_is_that_of_ptq_with_its_bits(quantized: dict[str, Run]) -> None:
    from hpcft.spec.build import build
    from hpcft.spec.layers import yaml_layer
    from hpcft.tracking.config import wandb_config

    strategies = {"bnb-int8": "int8", "bnb-nf4": "int4"}
    for method, strategy in strategies.items():
        config = wandb_config(build([yaml_layer(quantized[method].paths.config)]).job, 1)
        assert (config["model_variant"], config["quantization_strategy"]) == ("LoRA+PTQ", strategy)


def test_a_quantised_model_is_evaluated_as_it_is(worker: Worker, quantized: dict[str, Run]) -> None:
    run = worker.stage("evaluate", quantized["bnb-nf4"], "evaluated-nf4")
    found = json.loads(run.paths.evaluation.read_text())
    assert found["model"]["quantization"] == "bnb-nf4"
    assert found["perplexity"] == pytest.approx(report(quantized["bnb-nf4"])["after"]["perplexity"], rel=1e-4)


def test_an_adapter_is_sent_to_merge_first(worker: Worker, finished: dict[str, Run]) -> None:
    with pytest.raises(HpcftError, match="merge it first: hpcft merge RUN"):
        worker.stage("quantize", finished["lora"], "adapter-in-bits")


def test_a_quantised_model_is_not_quantised_again(worker: Worker, quantized: dict[str, Run]) -> None:
    with pytest.raises(HpcftError, match=r"is quantised already \(bnb-nf4\)"):
        worker.stage("quantize", quantized["bnb-nf4"], "twice")


@pytest.mark.parametrize(
    ("before", "after"), [({"perplexity": 4.0}, {"perplexity": 7.0}), ({"accuracy": 0.9}, {"accuracy": 0.8})]
)
def test_a_model_that_is_spoilt_does_not_count(before: dict[str, float], after: dict[str, float]) -> None:
    job = Job.model_validate({"kind": "quantize"})
    with pytest.raises(HpcftError, match="too much worse"):
        _accept(job, before, after)
    _accept(job, before, before)


def test_int4_of_torchao_is_refused_on_a_cpu() -> None:
    with pytest.raises(HpcftError, match="needs CUDA"):
        post_training_config("torchao-int4", torch.float32, torch.device("cpu"))


def test_a_calibrated_method_runs_no_code_that_comes_with_a_model() -> None:
    from hpcft.spec.faults import faults

    model = {"name": "org/model", "trust_remote_code": True, "revision": "0" * 40}
    refused = Job.model_validate({"kind": "quantize", "model": model, "quantize": {"method": "gptq-int4"}})
    assert ("quantize.method", "gptq-int4 runs no code that comes with a model; take bnb-nf4 or bnb-int8") in faults(
        refused
    )

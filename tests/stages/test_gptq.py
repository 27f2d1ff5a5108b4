"""GPTQ for real, in the environment that `hpcft tools install gptq` makes.

Minutes and 6 GB the first time; HPCFT_TEST_GPTQ names a folder of tools that are installed already (HPCFT_TOOLS).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_models import build
from support.worker import Worker
from transformers import AutoModelForCausalLM

from hpcft.errors import HpcftError
from hpcft.models.gptq import gptq
from hpcft.runs.run import Run
from hpcft.spec.job import Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

METHODS = ("gptq-int8", "gptq-int4")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment, installed by the command that users type."""
    given = os.environ.get("HPCFT_TEST_GPTQ")
    folder = Path(given) if given else tmp_path_factory.mktemp("tools")
    environment = os.environ | {"HPCFT_TOOLS": str(folder)}
    command = [sys.executable, "-m", "hpcft.cli.main", "tools", "install", "gptq", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 69:
        pytest.skip(f"llmcompressor cannot be installed here: {done.stderr[-500:]}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "installed"
    return folder


@pytest.fixture(autouse=True)
def _use(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCFT_TOOLS", str(tools))


@pytest.fixture(scope="module")
def made(tools: Path, worker: Worker, merged: dict[str, Run]) -> dict[str, Run]:
    """The merged LoRA by GPTQ, in 8 and in 4 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPCFT_TOOLS", str(tools))
        return {m: worker.stage("quantize", merged["lora"], f"in-{m}", quantize={"method": m}) for m in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_it_opens_without_the_base_and_keeps_its_perplexity(made: dict[str, Run], method: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(made[method].paths.final_model, alone)
    AutoModelForCausalLM.from_pretrained(alone, local_files_only=True, device_map={"": "cpu"})
    report = json.loads((made[method].paths.root / "quantize.json").read_text())
    before, after = report["before"]["perplexity"], report["after"]["perplexity"]
    print(f"{method}: perplexity {before:.4f} -> {after:.4f}, {report['size_before_gb']} -> {report['size_gb']} GB")
    assert 1 < after < 1.1 * before
    assert report["calibration"]["rows"] == 48, "all of the training rows, which are fewer than asked for"
    assert report["group_size"] == (None if method == "gptq-int8" else 64)
    assert report["versions"]["llmcompressor"] == "0.14.0.1"


def test_weights_on_disk_shrink_as_their_bits_do(made: dict[str, Run], merged: dict[str, Run]) -> None:
    def weights(run: Run) -> int:
        tensors = load_file(run.paths.final_model / "model.safetensors")
        return sum(t.nbytes for n, t in tensors.items() if re.search(r"_proj\.weight(_packed)?$", n))

    assert weights(made["gptq-int8"]) * 4 == weights(merged["lora"])
    assert weights(made["gptq-int4"]) * 8 == weights(merged["lora"])


def test_later_jobs_take_it_as_it_is(worker: Worker, made: dict[str, Run]) -> None:
    scores = worker.stage("evaluate", made["gptq-int4"], "evaluated-gptq")
    found = json.loads(scores.paths.evaluation.read_text())
    assert found["model"]["quantization"] == "gptq-int4"
    told = json.loads((made["gptq-int4"].paths.root / "quantize.json").read_text())
    assert found["perplexity"] == pytest.approx(told["after"]["perplexity"], rel=1e-4)
    measured = worker.stage("bench", scores, "measured-gptq", bench={"queries": 3, "warmup": 1, "repeats": 2})
    benchmark = json.loads(measured.paths.benchmark.read_text())
    assert benchmark["settings"]["quantization"] == "gptq-int4"
    assert benchmark["flops_second_count_ratio"] == 1
    with pytest.raises(HpcftError, match=r"is quantised already \(gptq-int4\)"):
        worker.stage("quantize", made["gptq-int4"], "gptq-twice", quantize={"method": "bnb-nf4"})
    with pytest.raises(HpcftError, match="no adapter to merge"):
        worker.stage("merge", made["gptq-int4"], "gptq-merged")


def test_a_classifier_is_calibrated_too(worker: Worker, tmp_path: Path) -> None:
    data = tmp_path / "labels.csv"
    data.write_text("text,label\n" + "".join(f"{'good' if i % 2 else 'bad'} food {i},{i % 2}\n" for i in range(80)))
    model = {"name": str(build("distilbert", tmp_path / "model"))}
    trained = worker.finished("classifier-gptq", "full", model=model, data={"dataset": str(data)})
    run = worker.stage("quantize", trained, "classifier-in-gptq", quantize={"method": "gptq-int4"})
    report = json.loads((run.paths.root / "quantize.json").read_text())
    assert report["layers"] == 12
    assert abs(report["after"]["accuracy"] - report["before"]["accuracy"]) < 0.2


def test_a_model_that_it_does_not_know_is_refused_in_words(tmp_path: Path) -> None:
    folder = build("gpt2", tmp_path / "model")
    job = Job.model_validate({"kind": "quantize", "model": {"name": str(folder)}, "quantize": {"method": "gptq-int4"}})
    with pytest.raises(HpcftError, match=r"GPT2LMHeadModel has no linear layers(.|\n)*bnb-nf4"):
        gptq(job, torch.device("cpu"), [{"input_ids": [1, 2, 3]}], tmp_path / "out", lambda: None)

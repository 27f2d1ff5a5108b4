"""`merge`: an adapter and its base become one model that answers as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_models import build
from support.worker import Worker
from transformers import AutoModelForCausalLM

from hpcft.errors import ConfigError, HpcftError
from hpcft.models.merge import check_mergeable, compare, logits_of
from hpcft.models.merge import merged as merge_weights
from hpcft.runs.run import Run


def report(run: Run) -> dict[str, dict[str, float]]:
    return json.loads((run.paths.root / "merge.json").read_text())


def test_a_merged_model_answers_as_the_adapter_did(merged: dict[str, Run]) -> None:
    found = report(merged["lora"])["merged"]
    assert found["mean_kl"] < 1e-8
    assert found["same_choice_frac"] == 1.0


def test_its_weights_are_the_base_s_plus_the_adapter_s_product(
    merged: dict[str, Run], finished: dict[str, Run], tiny_model: Path
) -> None:
    base = load_file(tiny_model / "model.safetensors")
    adapter = load_file(finished["lora"].paths.final_model / "adapter_model.safetensors")
    config = json.loads((finished["lora"].paths.final_model / "adapter_config.json").read_text())
    whole = load_file(merged["lora"].paths.final_model / "model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    changed = [name.removesuffix(".lora_A.weight") for name in adapter if name.endswith("lora_A.weight")]
    assert changed
    for name in changed:
        key = name.removeprefix("base_model.model.") + ".weight"
        product = adapter[f"{name}.lora_B.weight"] @ adapter[f"{name}.lora_A.weight"]
        torch.testing.assert_close(whole[key], base[key] + scale * product)


def test_it_opens_without_the_base(merged: dict[str, Run], worker: Worker, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(merged["lora"].paths.final_model, alone)
    assert not list(alone.glob("adapter*"))
    AutoModelForCausalLM.from_pretrained(alone, local_files_only=True)


def test_an_adapter_of_a_4_bit_base_is_merged_into_16_bits_and_the_report_says_why(merged: dict[str, Run]) -> None:
    found = json.loads((merged["qlora"].paths.root / "merge.json").read_text())
    assert "quantised weights cannot take its small changes" in found["reason"]
    assert found["against_the_quantised_base"]["mean_kl"] > found["merged"]["mean_kl"]
    config = json.loads((merged["qlora"].paths.final_model / "config.json").read_text())
    assert "quantization_config" not in config


def test_a_classifier_s_head_is_merged_with_it(worker: Worker, tmp_path: Path) -> None:
    model = build("llama", tmp_path / "llama")
    table = tmp_path / "classes.csv"
    table.write_text("sentence,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(40)))
    files = {"dataset": str(table), "train_samples": 0, "eval_samples": 8}
    short = {"num_train_epochs": None, "max_steps": 2}
    run = worker.finished("to-merge", "lora", model={"name": str(model)}, data=files, training=short)
    whole = worker.stage("merge", run, "head-merged")
    assert report(whole)["merged"]["mean_kl"] < 1e-8
    again = worker.stage("evaluate", whole, "head-evaluated")
    assert json.loads(again.paths.evaluation.read_text())["accuracy"] == run.metrics["final/validation_accuracy"]


def test_a_classifier_whose_base_has_no_padding_token_answers_batches_before_and_after(
    worker: Worker, tmp_path: Path
) -> None:
    model = build("gpt2", tmp_path / "gpt2", pad_token_id=None)
    table = tmp_path / "classes.csv"
    rows = (f"text {'and more ' * (i % 3)}{i},{'good' if i % 2 else 'bad'}\n" for i in range(40))
    table.write_text("sentence,label\n" + "".join(rows))
    files = {"dataset": str(table), "train_samples": 0, "eval_samples": 8}
    short = {"num_train_epochs": None, "max_steps": 2}
    run = worker.finished("no-padding", "lora", model={"name": str(model)}, data=files, training=short)
    whole = worker.stage("merge", run, "no-padding-merged")
    for number, subject in enumerate((run, whole)):
        again = worker.stage("evaluate", subject, f"no-padding-evaluated-{number}")
        assert json.loads(again.paths.evaluation.read_text())["accuracy"] == run.metrics["final/validation_accuracy"]
    config = json.loads((whole.paths.final_model / "config.json").read_text())
    assert config["pad_token_id"] is not None


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], use_dora=True),
        peft.LoraConfig(r=4, target_modules=["q_proj"], use_rslora=True),
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        peft.LoHaConfig(r=4, target_modules=["q_proj"]),
        peft.LoKrConfig(r=4, target_modules=["q_proj"]),
        peft.OFTConfig(oft_block_size=8, r=0, target_modules=["q_proj"]),
        peft.VeraConfig(r=4, target_modules=["q_proj"]),
        peft.HRAConfig(r=4, target_modules=["q_proj"]),
    ],
    ids=["dora", "rslora", "ia3", "loha", "lokr", "oft", "vera", "hra"],
)
def test_every_adapter_that_changes_weights_merges(config: peft.PeftConfig, tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    check_mergeable(str(config.peft_type.value))
    rows = [list(range(3, 20))]
    base = logits_of(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), rows)
    before = logits_of(model, rows)
    after = logits_of(merge_weights(model), rows)
    merging, training = compare(before, after), compare(base, after)
    assert merging["max_abs_logit_difference"] < 1e-2 * training["max_abs_logit_difference"]


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"])
def test_what_cannot_merge_says_so_and_what_to_do_instead(kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_mergeable(kind)
    assert "not a change of weights" in str(caught.value)
    assert "hpcft bench" in str(caught.value)


def test_a_whole_model_has_nothing_to_merge(worker: Worker, merged: dict[str, Run]) -> None:
    with pytest.raises(HpcftError, match="there is no adapter to merge"):
        worker.stage("merge", merged["lora"], "merged-twice")


def test_a_merge_that_changes_the_answers_fails(worker: Worker, finished: dict[str, Run]) -> None:
    with pytest.raises(HpcftError, match="merging changed the answers"):
        worker.stage("merge", finished["lora"], "too-strict", merge={"max_kl": 1e-30, "dtype": "bfloat16"})


def test_kl_and_choices_of_known_distributions() -> None:
    one, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    p, q = torch.softmax(one.double(), -1), torch.softmax(other.double(), -1)
    found = compare([one], [other])
    assert found["mean_kl"] == pytest.approx(float((p * (p / q).log()).sum()))
    assert found["max_abs_logit_difference"] == 2.0
    assert compare([one], [one]) == {"mean_kl": 0.0, "max_abs_logit_difference": 0.0, "same_choice_frac": 1.0}

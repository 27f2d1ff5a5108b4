"""The teacher: what can teach, how it is held, and that it is never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from support.tiny_models import build
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.errors import ConfigError
from hpcft.models.quickstart import build_model
from hpcft.models.teacher import check_same_tokenizer, check_teacher, open_teacher
from hpcft.spec.job import Job

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 14, 2]])


def job(teacher: Path, model: str = "student", **changes: Any) -> Job:
    tree = {"variant": "distill", "model": {"name": model}, "distill": {"teacher": str(teacher), **changes}}
    return Job.model_validate({**tree, "resources": {"accelerator": "cpu"}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("teacher"), hidden_size=64, intermediate_size=128)


def adapter(base: Path, folder: Path, settings: Any) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    tuned.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("held", ["none", "8bit", "4bit"])
def test_td7_a_teacher_is_frozen_in_eval_mode_and_says_what_the_model_says(whole: Path, held: str) -> None:
    teacher = open_teacher(job(whole, teacher_quantization=held), CPU)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(whole)(input_ids=IDS).logits
        found = teacher(input_ids=IDS).logits.float()
        again = teacher(input_ids=IDS).logits.float()
    off = float((found - expected).norm() / expected.norm())
    assert off == 0 if held == "none" else 0 < off < 0.3
    assert torch.equal(found, again), "its weights are not repacked under it"


def test_an_adapter_teaches_with_its_base(whole: Path, tmp_path: Path) -> None:
    folder = adapter(whole, tmp_path / "lora", LoraConfig(target_modules=["q_proj", "v_proj"]))
    check_teacher(job(folder), internet=False)
    teacher = open_teacher(job(folder), CPU)
    from peft import AutoPeftModelForCausalLM

    with torch.no_grad():
        expected = AutoPeftModelForCausalLM.from_pretrained(folder)(input_ids=IDS).logits
        plain = AutoModelForCausalLM.from_pretrained(whole)(input_ids=IDS).logits
        found = teacher(input_ids=IDS).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-3)
    assert not hasattr(teacher, "peft_config"), "it is in the weights, where it costs nothing"


def test_vectors_in_front_of_the_input_cannot_teach(whole: Path, tmp_path: Path) -> None:
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    folder = adapter(whole, tmp_path / "prompt", settings)
    with pytest.raises(ConfigError, match="vectors in front of the input") as caught:
        check_teacher(job(folder), internet=False)
    assert caught.value.where == "distill.teacher"


def test_td7_a_student_of_other_tokens_is_refused_in_plain_words(tmp_path: Path) -> None:
    for name, vocab in (("small", 300), ("large", 512)):
        build_model(tmp_path / name, steps=0, hidden=64, layers=1, vocab=vocab)
    asked = job(tmp_path / "large", model=str(tmp_path / "small"))
    with pytest.raises(ConfigError) as caught:
        check_teacher(asked, internet=False)
    assert caught.value.where == "distill.teacher"
    assert "they have 300 and 512, of which 212 differ" in caught.value.message
    assert "missing and " in caught.value.message
    assert "--model student" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="do not share their tokens"):
        check_same_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "small"), asked)
    same = job(tmp_path / "large", model=str(tmp_path / "large"))
    check_teacher(same, internet=False)
    check_same_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "large"), same)


def test_a_teacher_that_is_not_there_or_cannot_write_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_teacher(job(tmp_path / "nowhere"), internet=True)
    assert caught.value.where == "distill.teacher"
    encoder = build("bert", tmp_path / "bert")
    with pytest.raises(ConfigError, match="does not write it") as caught:
        open_teacher(job(encoder), CPU)
    assert caught.value.where == "distill.teacher"


@pytest.mark.parametrize("loss", ["feature", "combined"])
def test_a_made_student_whose_states_are_narrower_is_told_before_submission(whole: Path, loss: str) -> None:
    with pytest.raises(ConfigError, match="student's are 32 wide, the teacher's 64") as caught:
        check_teacher(job(whole, student_hidden=32, loss=loss), internet=False)
    assert caught.value.where == "distill.loss"
    assert caught.value.hint == "relation compares states of any widths, response none"
    check_teacher(job(whole, student_hidden=32, loss="relation"), internet=False)
    check_teacher(job(whole, loss=loss), internet=False)


def test_a_named_student_whose_states_are_narrower_is_told_before_submission(whole: Path, tmp_path: Path) -> None:
    narrow = build("llama", tmp_path / "narrow", hidden_size=32, intermediate_size=64)
    with pytest.raises(ConfigError, match="student's are 32 wide, the teacher's 64"):
        check_teacher(job(whole, model=str(narrow), loss="feature"), internet=False)


def test_d35_a_shape_that_the_teacher_cannot_give_is_told_before_submission(whole: Path) -> None:
    with pytest.raises(ConfigError, match="in pieces") as caught:
        check_teacher(job(whole, student_hidden=20), internet=False)
    assert caught.value.where == "distill.student_hidden"

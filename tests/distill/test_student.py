"""A student that is made after its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import WRITERS, build, config
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.errors import ConfigError
from hpcft.models.student import make_student, student_shape
from hpcft.spec.distill import DistillSection
from hpcft.spec.job import Job


def asked(**changes: Any) -> DistillSection:
    return DistillSection.model_validate(changes)


def job(teacher: Path, seed: int = 42, **changes: Any) -> Job:
    return Job.model_validate(
        {
            "variant": "distill",
            "model": {"name": "student"},
            "distill": {"teacher": str(teacher), **changes},
            "training": {"seed": seed},
        }
    )


def test_d35_half_of_a_teacher_of_12_layers_and_768_has_6_and_384() -> None:
    teacher = config(
        "llama", num_hidden_layers=12, hidden_size=768, num_attention_heads=12, num_key_value_heads=4,
        intermediate_size=2048,
    )  # fmt: skip
    changes = student_shape(teacher.to_dict(), asked(student_layers=6, student_hidden=384))
    assert changes["num_hidden_layers"] == 6
    assert changes["hidden_size"] == 384
    assert changes["num_attention_heads"] == 6
    assert changes["num_key_value_heads"] == 2
    assert changes["intermediate_size"] == 1024
    assert student_shape(teacher.to_dict(), asked()) == {"num_hidden_layers": 6}


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"student_layers": 5}, "distill.student_layers", "has 2 layers"),
        ({"student_hidden": 20}, "distill.student_hidden", "a multiple of 8, such as 16"),
        ({"student_hidden": 16, "init_from_teacher": "every_nth"}, "distill.init_from_teacher", "32 wide"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_one_that_can(changes: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        student_shape(config("llama").to_dict(), asked(**changes))
    assert caught.value.where == where
    assert words in str(caught.value)


@pytest.mark.parametrize("family", WRITERS)
def test_d35_a_student_of_each_family_is_made_with_the_teachers_tokens(family: str, tmp_path: Path) -> None:
    teacher = build(family, tmp_path / "teacher")
    folder = make_student(job(teacher, student_layers=1, student_hidden=16), tmp_path / "student")
    student = AutoModelForCausalLM.from_pretrained(folder)
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (1, 16)
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(teacher).get_vocab()
    assert student(input_ids=torch.tensor([[1, 5, 9]])).logits.isfinite().all()


def test_d35_a_student_begins_with_every_nth_layer_embedding_head_and_norms(tmp_path: Path) -> None:
    folder = build("llama", tmp_path / "teacher", num_hidden_layers=6)
    made = make_student(job(folder, student_layers=3, init_from_teacher="every_nth"), tmp_path / "student")
    teacher, student = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (folder, made))
    for name, tensor in student.items():
        source = name
        for own, told in ((0, 1), (1, 3), (2, 5)):
            if f"layers.{own}." in name:
                source = name.replace(f"layers.{own}.", f"layers.{told}.")
        assert torch.equal(tensor, teacher[source]), name


def test_d35_the_same_seed_makes_the_same_student_and_leaves_the_generator_alone(tmp_path: Path) -> None:
    teacher = build("llama", tmp_path / "teacher")
    before = torch.get_rng_state()
    folders = [make_student(job(teacher, seed), tmp_path / str(n)) for n, seed in enumerate((7, 7, 8))]
    assert torch.equal(torch.get_rng_state(), before)
    one, same, other = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in folders)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert make_student(job(teacher, 9), folders[0]) == folders[0], "what an attempt before has made stays"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2", "teacher"]

"""The keys of a distillation: defaults, ranges, profiles, and what they cannot go with."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hpcft.cli.stages import _content
from hpcft.cli.subject import taken
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import SpecError, mapping_layer, options_layer


def job(*layers: dict[str, Any], **changes: Any) -> Job:
    base = {"variant": "distill", "distill.teacher": "quickstart"}
    own = {key.replace("__", "."): value for key, value in changes.items()}
    return build([mapping_layer(each, f"layer {n}") for n, each in enumerate([base, *layers, own])]).job


def refusal(**changes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        job(**changes)
    (problem,) = caught.value.problems
    return f"{problem.key}: {problem.message}"


def test_d9_to_d15_the_defaults_are_those_of_the_earlier_plugin() -> None:
    d = job().distill
    assert (d.temperature, d.alpha, d.beta) == (4.0, 0.7, 0.3)
    assert (d.show_samples, d.show_diff, d.sample_frequency, d.max_text_length) == (True, False, 50, 100)
    assert (d.loss, d.top_k, d.cache, d.teacher_quantization, d.lang) == ("response", None, False, "none", "en")


def test_d35_a_student_is_made_and_trained_whole_unless_a_model_is_named() -> None:
    made = job()
    assert made.model.name == "student"
    assert made.distills
    assert (made.training.learning_rate, made.training.per_device_train_batch_size) == (1e-4, 16)
    assert job(model__name="quickstart").model.name == "quickstart"
    assert job(training__learning_rate=1e-3).training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("temperature", 0, "greater than 0"),
        ("alpha", 1.1, "at most 1"),
        ("alpha", -0.1, "at least 0"),
        ("beta", 2, "at most 1"),
        ("sample_frequency", 0, "at least 1"),
        ("max_text_length", 0, "at least 1"),
        ("loss", "respones", "did you mean response?"),
        ("profile", "qick", "did you mean quick?"),
        ("teacher_quantization", "int4", "is not one of"),
        ("lang", "fr", "is not one of"),
        ("top_k", 0, "at least 1"),
    ],
)
def test_d9_to_d16_what_is_out_of_range_is_said_with_its_key(key: str, value: Any, words: str) -> None:
    told = refusal(**{f"distill__{key}": value})
    assert told.startswith(f"distill.{key}: ")
    assert words in told


def test_td8_alpha_and_beta_are_one_and_one_follows_the_other() -> None:
    assert job(distill__alpha=0.9).distill.beta == 0.1
    assert job(distill__beta="0.25").distill.alpha == 0.75
    assert "0.5 + 0.3 = 0.8" in refusal(distill__alpha=0.5, distill__beta=0.3)
    # The stronger layer's one takes the weaker layer's other away.
    assert job({"distill.alpha": 0.5, "distill.beta": 0.5}, {"distill.alpha": "0.6"}).distill.beta == 0.4
    built = build(
        [
            mapping_layer({"variant": "distill", "distill.teacher": "t"}, "f"),
            options_layer({"distill.alpha": ("0.2", "--set")}),
        ]
    )
    assert (built.job.distill.beta, built.origin("distill.beta")) == (0.8, "--set")


@pytest.mark.parametrize(
    ("profile", "frequency", "length", "diff"),
    [
        ("quick", 100, 50, False),
        ("detailed", 10, 200, True),
        ("high_quality", 50, 100, False),
        ("teaching", 5, 150, True),
        ("production", 200, 50, False),
        ("debug", 1, 200, True),
    ],
)
def test_d16_a_profile_is_a_weak_layer(profile: str, frequency: int, length: int, diff: bool) -> None:
    d = job(distill__profile=profile).distill
    assert (d.sample_frequency, d.max_text_length, d.show_diff) == (frequency, length, diff)
    expected = (6.0, 0.9, 0.1) if profile == "high_quality" else (4.0, 0.7, 0.3)
    assert (d.temperature, d.alpha, d.beta) == expected
    d = job({"distill.max_text_length": 7, "distill.alpha": 0.8}, distill__profile=profile).distill
    assert (d.max_text_length, d.sample_frequency, d.alpha, d.beta) == (7, frequency, 0.8, 0.2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distill__teacher": None}, "who teaches?"),
        ({"variant": "lora", "model__name": "quickstart"}, "is lora"),
        ({"data__task": "classification"}, "a classifier has none"),
        ({"model__name": "quickstart", "distill__student_layers": 2}, "model.name names one"),
        ({"distill__cache": True}, "distill.top_k=64"),
        ({"distill__cache": True, "distill__top_k": 8, "distill__loss": "feature"}, "needs the teacher's layers"),
        ({"distill__loss": "attention", "model__attn_implementation": "sdpa"}, "eager attention alone"),
        ({"distill__loss": "feature", "training__gradient_checkpointing": True}, "out of its sight"),
    ],
)
def test_what_cannot_go_together_is_refused_before_anything_is_queued(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distill__sample_set": "test"}, "is not one of"),
        ({"distill__cache": True, "distill__top_k": 8}, "no teacher is left.*set it to training"),
        ({"evaluation__enabled": False}, "nothing is validated.*set it to training"),
    ],
)
def test_d37_rows_of_a_validation_are_shown_where_there_is_one_and_a_teacher(
    changes: dict[str, Any], words: str
) -> None:
    told = refusal(**{"distill__sample_set": "validation"} | changes)
    assert re.match(rf"distill\.sample_set: .*{words}", told), told
    if "distill__sample_set" not in changes:
        job(distill__sample_set="validation", distill__show_samples=False, **changes)


def test_what_is_shown_is_in_the_jobs_language_unless_its_own_is_set() -> None:
    assert job(lang="zh-CN").distill.lang == "zh-CN"
    assert job({"distill.lang": "ko"}, lang="zh-CN").distill.lang == "ko"
    assert job(variant="lora", distill__teacher=None, lang="ko").distill.lang == "en"
    assert refusal(lang="fr").startswith("lang: ")


def test_a_student_is_made_by_variant_distill_alone() -> None:
    with pytest.raises(SpecError, match="made by variant distill alone"):
        build([mapping_layer({"model.name": "student"}, "f")])


def test_td3_how_a_distillation_is_shown_does_not_change_what_a_stage_makes() -> None:
    content = _content(job(), [])
    shown = {"show_samples": False, "sample_frequency": 3, "lang": "ko", "max_text_length": 9}
    for key, value in {**shown, "sample_set": "validation"}.items():
        assert _content(job(**{f"distill__{key}": value}), []) == content
    for key, value in {"temperature": 2, "alpha": 0.5, "top_k": 4, "loss": "relation"}.items():
        assert _content(job(**{f"distill__{key}": value}), []) != content
    plain = Job.model_validate({"variant": "full", "model": {"name": "quickstart"}})
    other = plain.model_copy(update={"distill": job(distill__temperature=2).distill})
    assert _content(plain, []) == _content(other, []), "where nobody teaches it says nothing"


def test_a_job_on_a_distilled_run_takes_the_distillation_along() -> None:
    told = taken(job(distill__temperature=2).model_dump(mode="json"))
    assert told["distill.temperature"] == 2
    assert told["variant"] == "distill"

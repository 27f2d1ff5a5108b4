"""Layers, precedence, and errors told all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.spec.build import build, flat
from hpcft.spec.job import Job
from hpcft.spec.keys import fields, nearest
from hpcft.spec.layers import (
    Layer,
    SpecError,
    environment_layer,
    mapping_layer,
    options_layer,
    pairs_layer,
    yaml_layer,
)
from hpcft.spec.types import parse_time


def errors_of(*layers: Layer) -> list[str]:
    with pytest.raises(SpecError) as caught:
        build(list(layers))
    return [str(p) for p in caught.value.problems]


def test_defaults_are_those_of_the_sensitivity_study() -> None:
    job = build([]).job
    assert (job.data.dataset, job.data.train_samples, job.data.max_length) == ("e2e_nlg", 500, 128)
    assert (job.lora.r, job.lora.lora_alpha, job.lora.lora_dropout) == (8, 32, 0.1)
    assert job.lora.target_module_group == "attention_only"
    t = job.training
    assert (t.per_device_train_batch_size, t.gradient_accumulation_steps, t.max_steps) == (4, 4, 100)
    assert (t.learning_rate, t.warmup_steps, t.seed) == (2e-4, 10, 42)
    assert job.evaluation.enabled
    assert job.data.eval_samples == 100


def test_b6_a_named_option_beats_the_preset() -> None:
    preset = mapping_layer({"training.learning_rate": "1e-3", "lora.r": "4"}, "jobs/x.yaml")
    options = options_layer({"training.learning_rate": ("5e-5", "--lr")})
    resolved = build([preset, options])
    assert resolved.job.training.learning_rate == 5e-5
    assert resolved.job.lora.r == 4
    assert resolved.origin("training.learning_rate") == "--lr"
    assert resolved.origin("lora.r") == "jobs/x.yaml"
    assert resolved.origin("training.seed") == "default"


def test_a_variant_begins_with_its_own_rate_and_whatever_is_said_wins() -> None:
    found = build([pairs_layer(["variant=ia3"], "--set")])
    assert found.job.training.learning_rate == 3e-3
    assert found.origin("training.learning_rate") == "variant ia3"
    weaker = pairs_layer(["training.learning_rate=1e-5"], "--set")
    assert build([weaker, pairs_layer(["variant=ia3"], "--set")]).job.training.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["variant=p-tuning", "data.packing=full"], "stand in front of each row"),
        (["variant=prefix-tuning", "training.gradient_checkpointing=true"], "gives each layer keys and values"),
        (["variant=adalora", "resources.gpus_per_node=2"], "use one rank"),
        (["variant=prefix"], "did you mean prefix-tuning?"),
    ],
)
def test_what_a_method_cannot_go_with_is_refused(pairs: list[str], words: str) -> None:
    assert words in " ".join(errors_of(pairs_layer(pairs, "--set")))


def test_epochs_drop_the_presets_step_limit_and_both_together_are_an_error() -> None:
    preset = mapping_layer({"training.max_steps": "60"}, "preset")
    job = build([preset, options_layer({"training.num_train_epochs": ("3", "--epochs")})]).job
    assert (job.training.max_steps, job.training.num_train_epochs) == (None, 3.0)
    both = options_layer({"training.num_train_epochs": ("3", "--epochs"), "training.max_steps": ("60", "--max-steps")})
    assert "keep one of them" in errors_of(both)[0]


def test_a_stronger_step_limit_drops_a_presets_epochs() -> None:
    preset = mapping_layer({"training.num_train_epochs": "3"}, "preset")
    job = build([preset, pairs_layer(["training.max_steps=5"], "--set")]).job
    assert (job.training.max_steps, job.training.num_train_epochs) == (5, None)


def test_c7_all_errors_of_a_file_are_told_with_line_key_and_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "variant: qlroa\n"
        "training:\n"
        "  lernin_rate: 1e-4\n"
        "  seed: -4\n"
        "  max_steps: abc\n"
        "lora:\n"
        "  r: 0\n"
        "model: hello\n"
        "resources: {partition: 'a; rm -rf /'}\n"
    )
    found = errors_of(yaml_layer(file))
    expected = [
        (":1: variant:", "did you mean qlora?"),
        (":3:", "did you mean training.learning_rate?"),
        (":4: training.seed:", "at least 0"),
        (":5: training.max_steps:", "not a whole number"),
        (":7: lora.r:", "at least 1, not '0'"),
        (":8: model:", "is a section"),
        (":9: resources.partition:", "';'"),
    ]
    assert len(found) == len(expected)
    for place, words in expected:
        assert any(place in line and words in line for line in found), (place, words, found)


def test_wrong_values_do_not_hide_contradictions() -> None:
    found = errors_of(pairs_layer(["lora.r=0", "model.trust_remote_code=true"], "--set"))
    assert len(found) == 2
    assert any("model.revision" in line for line in found)


def test_a_stream_is_not_divided_over_processes_that_would_each_give_all_of_it() -> None:
    values = ["data.streaming=true", "data.validation=held.jsonl", "training.dataloader_num_workers=2"]
    (problem,) = errors_of(pairs_layer(values, "--set"))
    assert "training.dataloader_num_workers: a stream is read by the rank itself" in problem


def test_a_key_twice_in_a_file_is_named_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("lora:\n  r: 4\n  r: 8\n")
    assert "stands twice, first in line 2" in errors_of(yaml_layer(file))[0]


def test_values_mean_the_same_in_every_layer(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: 1e5\ntraining: {learning_rate: 1e-4}\nresources: {time: 1:30:00}\n")
    from_file = build([yaml_layer(file)]).job
    pairs = ["name=1e5", "training.learning_rate=1e-4", "resources.time=1:30:00"]
    from_pairs = build([pairs_layer(pairs, "--set")]).job
    assert from_file == from_pairs
    assert (from_file.name, from_file.resources.time) == ("1e5", "01:30:00")


def test_environment_variables_set_keys_and_misspelt_ones_are_named() -> None:
    assert build([environment_layer({"HPCFT_TRAINING__SEED": "7", "HPCFT_CLUSTER": "x"})]).job.training.seed == 7
    assert "did you mean training.seed?" in errors_of(environment_layer({"HPCFT_TRAINING__SEEED": "7"}))[0]


def test_a_tag_that_wandb_would_refuse_is_refused() -> None:
    assert build([pairs_layer([f"tracking.tags=night,{'é' * 64}"], "")]).job.tracking.tags[1] == "é" * 64
    (error,) = errors_of(pairs_layer([f"tracking.tags=night,{'x' * 65}"], ""))
    assert "tracking.tags" in error
    assert "longer than the 64 characters that wandb takes" in error
    assert "is empty" in errors_of(mapping_layer({"tracking.tags": [""]}, "x"))[0]


def test_ptq_is_refused_with_one_clear_sentence() -> None:
    (line,) = errors_of(options_layer({"variant": ("ptq", "--variant")}))
    assert "ptq is several jobs" in line
    assert line.count("\n") == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("90:30", 5430), ("04:00:00", 14400), ("1-12", 129600), ("2-00:30", 174600), (5, 300)],
)
def test_times_are_read_as_slurm_reads_them(text: str | int, seconds: int) -> None:
    assert parse_time(text) == seconds


@given(st.text(max_size=40))
def test_any_text_in_any_string_key_is_a_value_or_an_error_and_never_a_crash(text: str) -> None:
    for key in ("name", "model.name", "resources.partition", "results", "tracking.notes", "training.seed"):
        try:
            build([options_layer({key: (text, "--x")})])
        except SpecError as error:
            told = str(error)
        else:
            told = key
        assert key in told


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=30))
def test_the_nearest_key_is_always_a_valid_one(text: str) -> None:
    guess = nearest(text)
    assert guess is None or guess in fields()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"lora: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- a\n- b\n", "holds no keys"),
        (b"lora:\n\tr: 3\n", "not valid YAML"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, content: bytes, words: str) -> None:
    from hpcft.errors import ConfigError

    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        yaml_layer(file)
    assert words in str(caught.value)
    assert "job.yaml" in str(caught.value)


def test_s6_a_yaml_tag_cannot_make_an_object(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: !!python/object/apply:os.system ['touch pwned']\n")
    assert "name" in errors_of(yaml_layer(file))[0]
    assert not Path("pwned").exists()


def test_flat_and_layers_round_trip() -> None:
    job = build([pairs_layer(["lora.r=4", "lora.target_modules=a,b"], "--set")]).job
    again = build([mapping_layer(flat(job), "x")]).job
    assert again == job
    assert isinstance(job, Job)

"""Sweeps: W&B's files are read as they are, and their trials are those that the file means."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcft.errors import ConfigError, UsageError
from hpcft.spec import assets
from hpcft.spec.layers import SpecError
from hpcft.spec.sweep import Sweep, proposals, short_sweep
from hpcft.spec.sweep_file import read_sweep

SHIPPED = sorted(assets.packaged_folder("sweeps").glob("*.yaml"))
COMMAND = ["hpcft", "run", "--preset", "quickstart", "${args_no_hyphens}"]


def write(tmp_path: Path, content: dict[str, Any] | str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def read(tmp_path: Path, parameters: dict[str, Any], **others: Any) -> Sweep:
    return read_sweep(write(tmp_path, {"command": COMMAND, "parameters": parameters, **others}))


def values(sweep: Sweep, count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    return [{k: v for k, (v, _) in layer.values.items()} for layer in proposals(sweep, count, seed)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_sweeps_run_hpcft_with_the_arguments_that_it_takes(path: Path) -> None:
    sweep = read_sweep(path)
    assert sweep.command[:2] == ("hpcft", "run")
    assert sweep.command[-1] == "${args_no_hyphens}"
    assert sweep.metric.goal == "minimize"


def test_five_questions_come_ready() -> None:
    assert {p.stem for p in SHIPPED} == {"rank", "target_groups", "learning_rate", "variants", "gradient_rank"}


def test_a_grid_is_in_the_order_of_the_file_with_the_last_key_the_quickest(tmp_path: Path) -> None:
    sweep = read(tmp_path, {"lora.r": {"values": [4, 8]}, "training.seed": {"values": [1, 2]}}, method="grid")
    assert [tuple(v.values()) for v in values(sweep)] == [("4", "1"), ("4", "2"), ("8", "1"), ("8", "2")]
    assert len(values(sweep, count=3)) == 3


@given(st.lists(st.lists(st.integers(1, 4096), min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_grid_is_the_product_of_its_values(lists: list[list[int]]) -> None:
    keys = ["lora.r", "training.seed", "training.max_steps"][: len(lists)]
    texts = [f"{key}={','.join(map(str, own))}" for key, own in zip(keys, lists, strict=True)]
    found = [tuple(v.values()) for v in values(short_sweep(texts, None, 42))]
    assert found == list(itertools.product(*([str(n) for n in own] for own in lists)))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["uniform", "log_uniform_values", "q_uniform", "int_uniform"]),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.integers(0, 2**32),
)
def test_random_values_lie_in_their_range_and_a_seed_gives_the_same_ones(
    tmp_path_factory: pytest.TempPathFactory, distribution: str, low: int, width: int, seed: int
) -> None:
    numbers = {"distribution": distribution, "min": low, "max": low + width}
    numbers |= {"q": 1} if distribution == "q_uniform" else {}
    sweep = read(tmp_path_factory.mktemp("s"), {"training.learning_rate": numbers}, method="random")
    found = values(sweep, count=5, seed=seed)
    slack = 1e-5 * (low + width)
    assert all(low - slack <= float(v["training.learning_rate"]) <= low + width + slack for v in found)
    assert values(sweep, count=5, seed=seed) == found
    assert values(sweep, count=8, seed=seed)[:5] == found, "more trials go on from there"


def test_distributions_are_w_and_b_s(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        {
            "training.learning_rate": {"min": 0.001, "max": 0.1},
            "lora.r": {"min": 1, "max": 64},
            "training.weight_decay": {"distribution": "log_uniform", "min": -5, "max": -2},
            "lora.lora_dropout": {"value": 0.1},
            "lora.lora_alpha": {"values": [8, 16], "probabilities": [1.0, 0.0]},
        },
        method="random",
        run_cap=20,
    )
    assert [p.distribution for p in sweep.parameters[:4]] == ["uniform", "int_uniform", "log_uniform", "constant"]
    found = values(sweep)
    assert len(found) == 20
    assert {v["lora.lora_alpha"] for v in found} == {"8"}
    assert all(math.exp(-5) <= float(v["training.weight_decay"]) <= math.exp(-2) + 1e-6 for v in found)
    assert all(v["lora.r"].isdecimal() for v in found)


def test_the_program_of_a_command_is_the_file_s(tmp_path: Path) -> None:
    content = {"program": "hpcft", "command": ["${env}", "${program}", "run", "${args_no_hyphens}"]}
    path = write(tmp_path, content | {"parameters": {"lora.r": {"values": [1]}}})
    assert read_sweep(path).command == ("${env}", "hpcft", "run", "${args_no_hyphens}")


def test_early_terminate_in_both_forms(tmp_path: Path) -> None:
    ranges = {"lora.r": {"values": [1, 2]}}
    for form, first in (({"min_iter": 3}, 3), ({"max_iter": 27, "s": 2, "eta": 3}, 3)):
        sweep = read(tmp_path, ranges, early_terminate={"type": "hyperband", **form})
        assert sweep.early_end is not None
        assert sweep.early_end.first == first
        assert not sweep.known


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"parameters": {"lora.rank": {"values": [1]}}}, "did you mean lora.r?"),
        ({"parameters": {"r": {"values": [1]}}}, "did you mean lora.r?"),
        ({"parameters": {"resources.nodes": {"values": [1, 2]}}}, "the same for all trials"),
        ({"parameters": {"lora.r": {"values": []}}}, "min and max"),
        ({"parameters": {"lora.r": {"min": 1, "max": 8}}}, "a grid needs values"),
        ({"method": "gird", "parameters": {"lora.r": {"values": [1]}}}, "did you mean grid?"),
        ({"method": "random", "parameters": {"lora.r": {"min": 8, "max": 1}}}, "not below max"),
        ({"method": "random", "parameters": {"lora.r": {"min": "x", "max": 1}}}, "'x' is not a number"),
        ({"method": "bayes", "parameters": {"lora.r": {"distribution": "normal", "mu": 1}}}, "log_uniform_values"),
        ({"parameters": {"lora": {"parameters": {"r": {"values": [1]}}}}}, "lora.NAME"),
        ({"parameters": {"lora.r": {"values": [1]}}, "early_terminate": {"type": "hyperband"}}, "min_iter"),
        ({"parameters": {}}, "nothing to try"),
        (
            {"method": "random", "parameters": {"lora.r": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
            "above 0",
        ),
        ({"metod": "bayes", "parameters": {"lora.r": {"values": [1]}}}, "unknown key 'metod'; did you mean method?"),
        ({"metric": "final/loss", "parameters": {"lora.r": {"values": [1]}}}, "metric: is no mapping"),
        (
            {"metric": {"goul": "maximize"}, "parameters": {"lora.r": {"values": [1]}}},
            "unknown key 'metric.goul'; did you mean metric.goal?",
        ),
        (
            {"early_terminat": {"min_iter": 2}, "parameters": {"lora.r": {"values": [1]}}},
            "did you mean early_terminate?",
        ),
        ({"early_terminate": {"min_itr": 2}, "parameters": {"lora.r": {"values": [1]}}}, "early_terminate.min_iter?"),
        ({"early_terminate": "hyperband", "parameters": {"lora.r": {"values": [1]}}}, "early_terminate: is no mapping"),
        (
            {"parameters": {"lora.r": {"values": [1]}}, "early_terminate": {"max_iter": 9, "s": 1e9}},
            "max_iter and s, of at least 1",
        ),
        ({"parameters": {"lora.r": {"valus": [1]}}}, "unknown key 'lora.r.valus'; did you mean lora.r.values?"),
        ({"parameters": ["lora.r"]}, "parameters: is no mapping"),
        (
            "command: [hpcft, run]\nparameters:\n  lora.r: {values: [1]}\n  lora.r: {values: [2]}\n",
            "mine.yaml:4: lora.r",
        ),
        ("command: [hpcft, run]\nmethod: grid\nmethod: bayes\n", "stands twice, first in line 2"),
        ({"run_cap": 0, "parameters": {"lora.r": {"values": [1]}}}, "run_cap: is the most trials"),
        ({"run_cap": -5, "parameters": {"lora.r": {"values": [1]}}}, "run_cap: is the most trials"),
        (
            {"method": "random", "parameters": {"lora.r": {"distribution": "log_uniform", "min": 100, "max": 10000}}},
            "log_uniform_values takes the values themselves",
        ),
        (
            {"method": "random", "parameters": {"lora.r": {"distribution": "log_normal", "mu": 1000}}},
            "of the logarithm",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, content: dict[str, Any] | str, told: str) -> None:
    whole = content if isinstance(content, str) else {"method": "grid", "command": COMMAND, **content}
    with pytest.raises(SpecError) as caught:
        read_sweep(write(tmp_path, whole))
    assert told in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_what_is_for_w_and_b_s_server_alone_is_passed_over(tmp_path: Path) -> None:
    server = {"project": "study", "entity": "lab", "description": "which rank", "metric": {"name": "x", "target": 0.1}}
    assert read(tmp_path, {"lora.r": {"values": [1]}}, **server).metric.name == "x"


def test_all_errors_of_a_file_come_at_once(tmp_path: Path) -> None:
    parameters = {"lora.rang": {"values": [1]}, "lora.r": {"values": []}, "training.seed": {"min": 9, "max": 1}}
    text = yaml.safe_dump({"method": "gird", "parameters": parameters})
    with pytest.raises(SpecError) as caught:
        read_sweep(write(tmp_path, text))
    assert len(caught.value.problems) >= 3


def test_no_sweep_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no sweep"):
        read_sweep(write(tmp_path, "- a\n- b\n"))


def test_a_random_search_has_to_say_how_many(tmp_path: Path) -> None:
    sweep = read(tmp_path, {"lora.r": {"values": [1, 2]}}, method="random")
    with pytest.raises(UsageError, match="--count"):
        values(sweep)


def test_a_grid_with_a_slip_in_it_is_refused(tmp_path: Path) -> None:
    keys = ("lora.r", "training.seed", "lora.lora_alpha", "training.max_steps")
    sweep = read(tmp_path, {key: {"values": list(range(1, 41))} for key in keys})
    with pytest.raises(UsageError, match="2,560,000 trials"):
        values(sweep)
    assert len(values(sweep, count=10)) == 10


@given(st.text(max_size=60))
def test_the_short_way_takes_any_text_or_says_what_is_wrong(text: str) -> None:
    with suppress(UsageError, SpecError):
        assert len(values(short_sweep([text], None, 42))) >= 1


def test_seeds_count_on_from_the_job_s(tmp_path: Path) -> None:
    sweep = short_sweep(["lora.r=4,8"], 3, 7)
    assert [v["training.seed"] for v in values(sweep)] == ["7", "8", "9"] * 2

"""What a comparison reads of a run directory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from hpcft.errors import DataError
from hpcft.report.pareto import Point
from hpcft.report.points import point_of
from hpcft.runs.run import Run

Make = Callable[..., Run]
CONFIG: dict[str, Any] = {
    "variant": "qlora",
    "data": {"dataset": "data/e2e_nlg.csv"},
    "training": {"seed": 7},
}
DIGEST = "0123456789abcdef" * 4


def test_a_run_is_a_point_with_its_numbers(make_run: Make) -> None:
    run = make_run(
        "a",
        CONFIG,
        metrics={"final/validation_f1_score": 0.5, "train/steps": 10, "kept": True, "words": "x", "list": [1]},
        benchmark={"fingerprint": {"id": "h100-abc"}, "data": {"sha256": DIGEST}},
    )
    assert point_of(run) == Point(
        "a", "QLoRA", {"final/validation_f1_score": 0.5, "train/steps": 10.0}, "e2e_nlg@0123456789ab", "h100-abc", 7
    )


def test_a_run_without_metrics_is_no_point(make_run: Make) -> None:
    assert point_of(make_run("a", CONFIG)) is None


def test_what_is_not_there_is_absent(make_run: Make) -> None:
    point = point_of(make_run("a", {"variant": "lora"}, metrics={"m": 1}))
    assert point == Point("a", "Full LoRA", {"m": 1.0})


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"dataset": "a/train.v1.csv"}, "train.v1"),
        ({"dataset": "train.csv", "validation": "held/out.jsonl"}, "out"),
        ({"dataset": "org/set-v1.5"}, "set-v1.5"),
        ({"dataset": "nyu-mll/glue", "subset": "sst2"}, "glue/sst2"),
        ({"dataset": "org/set/"}, "set"),
    ],
)
def test_the_data_set_is_that_of_the_validation(make_run: Make, data: dict[str, str], name: str) -> None:
    point = point_of(make_run("a", {"data": data}, metrics={"m": 1}))
    assert point is not None
    assert point.dataset == name


def test_the_digest_is_that_of_the_rows_that_were_scored(make_run: Make) -> None:
    point = point_of(
        make_run(
            "a",
            CONFIG,
            metrics={"m": 1},
            evaluation_results={"data": {"sha256": DIGEST}},
            benchmark={"data": {"sha256": "f" * 64}},
        )
    )
    assert point is not None
    assert point.dataset == "e2e_nlg@0123456789ab"


def test_nan_and_infinity_are_read_as_a_run_writes_them(make_run: Make) -> None:
    metrics = {"a": "nan", "b": "-inf", "c": math.nan, "d": 10**400}
    point = point_of(make_run("a", CONFIG, metrics=metrics))
    assert point is not None
    assert [str(point.values[k]) for k in "abcd"] == ["nan", "-inf", "nan", "inf"]


def test_an_unknown_variant_is_called_as_the_metrics_say(make_run: Make) -> None:
    point = point_of(make_run("a", {"variant": "mine"}, metrics={"m": 1, "model_variant": "Mine"}))
    assert point is not None
    assert point.group == "Mine"


def test_files_of_another_shape_say_nothing(make_run: Make) -> None:
    config = {"variant": ["x"], "data": "e2e", "training": {"seed": "x"}}
    point = point_of(make_run("a", config, metrics={"m": 1}, benchmark=[1], evaluation_results={"data": 3}))
    assert point == Point("a", "unknown", {"m": 1.0})


def test_a_damaged_file_is_named(make_run: Make) -> None:
    run = make_run("a", CONFIG, metrics={"m": 1})
    run.paths.benchmark.write_text("{")
    with pytest.raises(DataError, match=r"not readable as JSON"):
        point_of(run)

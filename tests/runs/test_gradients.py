"""Gradient norms as files: what they hold, and how they are read back."""

from __future__ import annotations

import csv
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import events, finished_run, made

from hpcft.errors import DataError
from hpcft.runs.events import EventLog
from hpcft.runs.gradients import (
    GROUPS,
    GradientLog,
    Phase,
    gradients_in,
    gradients_of,
    load_gradient_log_from_csv,
    write_gradients,
)
from hpcft.runs.run import Run

PHASES = [Phase(1, 1, "attention"), Phase(11, 2, "mlp")]


def rows(file: Path) -> list[list[str]]:
    return list(csv.reader(file.read_text().splitlines()))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Written norms of 30 steps and 12 layers."""
    write_gradients(made(30, 12, phases=PHASES), tmp_path / "gradient_analysis")
    return tmp_path / "gradient_analysis"


def test_b33_group_norms_csv_has_one_row_per_measured_step(base: Path) -> None:
    head, *body = rows(base.with_name("gradient_analysis.group_norms.csv"))
    assert ",".join(head) == "step,embed_norm,attention_norm,mlp_norm,lm_head_norm,total_norm"
    assert [int(row[0]) for row in body] == list(range(1, 31))
    assert [float(row[2]) for row in body] == made(30, 12).group_norms["attention"]


def test_b34_layer_norms_csv_has_attention_and_mlp_of_each_layer_in_numeric_order(base: Path) -> None:
    head, *body = rows(base.with_name("gradient_analysis.layer_norms.csv"))
    assert head == ["step", *(f"layer_{n}_{group}" for n in range(12) for group in ("attention", "mlp"))]
    assert len(body) == 30
    assert float(body[4][head.index("layer_10_mlp")]) == made(30, 12).layer_norms["mlp"][4][10]


def test_b35_summary_json_has_the_statistics_of_each_group(base: Path) -> None:
    summary = json.loads(base.with_name("gradient_analysis.summary.json").read_text())
    assert list(summary) == list(GROUPS)
    norms = made(30, 12).group_norms["mlp"]
    assert summary["mlp"] == pytest.approx(
        {
            "mean": statistics.fmean(norms),
            "std": statistics.pstdev(norms),
            "max": max(norms),
            "min": min(norms),
            "peak_step": 1 + norms.index(max(norms)),
        }
    )


def test_b49_what_was_written_is_read_back_to_the_last_bit(base: Path) -> None:
    again = load_gradient_log_from_csv(base)
    assert again == made(30, 12, phases=PHASES)
    for other in ("", ".csv", ".group_norms.csv", ".layer_norms.csv", ".summary.json", ".gradient_norms.json"):
        assert load_gradient_log_from_csv(f"{base}{other}") == again
    assert load_gradient_log_from_csv(base.parent) == again


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1e300), min_size=5, max_size=5), st.integers(1, 10**9))
def test_b49_any_norm_survives_the_file(norms: list[float], step: int) -> None:
    from tempfile import TemporaryDirectory

    log = GradientLog([step], {group: [norm] for group, norm in zip(GROUPS, norms, strict=True)})
    with TemporaryDirectory() as folder:
        write_gradients(log, Path(folder) / "x")
        assert load_gradient_log_from_csv(Path(folder) / "x") == log
        assert not (Path(folder) / "x.layer_norms.csv").exists()


def test_b49_columns_of_embed_and_head_may_be_missing_and_the_layers_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "old.group_norms.csv").write_text("step,mlp_norm,attention_norm,total_norm\n4,2,1,3\n8,2.5,1e-3,3\n")
    (tmp_path / "old.layer_norms.csv").write_text(
        "step,layer_1_mlp,layer_1_attention,layer_0_attention,layer_0_mlp\n4,4,3,1,2\n8,8,7,5,6\n"
    )
    log = load_gradient_log_from_csv(tmp_path / "old")
    assert log.steps == [4, 8]
    assert log.group_norms["embed"] == log.group_norms["lm_head"] == [0.0, 0.0]
    assert log.group_norms["attention"] == [1.0, 0.001]
    assert log.layer_norms == {"attention": [[1, 3], [5, 7]], "mlp": [[2, 4], [6, 8]]}
    assert log.combined() == [[3, 7], [11, 15]]


@pytest.mark.parametrize(
    ("groups", "layers", "said"),
    [
        ("", None, r"old.group_norms.csv:1: does not begin with the names"),
        ("step,attention_norm\n1,2\n", None, "old.group_norms.csv:1: lacks the column mlp_norm, total_norm"),
        ("step,attention_norm,mlp_norm,total_norm\n", None, "has no steps"),
        ("step,attention_norm,mlp_norm,total_norm\n1,2,3\n", None, "csv:2: has 3 values for 4 columns"),
        ("step,attention_norm,mlp_norm,total_norm\n1,2,3,4\n2,2,,4\n", None, "csv:3: mlp_norm: '' is not a number"),
        ("step,attention_norm,mlp_norm,total_norm\n2,2,3,4\n2,2,3,4\n", None, "csv:3: its steps are not ascending"),
        ("step,attention_norm,mlp_norm,total_norm\nnan,2,3,4\n", None, "csv:2: its steps are not ascending"),
        (None, "step,layer_0_attention\n1,2\n", "layer_norms.csv:1: lacks the column layer_0_mlp"),
        (None, "step,layer_0_attention,layer_0_mlp,layer_2_mlp\n1,2,2,2\n", "lacks the column layer_1_attention"),
        (None, "step,x\n1,2\n", "lacks the column layer_0_attention"),
        (None, "step,layer_0_attention,layer_0_mlp\n2,2,2\n", "has other steps than the table of the groups"),
        ("step,attention_norm,mlp_norm,total_norm\n1,\x00,3,4\n", None, "not a number"),
    ],
)
def test_b52_a_damaged_table_is_named_with_its_line(
    tmp_path: Path, groups: str | None, layers: str | None, said: str
) -> None:
    good = "step,attention_norm,mlp_norm,total_norm\n1,2,3,4\n"
    (tmp_path / "old.group_norms.csv").write_text(good if groups is None else groups)
    if layers is not None:
        (tmp_path / "old.layer_norms.csv").write_text(layers)
    with pytest.raises(DataError, match=said):
        load_gradient_log_from_csv(tmp_path / "old")


def test_b52_a_missing_table_says_which_there_are_or_what_makes_one(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DataError, match=r"no such table.*\n.*there is gradient_analysis"):
        load_gradient_log_from_csv(base.with_name("gradient_analysys"))
    with pytest.raises(DataError, match="hpcft sensitivity"):
        load_gradient_log_from_csv(tmp_path / "nowhere" / "gradient_analysis")


def test_tb7_every_json_file_is_valid_json_whatever_was_measured(tmp_path: Path) -> None:
    log = made(3, 2, trained=("attention",))
    log.group_norms["total"][1] = math.inf
    log.layer_norms["attention"][1][0] = math.nan
    write_gradients(log, tmp_path / "x")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    for file in tmp_path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)
    total = json.loads((tmp_path / "x.summary.json").read_text())["total"]
    assert total["not_finite"] == 1
    assert total["max"] == max(log.group_norms["total"][0], log.group_norms["total"][2])
    again = load_gradient_log_from_csv(tmp_path / "x")
    assert again.group_norms["total"][1] == math.inf
    nothing = replace(log, steps=[1], group_norms={group: [math.nan] for group in GROUPS}, layer_norms={})
    assert nothing.summary()["mlp"] == {
        "mean": None,
        "std": None,
        "max": None,
        "min": None,
        "peak_step": None,
        "not_finite": 1,
    }


def test_the_log_is_that_of_the_steps_that_were_kept_over_all_attempts(tmp_path: Path) -> None:
    whole = made(12, 2, phases=[Phase(1, 1, "attention"), Phase(5, 2, "mlp"), Phase(9, 3, "both")])
    paths = finished_run(tmp_path / "run", None)
    lost = made(12, 2, height=7.0, phases=whole.phases)
    with EventLog(paths.events(1)) as record:
        # Steps 7 to 10 of the first attempt are done again by the second one.
        for event in [*events(whole, 1, 6), *events(lost, 7, 10)]:
            record.append(event.pop("kind"), **event)
    paths.attempt(2).mkdir()
    with EventLog(paths.events(2)) as record:
        record.append("start", attempt=2, resume_step=6)
        for event in events(whole, 7):
            record.append(event.pop("kind"), **event)
    assert gradients_of(Run(paths.root)) == whole


def test_b21_steps_between_two_measurements_and_runs_without_any_have_no_row() -> None:
    log = made(12, 2)
    found = events(log)
    for event in found:
        if event["step"] % 4:
            for key in [key for key in event if key.endswith(("_norm", "_norms"))]:
                del event[key]
    measured = gradients_in(found)
    assert measured is not None
    assert measured.steps == [4, 8, 12]
    assert measured.layers == 2
    assert gradients_in([{"kind": "step", "step": 1, "loss": 2.0}]) is None


def test_b22_without_layers_the_groups_alone_are_kept() -> None:
    found = events(replace(made(3, 2), layer_norms={}))
    measured = gradients_in(found)
    assert measured is not None
    assert (measured.layers, measured.layer_norms, measured.combined()) == (0, {}, [])

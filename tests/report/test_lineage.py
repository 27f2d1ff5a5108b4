"""Runs about one model are one row: its score and its latency stand together (TE13)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.report.lineage import lineages
from hpcft.report.points import joined_point
from hpcft.runs.run import Run

Make = Callable[..., Run]
F1, LATENCY = "final/validation_f1_score", "inference/avg_latency_ms_per_sample"


@pytest.fixture
def job(make_run: Make, tmp_path: Path) -> Callable[..., Run]:
    """A run of a kind, on another run or on none."""

    def make(name: str, kind: str, of: str | None = None, seed: int = 0, **files: Any) -> Run:
        results = tmp_path / "results"
        config = {
            "kind": kind,
            "of": None if of is None else str(results / of),
            "results": str(results),
            "variant": "qlora",
            "training": {"seed": seed},
        }
        return make_run(name, config, **files)

    return make


def names(runs: list[Run]) -> list[tuple[str, list[str]]]:
    return [(row.name, [run.name for run in row.runs]) for row in lineages(runs)]


def test_te13_training_evaluation_and_benchmark_are_one_row(job: Make) -> None:
    train = job("q", "train", seed=7, metrics={F1: 0.5, "train/steps": 10, "base/validation_f1_score": 0.1})
    scored = job("qe", "evaluate", "q", metrics={F1: 0.6, "final/validation_perplexity": 2.0})
    # A benchmark carries the training's score: the evaluation's is nearer.
    bench = job("qb", "bench", "q", metrics={F1: 0.5, LATENCY: 3.0})
    (row,) = lineages([bench, scored, train])
    assert [run.name for run in row.runs] == ["q", "qb", "qe"]
    point = joined_point(row)
    assert point is not None
    assert (point.values[F1], point.values[LATENCY], point.values["train/steps"]) == (0.6, 3.0, 10.0)
    assert (point.group, point.seed) == ("QLoRA", 7)


def test_a_chain_of_measurements_is_one_row_named_after_what_was_asked_for(job: Make) -> None:
    job("lora", "train")
    scored = job("scores", "evaluate", "lora")
    bench = job("bench", "bench", "scores")
    assert names([bench]) == [("bench", ["lora", "bench", "scores"])]
    (row,) = lineages([scored, bench])
    assert row.name == "scores"


def test_what_is_made_of_a_model_is_a_row_of_its_own_with_its_costs_and_not_its_score(job: Make) -> None:
    train = job("lora", "train", seed=3, metrics={F1: 0.5, "train/peak_vram_gb": 8, LATENCY: 1.0})
    merged = job("merged", "merge", "lora", metrics={"merge/same_choice_frac": 1.0})
    small = job("int8", "quantize", "merged", metrics={"inference/model_size_gb": 1.0})
    rows = lineages([train, merged, small])
    assert [row.name for row in rows] == ["lora", "merged", "int8"]
    assert [run.name for run in rows[2].before] == ["merged", "lora"]
    point = joined_point(rows[2])
    assert point is not None
    assert point.values == {"train/peak_vram_gb": 8.0, "inference/model_size_gb": 1.0}
    assert point.seed == 3


def test_two_benchmarks_of_one_model_stay_apart(job: Make) -> None:
    train = job("q", "train", metrics={F1: 0.5})
    first, second = job("b1", "bench", "q", metrics={LATENCY: 1.0}), job("b2", "bench", "q", metrics={LATENCY: 2.0})
    assert names([train, first, second]) == [("q", ["q", "b1"]), ("b2", ["q", "b2"])]


def test_a_copied_results_folder_joins_its_own_runs(job: Make, tmp_path: Path) -> None:
    job("q", "train", metrics={F1: 0.5})
    job("qb", "bench", "q", metrics={LATENCY: 1.0})
    copy = tmp_path / "elsewhere"
    (tmp_path / "results").rename(copy)
    (row,) = lineages([Run(copy / "q"), Run(copy / "qb")])
    assert [run.paths.root.parent for run in row.runs] == [copy, copy]


def test_a_run_whose_parent_is_gone_or_is_itself_stands_alone(job: Make) -> None:
    assert names([job("b", "bench", "gone")]) == [("b", ["b"])]
    assert names([job("loop", "bench", "loop")]) == [("loop", ["loop"])]


def test_reports_are_about_no_model_and_a_run_counts_once(job: Make) -> None:
    train = job("a", "train")
    assert names([train, job("r", "report"), Run(train.paths.root)]) == [("a", ["a"])]


def test_runs_of_one_name_in_two_folders_are_told_apart(job: Make, tmp_path: Path) -> None:
    other = tmp_path / "more" / "a"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text(yaml.safe_dump({"kind": "train"}))
    assert [row.name for row in lineages([job("a", "train"), Run(other)])] == ["a", str(other)]


def test_a_damaged_config_hides_no_other_run(job: Make) -> None:
    train, broken = job("a", "train"), job("b", "bench", "a")
    broken.paths.config.write_text("{")
    assert names([train, Run(broken.paths.root)]) == [("a", ["a"]), ("b", ["b"])]

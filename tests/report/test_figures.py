"""What pictures show of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from hpcft.errors import DataError
from hpcft.report.figures import answering, comparison_row, history, parameters, task_row
from hpcft.report.points import BASE, point_of
from hpcft.runs.events import EventLog
from hpcft.runs.run import Run

Make = Callable[..., Run]


def trained(make_run: Make, **metrics: float) -> Run:
    run = make_run("train", {"variant": "ia3", "data": {"dataset": "data/e2e.csv"}}, metrics=metrics)
    run.paths.attempt(1).mkdir(parents=True)
    with EventLog(run.paths.events(1)) as log:
        log.append("start", attempt=1, resume_step=0, data={"task": "generation"})
        for step in (1, 2):
            log.append("step", step=step, loss=3.0 / step)
            log.append("validation", step=step, metrics={"validation/loss": 1.0 / step, "validation/bleu": 0.1 * step})
    return run


def test_a6_a28_the_curves_of_a_run_have_every_value_of_every_series(make_run: Make) -> None:
    found = history(trained(make_run))
    assert found == {
        "train_loss": [(1, 3.0), (2, 1.5)],
        "eval_loss": [(1, 1.0), (2, 0.5)],
        "eval_perplexity": [(1, math.exp(1.0)), (2, math.exp(0.5))],
        "validation/bleu": [(1, 0.1), (2, 0.2)],
    }


def test_a10_parameters_are_those_that_the_run_has_counted(make_run: Make) -> None:
    run = trained(make_run, **{"model/total_params": 200, "model/trainable_params": 3})
    assert parameters(run.paths.root) == {
        "total_params": 200,
        "trainable_params": 3,
        "frozen_params": 197,
        "trainable_percent": 1.5,
    }
    assert parameters(make_run("other", {})) == {}


def test_a15_answering_is_read_from_a_benchmark_and_absent_figures_stay_absent(make_run: Make) -> None:
    figures = {"inference/avg_latency_ms_per_sample": 12.5, "inference/throughput_tokens_per_sec": 80}
    run = make_run("bench", {"kind": "bench"}, metrics=figures)
    assert answering(str(run.paths.root)) == {"latency_ms": 12.5, "throughput": 80}
    # A model that answers in fewer words is not the faster one.
    batches = [{"batch": size, "latency_ms": {"mean": 10.0 * size}, "tokens_per_sec": 5.0} for size in (4, 1)]
    run = make_run("in-full", {"kind": "bench"}, metrics=figures, benchmark={"synthetic": batches})
    assert answering(run) == {"latency_ms": 10.0, "throughput": 5.0}
    with pytest.raises(DataError, match="hpcft bench other"):
        answering(make_run("other", {}))


def test_a31_a_training_is_a_row_of_the_comparison(make_run: Make) -> None:
    run = trained(make_run, **{"model/trainable_pct": 0.02, "final/validation_f1_score": 0.4, "train/runtime_s": 9})
    row = {"method": "IA3", "trainable_params_%": 0.02, "performance": 0.4, "training_time": 9}
    assert comparison_row(run) == row


def test_a33_a_training_is_a_task_with_its_score_before_and_after(make_run: Make) -> None:
    run = trained(make_run, **{"base/validation_f1_score": 0.1, "final/validation_f1_score": 0.4})
    assert task_row(run) == {"task": "e2e", "metric": "ROUGE-L F1", "base": 0.1, "tuned": 0.4}


def test_a_base_model_that_is_measured_is_of_no_variant(make_run: Make) -> None:
    config: dict[str, Any] = {"kind": "bench", "variant": "lora", "model": {"name": "org/model"}}
    figures = {"inference/avg_latency_ms_per_sample": 1.0}
    base = point_of(make_run("base", config, metrics=figures))
    tuned = point_of(make_run("tuned", {**config, "of": "/runs/train"}, metrics=figures))
    assert base is not None
    assert tuned is not None
    assert (base.group, tuned.group) == (BASE, "Full LoRA")

"""What pictures show of a run, read from its directory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hpcft.errors import DataError
from hpcft.report.points import number
from hpcft.runs.files import read_json
from hpcft.runs.run import Run
from hpcft.spec.labs import title_of

# Scores that have a curve of their own.
_CURVES = ("bleu", "rougeL", "meteor", "em", "f1", "accuracy", "f1_macro", "avg_f1")
# A benchmark's summary, by the names that `plot_inference_benchmark` knows.
_ANSWERING = {
    "latency_ms": "inference/avg_latency_ms_per_sample",
    "throughput": "inference/throughput_tokens_per_sec",
    "memory_gb": "inference/peak_vram_gb",
}
_COUNTS = {"total_params": "model/total_params", "trainable_params": "model/trainable_params"}
# A training's summary, by the names that `plot_peft_comparison` knows.
_COMPARED = {
    "trainable_params_%": "model/trainable_pct",
    "performance": "final/validation_f1_score",
    "training_time": "train/runtime_s",
}
# What `validation/f1_score` is, by the task that it is of.
_F1 = {"generation": "ROUGE-L F1", "qa": "token F1", "classification": "macro F1"}


def history(run: Run | Path | str) -> dict[str, list[tuple[float, float]]]:
    """The curves of a training, each as (optimizer step, value): `train_loss`, `eval_loss`, `eval_perplexity`, and
    every score of its validations. What was not recorded is absent."""
    run = _run(run)
    losses = [(float(e["step"]), float(e["loss"])) for e in run.events("step")]
    validations = [(float(e["step"]), e["metrics"]) for e in run.events("validation")]
    evaluation = [(step, float(m["validation/loss"])) for step, m in validations if "validation/loss" in m]
    found = {"train_loss": losses, "eval_loss": evaluation}
    if not any("validation/f1_macro" in m for _, m in validations):
        # A classifier's loss is over labels, not tokens.
        found["eval_perplexity"] = [(step, math.exp(loss)) for step, loss in evaluation if loss < 50]
    for key in (f"validation/{name}" for name in _CURVES):
        found[key] = [(step, float(m[key])) for step, m in validations if key in m]
    return {name: points for name, points in found.items() if points}


def parameters(run: Run | Path | str) -> dict[str, float]:
    """Parameters of a run's model, as `print_trainable_parameters` counts those of a loaded one.

    Returns:
        `total_params`, `trainable_params`, `frozen_params` and `trainable_percent`; empty where the run has not
        counted them.
    """
    found = _figures(_run(run), _COUNTS)
    if len(found) < len(_COUNTS):
        return {}
    total, trainable = found["total_params"], found["trainable_params"]
    return found | {"frozen_params": total - trainable, "trainable_percent": 100 * trainable / total}


def answering(run: Run | Path | str) -> dict[str, float]:
    """What answering cost in a benchmark: `latency_ms`, the mean of a query; `throughput` in generated tokens a
    second; on GPUs `memory_gb`.

    The query is a made-up prompt that is answered in full, so that of two models the one that says less is not the
    faster one. A classifier's are the real ones.

    Raises:
        DataError: the run has measured no answers.
    """
    run = _run(run)
    found = _figures(run, _ANSWERING)
    report = read_json(run.paths.benchmark)
    for batch in (report.get("synthetic") or []) if isinstance(report, dict) else []:
        if batch["batch"] == 1:
            found |= {"latency_ms": batch["latency_ms"]["mean"], "throughput": batch["tokens_per_sec"]}
    if not found:
        raise DataError("has no latency", where=str(run.paths.root), hint=f"hpcft bench {run.name}")
    return found


def comparison_row(run: Run | Path | str) -> dict[str, Any]:
    """A training as a row of `plot_peft_comparison`: `trainable_params_%`, `performance` (the task's F1) and
    `training_time` in seconds; what it lacks is absent."""
    run = _run(run)
    return {"method": title_of(str(run.config.get("variant"))), **_figures(run, _COMPARED)}


def task_row(run: Run | Path | str) -> dict[str, Any]:
    """A training as a row of `plot_task_comparison`: the score of its task's F1 before it (`base`, where it was taken)
    and after it (`tuned`), and what this F1 is (`metric`)."""
    run = _run(run)
    start = next(iter(run.events("start")), {})
    task = str((start.get("data") or {}).get("task"))
    data = run.config.get("data") or {}
    scores = _figures(run, {"base": "base/validation_f1_score", "tuned": "final/validation_f1_score"})
    return {"task": Path(str(data.get("dataset"))).stem, "metric": _F1.get(task, "F1"), **scores}


def _run(run: Run | Path | str) -> Run:
    return run if isinstance(run, Run) else Run(Path(run))


def _figures(run: Run, names: dict[str, str]) -> dict[str, float]:
    metrics: dict[str, Any] = run.metrics
    return {name: found for name, key in names.items() if (found := number(metrics.get(key))) is not None}

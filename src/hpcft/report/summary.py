"""One run's scores and costs, and its files, as rows to print."""

from __future__ import annotations

import math
from typing import Any

from hpcft.report.points import number
from hpcft.runs.run import Run

# (label, key, format): what a reader looks for first stands first.
_SCORES = (
    ("BLEU", "final/validation_bleu", "{:.4f}"),
    ("ROUGE-1", "final/validation_rouge1", "{:.4f}"),
    ("ROUGE-2", "final/validation_rouge2", "{:.4f}"),
    ("ROUGE-L (F1 score)", "final/validation_rougeL", "{:.4f}"),
    ("METEOR", "final/validation_meteor", "{:.4f}"),
    ("token F1", "final/validation_f1", "{:.4f}"),
    ("accuracy, or exact match", "final/validation_accuracy", "{:.4f}"),
    ("macro F1", "final/validation_f1_macro", "{:.4f}"),
    ("mean F1 over the sets", "final/avg_f1", "{:.4f}"),
    ("perplexity", "final/validation_perplexity", "{:.4f}"),
    ("validation loss", "final/validation_loss", "{:.4f}"),
    ("training loss, first step", "train/first_loss", "{:.4f}"),
    ("training loss, last tenth", "train/final_loss", "{:.4f}"),
)
COSTS = (
    ("latency, a query", "inference/avg_latency_ms_per_sample", "{:.2f} ms"),
    ("latency, median", "inference/p50_latency_ms", "{:.2f} ms"),
    ("latency, 95th percentile", "inference/p95_latency_ms", "{:.2f} ms"),
    ("time to the first token", "inference/avg_ttft_ms", "{:.2f} ms"),
    ("time of each further one", "inference/avg_tpot_ms", "{:.2f} ms"),
    ("answering", "inference/throughput_tokens_per_sec", "{:,.1f} tokens/s"),
    ("work of a query", "inference/flops_per_query_gflops", "{:,.4g} GFLOP"),
    ("energy of a query", "inference/energy_j_per_query", "{:.2f} J"),
    ("peak GPU memory, answering", "inference/peak_vram_gb", "{:.2f} GB"),
    ("peak memory, answering", "inference/peak_rss_gb", "{:.2f} GB"),
    ("loading", "inference/load_time_s", "{:.2f} s"),
    ("same token after merging", "merge/same_choice_frac", "{:.2%}"),
    ("perplexity before quantising", "quantize/perplexity_before", "{:.4f}"),
    ("perplexity after quantising", "quantize/perplexity_after", "{:.4f}"),
    ("training time", "train/runtime_s", "{:.1f} s"),
    ("optimizer steps", "train/steps", "{:,}"),
    ("ranks", "train/world_size", "{:,}"),
    ("throughput", "train/throughput_tokens_per_sec", "{:,.0f} tokens/s, padding not counted"),
    ("training work", "train/total_training_flops_tflops", "{:,.4g} TFLOP"),
    ("peak GPU memory, a rank", "train/peak_vram_gb", "{:.2f} GB"),
    ("peak memory, a rank", "train/peak_rss_gb", "{:.2f} GB"),
    ("trained parameters", "model/trainable_params", "{:,}"),
    ("share of all parameters", "model/trainable_pct", "{:.3f} %"),
)


def _text(metrics: dict[str, Any], key: str, form: str) -> str | None:
    found = number(metrics.get(key))
    if found is None:
        return None
    return form.format(metrics[key]) if math.isfinite(found) else str(found)


def size_text(gb: float) -> str:
    """A size in the unit that shows its digits."""
    return f"{gb:.2f} GB" if gb >= 1 else f"{gb * 1024:.2f} MB"


def result_rows(run: Run) -> list[tuple[str, str]]:
    """Scores and costs of a finished run: (label, value), with the base model's score where it was taken."""
    metrics = run.metrics
    rows = []
    for label, key, form in (*_SCORES, *COSTS):
        base = _text(metrics, key.replace("final/", "base/", 1), form) if key.startswith("final/") else None
        if (text := _text(metrics, key, form)) is not None:
            rows.append((label, text if base is None else f"{text}   before tuning {base}"))
    if (size := number(metrics.get("inference/model_size_gb"))) is not None:
        rows.append(("model size on disk", size_text(size)))
    return rows


def file_rows(run: Run) -> list[tuple[str, str]]:
    """Where a run's files are: (what, path), those that exist."""
    paths = run.paths
    candidates = [
        ("model", paths.final_model),
        ("scores", paths.evaluation),
        ("predictions", paths.predictions),
        ("measurements", paths.benchmark),
        ("merge", paths.root / "merge.json"),
        ("quantisation", paths.root / "quantize.json"),
        ("report", paths.root / "report.html"),
        ("metrics", paths.metrics),
        ("loss picture", paths.root / "training_loss.png"),
        ("all curves", paths.root / "training_curves.png"),
        ("parameters", paths.root / "parameter_distribution.png"),
        ("model sizes", paths.root / "model_size_comparison.png"),
        ("lab", paths.root / "lab.json"),
        ("gradient norms", paths.root / "gradient_norms.png"),
        ("log in words", paths.logs),
        ("job's output", paths.batch_log),
        ("configuration", paths.config),
    ]
    return [(what, str(path)) for what, path in candidates if path.exists()]

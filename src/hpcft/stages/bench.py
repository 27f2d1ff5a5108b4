"""Measure what answering costs: latency, memory, FLOPs, energy, size."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.data.collate import LabelCollator
from hpcft.data.encode import encode_input, encode_prompt
from hpcft.data.split import Dataset, load
from hpcft.errors import HpcftError
from hpcft.measure.flops import forward_flops, query_flops
from hpcft.measure.fvcore_flops import traced_forward_flops
from hpcft.measure.gemm import gemm_rate
from hpcft.measure.latency import Query, answer, classify, summarize
from hpcft.measure.machine import drift, fingerprint, watch
from hpcft.measure.memory import devices_of, folder_size_gb, peak_by_device, reset_peak
from hpcft.models.load import resolve_model
from hpcft.models.open import labels_of, open_config, open_model, open_tokenizer, subject
from hpcft.runs.files import write_json
from hpcft.spec.identifiers import user_path
from hpcft.stages.carry import COSTS, SCORES, carried, finish
from hpcft.train.context import Context

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Ask = Callable[[int], Query]
# Tokens of the prompt whose FLOPs are counted in two ways.
_COUNTED = 64


def bench(context: Context) -> dict[str, Any]:
    """Measure queries of real prompts one at a time, then made-up prompts of one length in batches.

    The run carries the summary of the run that it measures, so that a plot has latency and score of one model on
    one run.

    Returns:
        Summary metrics.

    Raises:
        HpcftError: with `bench.strict`, when the machine was not in a steady state.
    """
    job = context.job
    metrics = carried(job, COSTS + SCORES)
    data = load(job.data, job.training.seed, training=False)
    labels = (labels_of(job) or data.labels) if data.task == "classification" else None
    tokenizer = open_tokenizer(job)
    context.say("starting", f"loading the model {job.model.name}")
    start = time.perf_counter()
    model = open_model(job, context.device, labels, spread=job.bench.device_map == "auto")
    load_s = time.perf_counter() - start
    devices = devices_of(model)
    # What generation calls: an adapter's own forward is not on the way.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain = inner.forward
    if job.bench.torch_compile:
        import torch

        inner.forward = torch.compile(inner.forward, dynamic=True)
    prompts = _prompts(context, tokenizer, data)
    ask = _asker(context, model, tokenizer, prompts, labels is not None)
    context.say("working", f"warming up: {job.bench.warmup} queries")
    for number in range(job.bench.warmup):
        context.go_on()
        ask(number)
    for device in devices:
        reset_peak(device)
    context.say("working", f"measuring {job.bench.queries} queries")
    queries: list[Query] = []
    with watch(devices) as watched:
        for number in range(job.bench.queries):
            context.go_on()
            queries.append(ask(number))
    memory = peak_by_device(devices)
    # The device that needed most tells what a GPU must have.
    peak = {name: max(figures[name] for figures in memory) for name in memory[0] if name.startswith("peak_")}
    rate = gemm_rate(context.device, model.dtype)
    # A token's time, where there are tokens: a whole answer's goes with its length.
    steady = drift([q.latency_ms if q.tpot_ms is None else q.tpot_ms for q in queries])
    troubles = watched.troubles + ([steady] if steady else [])
    for words in troubles:
        log.warning("these figures may not be found again: %s", words)
    if troubles and job.bench.strict:
        raise HpcftError(f"not measured in a steady state: {'; '.join(troubles)}", where="bench.strict")
    if context.recorder is not None:
        for number, query in enumerate(queries, 1):
            context.recorder.metrics("query", number, {"inference/latency_ms_per_sample": query.latency_ms})
    real = summarize(queries)
    report: dict[str, Any] = {
        "fingerprint": fingerprint(context.device),
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": str(model.config._attn_implementation),
            "quantization": subject(job).quantization,
            "decoding": "greedy",
            "max_new_tokens": job.evaluation.max_new_tokens,
            **job.bench.model_dump(),
        },
        "data": {"name": job.data.validation or job.data.dataset, "sha256": data.validation_sha256, "task": data.task},
        "model": job.model.name,
        "load_time_s": load_s,
        "sizes_gb": sizes_gb(context),
        "memory": {
            "scope": "this process, since the warm-up; the largest of its devices",
            **peak,
            "rank": context.rank.rank,
            "devices": memory,
        },
        "real": real | {"queries": [asdict(q) for q in queries]},
        "gemm_tflops": rate / 1e12,
        "troubles": troubles,
    }
    if watched.energy_j is not None:
        report["energy_j_per_query"] = watched.energy_j / len(queries)
    if labels is None:
        report["synthetic"] = _synthetic(context, model, tokenizer)
    # What is compiled cannot be traced.
    inner.forward = plain
    flops = _flops(context, model, queries, len(labels) if labels is not None else None, report)
    write_json(context.paths.benchmark, report)
    metrics |= _summary(report, peak, flops)
    log.info("Avg Latency: %.2f ms", real["latency_ms"]["mean"])
    if "inference/peak_vram_gb" in metrics:
        log.info("Peak Inference VRAM: %.2f GB", metrics["inference/peak_vram_gb"])
    return finish(context, metrics, {"files": [context.paths.benchmark.name]})


def _prompts(context: Context, tokenizer: Any, data: Dataset) -> list[dict[str, list[int]]]:
    length = context.job.data.max_length
    if data.task == "classification":
        return [encode_input(tokenizer, e, length) for e in data.validation]
    return [{"input_ids": encode_prompt(tokenizer, data.prompt, e, length)} for e in data.validation]


def _asker(context: Context, model: Any, tokenizer: Any, prompts: list[dict[str, list[int]]], classifies: bool) -> Ask:
    """Asks the n-th query; prompts come round again when there are fewer."""
    job = context.job
    if classifies:
        collate = LabelCollator(tokenizer.pad_token_id)

        def label(number: int) -> Query:
            batch = collate([{**prompts[number % len(prompts)], "labels": 0}])
            del batch["labels"]
            return classify(model, batch)

        return label
    return lambda number: answer(
        model,
        tokenizer,
        [prompts[number % len(prompts)]["input_ids"]],
        max_new_tokens=job.evaluation.max_new_tokens,
        exactly=False,
        cache=job.bench.cache,
    )


def _synthetic(context: Context, model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Prompts of one length, all answered in full, at each batch size."""
    job = context.job
    special = set(tokenizer.all_special_ids)
    ids = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
    found = []
    for size in job.bench.batch_sizes:
        rows = [[ids[(31 * b + 7 * k) % len(ids)] for k in range(job.bench.prompt_tokens)] for b in range(size)]
        context.say("working", f"measuring batches of {size}")
        rounds: list[Query] = []
        # The first round of a shape pays for memory and kernels that the others find.
        for number in range(job.bench.repeats + 1):
            context.go_on()
            query = answer(
                model,
                tokenizer,
                rows,
                max_new_tokens=job.evaluation.max_new_tokens,
                exactly=True,
                cache=job.bench.cache,
            )
            rounds += [query] if number else []
        found.append({"batch": size, "prompt_tokens_each": job.bench.prompt_tokens, **summarize(rounds)})
    return found


def sizes_gb(context: Context) -> dict[str, float]:
    """Sizes of the weight files: of the adapter, of its base, of a whole model; those that are on this disk."""
    found = subject(context.job)
    base = Path(resolve_model(found.base.name))
    sizes: dict[str, float] = {}
    if found.adapter is not None:
        sizes["adapter"] = folder_size_gb(found.adapter)
    whole = base if base.is_dir() else cached_folder(found.base.name)
    if whole is not None:
        sizes["base" if found.adapter is not None else "model"] = folder_size_gb(whole)
    return sizes


def cached_folder(name: str) -> Path | None:
    """Folder of a hub model in the cache; None when it is not there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _second_count(model: Any, device: torch.device) -> int:
    """FLOPs of a prompt's pass, counted by other code on the real model instead of on its twin without weights."""
    import torch

    ids = torch.zeros((1, _COUNTED), dtype=torch.long, device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return traced_forward_flops(model, inputs, use_cache=False, logits_to_keep=1)


def _flops(
    context: Context, model: Any, queries: list[Query], num_labels: int | None, report: dict[str, Any]
) -> float | None:
    """Mean FLOPs of the measured queries; None where this model's cannot be counted."""
    try:
        config = open_config(context.job)
        adapter = None
        if (folder := subject(context.job).adapter) is not None:
            from peft import PeftConfig

            adapter = PeftConfig.from_pretrained(str(user_path(str(folder))))
        if num_labels is not None:
            one = forward_flops(config, num_labels, adapter)
            return sum(one.of(1, q.prompt_tokens) for q in queries) / len(queries)
        counted = query_flops(config, adapter)
        mean = sum(counted.of(q.prompt_tokens, q.new_tokens) for q in queries) / len(queries)
    except Exception as error:
        # As for training: code of any architecture runs here on tensors without numbers.
        log.warning("the FLOPs of this model cannot be counted: %s", error)
        return None
    try:
        ratio = _second_count(model, context.device) / counted.of(_COUNTED, 1)
    except Exception as error:
        # A trace stops at kernels that the count itself does without, such as FlashAttention's.
        log.warning("the FLOPs of this model were counted in one way only: %s", error)
        return mean
    report["flops_second_count_ratio"] = ratio
    if abs(ratio - 1) > 1e-3:
        log.warning("the FLOPs of this model are doubtful: two ways of counting differ (benchmark.json)")
    return mean


def _summary(report: dict[str, Any], peak: dict[str, float], flops: float | None) -> dict[str, Any]:
    """The figures of `benchmark.json` that tables and plots take."""
    real = report["real"]
    latency = real["latency_ms"]
    metrics: dict[str, Any] = {
        "inference/avg_latency_ms_per_sample": latency["mean"],
        **{f"inference/{name}_latency_ms": latency[name] for name in ("min", "max", "p50", "p95", "p99", "std")},
        "inference/load_time_s": report["load_time_s"],
        **{f"inference/{name}": value for name, value in peak.items()},
        **{f"inference/{name}_size_gb": size for name, size in report["sizes_gb"].items()},
    }
    for name in ("ttft_ms", "tpot_ms"):
        if name in real:
            metrics[f"inference/avg_{name}"] = real[name]["mean"]
            metrics[f"inference/p50_{name}"] = real[name]["p50"]
    if "tokens_per_sec" in real:
        metrics["inference/throughput_tokens_per_sec"] = real["tokens_per_sec"]
    if "energy_j_per_query" in report:
        metrics["inference/energy_j_per_query"] = report["energy_j_per_query"]
    if flops is not None:
        metrics["inference/flops_per_query_gflops"] = flops / 1e9
        # Of what the device reaches in products of large matrices of the model's type.
        metrics["inference/mfu_pct"] = 100 * flops / (latency["mean"] / 1e3) / (report["gemm_tflops"] * 1e12)
    sizes = report["sizes_gb"]
    own = sizes.get("adapter", sizes.get("model"))
    if own is not None:
        metrics["inference/model_size_gb"] = own
    if "base" in sizes or "model" in sizes:
        # What has to be loaded to answer: with an adapter, its base too.
        metrics["inference/deployed_size_gb"] = sum(sizes.values())
    return metrics

"""`bench`: what answering costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.worker import Worker

from hpcft.errors import HpcftError
from hpcft.runs.run import Run
from hpcft.stages import bench as stage

SHORT = {"queries": 6, "warmup": 2, "repeats": 2, "batch_sizes": [1, 2], "prompt_tokens": 16}


@pytest.fixture(scope="module")
def measured(worker: Worker, finished: dict[str, Run]) -> Run:
    return worker.stage("bench", finished["lora"], "measured", bench=SHORT)


def benchmark(run: Run) -> dict[str, Any]:
    return json.loads(run.paths.benchmark.read_text())


def test_te13_latency_and_f1_stand_on_one_run(measured: Run, finished: dict[str, Run]) -> None:
    metrics, trained = measured.metrics, finished["lora"].metrics
    assert metrics["inference/avg_latency_ms_per_sample"] > 0
    carried = {k: v for k, v in trained.items() if k.startswith(("train/", "final/"))}
    assert carried
    assert {k: metrics[k] for k in carried} == carried


def test_te3_each_query_is_measured_by_itself_after_a_warm_up(measured: Run) -> None:
    real = benchmark(measured)["real"]
    assert len(real["queries"]) == real["latency_ms"]["n"] == 6
    for query in real["queries"]:
        assert query["batch"] == 1
        assert 0 < query["ttft_ms"] < query["latency_ms"]
    latency = real["latency_ms"]
    assert latency["min"] <= latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert latency["ci95"][0] <= latency["mean"] <= latency["ci95"][1]


def test_ta5_tokens_are_those_really_generated(measured: Run) -> None:
    for query in benchmark(measured)["real"]["queries"]:
        assert 1 <= query["new_tokens"] <= 8
        if query["tpot_ms"] is not None:
            further = query["tpot_ms"] * (query["new_tokens"] - 1)
            assert query["ttft_ms"] + further == pytest.approx(query["latency_ms"], rel=0.2, abs=2)


def test_made_up_prompts_are_answered_in_full_at_each_batch_size(measured: Run) -> None:
    synthetic = benchmark(measured)["synthetic"]
    assert [s["batch"] for s in synthetic] == [1, 2]
    for scenario in synthetic:
        assert scenario["prompt_tokens"] == 16 * scenario["batch"]
        assert scenario["new_tokens"] == 8 * scenario["batch"]
        assert scenario["latency_ms"]["n"] == 2


def test_e21_e23_e25_the_peak_is_counted_after_five_queries_to_warm_up_and_told(
    worker: Worker, finished: dict[str, Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a GPU of which loading and warming up have held more than queries do."""
    held, happened, whole = {"gb": 9.0}, list[str](), stage.answer

    def answer(*args: Any, **kwargs: Any) -> Any:
        happened.append("query")
        held["gb"] = max(held["gb"], 1.234)
        return whole(*args, **kwargs)

    def peak(devices: Any) -> list[dict[str, Any]]:
        happened.append("peak")
        return [{"device": "cuda:0", "name": "card", "peak_vram_gb": held["gb"]}]

    monkeypatch.setattr(stage, "answer", answer)
    monkeypatch.setattr(stage, "reset_peak", lambda device: happened.append("reset") or held.update(gb=0.0))
    monkeypatch.setattr(stage, "peak_by_device", peak)
    settings = {key: value for key, value in SHORT.items() if key != "warmup"}
    with caplog.at_level("INFO"):
        run = worker.stage("bench", finished["lora"], "warmed-up", bench=settings)
    assert happened[:13] == [*["query"] * 5, "reset", *["query"] * 6, "peak"]
    assert run.metrics["inference/peak_vram_gb"] == 1.234
    assert "Peak Inference VRAM: 1.23 GB" in caplog.text
    assert f"Avg Latency: {run.metrics['inference/avg_latency_ms_per_sample']:.2f} ms" in caplog.text


def test_e22_each_query_s_latency_is_recorded_and_their_mean_stands_in_the_summary(measured: Run) -> None:
    latencies = [e["metrics"]["inference/latency_ms_per_sample"] for e in measured.events("query")]
    assert len(latencies) == 6
    assert measured.metrics["inference/avg_latency_ms_per_sample"] == pytest.approx(sum(latencies) / 6)


def test_e22_to_e24_figures_of_a_query_are_measured_or_absent(measured: Run) -> None:
    metrics = measured.metrics
    for name in ("min", "max", "p50", "p95", "p99"):
        assert metrics[f"inference/{name}_latency_ms"] > 0
    assert metrics["inference/peak_rss_gb"] > 0
    assert "inference/peak_vram_gb" not in metrics, "there is no GPU"
    assert "inference/energy_j_per_query" not in metrics
    assert metrics["inference/flops_per_query_gflops"] > 0
    assert metrics["inference/load_time_s"] > 0
    assert 0 < metrics["inference/mfu_pct"] < 100


def test_g23_two_ways_of_counting_flops_agree(measured: Run) -> None:
    assert benchmark(measured)["flops_second_count_ratio"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("variant", ["full", "lora"])
def test_each_token_goes_through_what_was_compiled_and_is_counted_twice_too(
    worker: Worker, finished: dict[str, Run], monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    passes = 0

    def compile_(forward: Any, **_: Any) -> Any:
        def compiled(*args: Any, **kwargs: Any) -> Any:
            nonlocal passes
            passes += 1
            if torch.jit.is_tracing():
                raise RuntimeError("what is compiled cannot be traced")
            return forward(*args, **kwargs)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    settings = SHORT | {"torch_compile": True}
    run = worker.stage("bench", finished[variant], f"measured-compiled-{variant}", bench=settings)
    assert benchmark(run)["flops_second_count_ratio"] == pytest.approx(1, abs=1e-3)
    # The first token of an answer comes with the prompt's pass, each further one with its own.
    assert passes >= sum(query["new_tokens"] for query in benchmark(run)["real"]["queries"])


def test_a_model_that_cannot_be_traced_keeps_its_first_count(
    worker: Worker, finished: dict[str, Run], measured: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> int:
        raise ArithmeticError("what these operators multiply is not known: prim::PythonOp")

    monkeypatch.setattr("hpcft.stages.bench.traced_forward_flops", fails)
    run = worker.stage("bench", finished["lora"], "measured-once", bench=SHORT)
    name = "inference/flops_per_query_gflops"
    assert run.metrics[name] == pytest.approx(measured.metrics[name])
    assert "flops_second_count_ratio" not in benchmark(run)


def test_te2_memory_says_whose_it_is(measured: Run) -> None:
    memory = benchmark(measured)["memory"]
    assert memory["scope"].startswith("this process")
    assert memory["rank"] == 0
    assert memory["devices"] == [{"device": "cpu", "peak_rss_gb": memory["peak_rss_gb"]}]


def test_a_model_that_is_spread_is_measured_where_it_is(worker: Worker, finished: dict[str, Run]) -> None:
    run = worker.stage("bench", finished["full"], "spread", bench=SHORT | {"device_map": "auto"})
    assert benchmark(run)["settings"]["device_map"] == "auto"
    assert [place["device"] for place in benchmark(run)["memory"]["devices"]] == ["cpu"]


def test_ta6_sizes_are_those_of_weight_files(measured: Run, finished: dict[str, Run], tiny_model: Path) -> None:
    adapter = (finished["lora"].paths.final_model / "adapter_model.safetensors").stat().st_size
    base = (tiny_model / "model.safetensors").stat().st_size
    assert benchmark(measured)["sizes_gb"] == {"adapter": adapter / 1024**3, "base": base / 1024**3}
    assert measured.metrics["inference/model_size_gb"] == adapter / 1024**3
    assert measured.metrics["inference/deployed_size_gb"] == (adapter + base) / 1024**3


def test_the_fingerprint_names_machine_versions_and_settings(measured: Run) -> None:
    found = benchmark(measured)
    assert len(found["fingerprint"]["id"]) == 12
    assert {"torch", "transformers", "peft"} <= set(found["fingerprint"]["versions"])
    assert found["fingerprint"]["threads"] == 1
    assert found["settings"]["decoding"] == "greedy"
    assert {"dtype", "attention", "quantization", "cache", "torch_compile", "warmup"} <= set(found["settings"])


def test_a_quantised_model_and_a_static_cache_are_measured(worker: Worker, quantized: dict[str, Run]) -> None:
    run = worker.stage("bench", quantized["bnb-int8"], "measured-int8", bench={**SHORT, "cache": "static"})
    found = benchmark(run)
    assert (found["settings"]["quantization"], found["settings"]["cache"]) == ("bnb-int8", "static")
    assert list(found["sizes_gb"]) == ["model"]
    assert found["flops_second_count_ratio"] == pytest.approx(1, abs=1e-3)


def test_strict_fails_where_one_else_warns(worker: Worker, finished: dict[str, Run]) -> None:
    """A neighbour that takes a core is seen."""
    import subprocess
    import sys

    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with pytest.raises(HpcftError, match="not measured in a steady state: other processes used"):
            worker.stage("bench", finished["lora"], "hurried", bench={**SHORT, "strict": True})
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_a_classifier_is_measured_by_its_passes(worker: Worker, tmp_path: Path) -> None:
    from support.tiny_models import build

    model = build("distilbert", tmp_path / "model")
    table = tmp_path / "classes.csv"
    table.write_text("sentence,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(40)))
    files = {"dataset": str(table), "train_samples": 0, "eval_samples": 8}
    short = {"num_train_epochs": None, "max_steps": 1}
    run = worker.finished("to-measure", "lora", model={"name": str(model)}, data=files, training=short)
    found = worker.stage("bench", run, "measured-classes", bench=SHORT)
    assert found.metrics["inference/avg_latency_ms_per_sample"] > 0
    assert found.metrics["inference/flops_per_query_gflops"] > 0
    assert "inference/avg_ttft_ms" not in found.metrics
    assert "synthetic" not in benchmark(found)

"""What a lab notebook measures, on a small random Llama."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hpcft.lab
import hpcft.viz
from hpcft.errors import DataError, HpcftError
from hpcft.measure import lab
from hpcft.measure.lab import analyze_training_results, benchmark_inference, get_model_size
from hpcft.models.counts import print_trainable_parameters
from hpcft.models.quantization import nf4_config
from hpcft.models.quickstart import build_model

ROW = "=" * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    build_model(path, steps=0, hidden=64, layers=2, vocab=512)
    return path


@pytest.fixture
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def trainer(model: Any, log_history: list[dict[str, Any]], first: bool = True) -> Any:
    """What `analyze_training_results` looks at in a Trainer."""
    return SimpleNamespace(model=model, state=SimpleNamespace(log_history=log_history, is_world_process_zero=first))


LOG = [
    {"loss": 3.0, "step": 1},
    {"eval_loss": 2.5, "eval_perplexity": 12.2, "step": 1},
    {"loss": 2.0, "step": 2},
    {"eval_loss": 1.5, "eval_perplexity": 4.5, "step": 2},
    {"eval_loss": 1.75, "eval_perplexity": 5.8, "step": 3},
    {"train_runtime": 90.0, "train_loss": 2.5, "step": 3},
]


def test_a1_to_a3_ta1_every_name_imports_from_any_folder(tmp_path: Path) -> None:
    for module in (hpcft.lab, hpcft.viz):
        assert all(hasattr(module, name) for name in module.__all__)
    code = (
        "import sys\n"
        "from hpcft.lab import (plot_training_curves, plot_parameter_distribution, plot_inference_benchmark,\n"
        "    plot_peft_comparison, plot_model_sizes, print_trainable_parameters, analyze_training_results,\n"
        "    benchmark_inference, get_model_size)\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a9_counts_are_returned_and_printed_when_asked(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    stats = print_trainable_parameters(model, verbose=False)
    total, head = sum(p.numel() for p in model.parameters()), model.lm_head.weight.numel()
    assert stats == {
        "total_params": total,
        "trainable_params": head,
        "frozen_params": total - head,
        "trainable_percent": 100 * head / total,
    }
    assert capsys.readouterr().out == ""
    print_trainable_parameters(model, lang="zh-TW")
    assert capsys.readouterr().out.splitlines() == [
        f"總參數: {total:,}",
        f"可訓練: {head:,} ({100 * head / total:.3f}%)",
        f"凍結: {total - head:,}",
    ]


def test_ta4_a_four_bit_models_parameters_are_not_halved(folder: Path, model: Any) -> None:
    packed = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=nf4_config(torch.float32), device_map={"": "cpu"}
    )
    assert sum(p.numel() for p in packed.parameters()) < sum(p.numel() for p in model.parameters())
    counts = [print_trainable_parameters(m, verbose=False) for m in (packed, model)]
    assert counts[0]["total_params"] == counts[1]["total_params"]


def test_a29_results_of_a_training(model: Any, tmp_path: Path) -> None:
    assert analyze_training_results(trainer(model, LOG), tmp_path, save_visualizations=False) == {
        "train_loss": 2.0,
        "eval_loss": 1.75,
        "best_eval_loss": 1.5,
        "total_time_seconds": 90.0,
        "total_time_minutes": 1.5,
    }
    assert list(tmp_path.iterdir()) == []


def test_a29_a_figure_that_was_not_logged_is_absent(model: Any, tmp_path: Path) -> None:
    assert analyze_training_results(trainer(model, []), tmp_path, False) == {}
    only = analyze_training_results(trainer(model, [{"eval_loss": math.nan, "step": 1}]), tmp_path, False)
    assert list(only) == ["eval_loss"]


def test_a8_to_a12_both_pictures_in_the_output_folder_and_the_console(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    draw = lab.plot_training_curves
    monkeypatch.setattr(lab, "plot_training_curves", lambda *a, **k: titles.append(k["title"]) or draw(*a, **k))
    analyze_training_results(trainer(model, LOG), tmp_path / "out", method_name="LoRA", lang="zh-TW")
    assert capsys.readouterr().out.splitlines() == [
        ROW,
        "訓練過程視覺化",
        ROW,
        "✅ 訓練曲線已生成",
        "✅ 參數分佈圖已生成",
        f"所有視覺化圖表已保存至: {tmp_path / 'out'}",
    ]
    assert titles == ["LoRA 訓練過程"]
    names = ["parameter_distribution.png", "training_curves.png"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names


def test_a36_a_failing_picture_costs_no_result(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out").write_text("in the way of a folder")
    results = analyze_training_results(trainer(model, LOG), tmp_path / "out", lang="zh-TW")
    assert results["train_loss"] == 2.0
    assert capsys.readouterr().out.splitlines() == [ROW, "訓練過程視覺化", ROW]
    failed, kept = caplog.messages[:2]
    assert failed.startswith("⚠️  視覺化失敗: ")
    assert kept == "訓練結果已保存，請手動查看 log_history"


def test_pictures_come_from_the_first_rank_alone(
    model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_training_results(trainer(model, LOG, first=False), tmp_path)["train_loss"] == 2.0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a5_a_real_trainer(model: Any, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    ids = torch.arange(16)
    rows = [{"input_ids": ids, "labels": ids}] * 4
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=3,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    real = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    real.train()
    results = analyze_training_results(real, tmp_path)
    logged = [entry["eval_loss"] for entry in real.state.log_history if "eval_loss" in entry]
    assert len(logged) == 3
    assert (results["eval_loss"], results["best_eval_loss"]) == (logged[-1], min(logged))
    assert results["total_time_seconds"] > 0
    assert (tmp_path / "training_curves.png").is_file()
    assert (tmp_path / "parameter_distribution.png").is_file()


def test_a13_the_default_prompt_is_answered_five_times_after_two_to_warm_up(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **o: asked.append(tokenizer.decode(o["input_ids"][0])) or generate(**o)
    )
    benchmark_inference(model, tokenizer)
    assert asked == [tokenizer.decode(tokenizer("What is machine learning?")["input_ids"])] * 7


def test_a17_base_and_tuned_model_are_asked_the_same_and_stand_side_by_side(
    folder: Path, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=4, target_modules=["q_proj"]))
    results = {
        label: benchmark_inference(asked, tokenizer, num_runs=2, max_new_tokens=5)
        for label, asked in (("Base Model", model), ("LoRA Fine-tuned", tuned))
    }
    base, lora = results.values()
    # An adapter that has learned nothing yet answers as its base does.
    for name in ("prompt_tokens", "generated_tokens"):
        assert base[name] == lora[name] > 0
    assert base.keys() == lora.keys()
    path = hpcft.viz.plot_inference_benchmark(results, tmp_path / "inference_benchmark.png")
    assert path == tmp_path / "inference_benchmark.png"
    assert path.is_file()


class Clock:
    """Stands for `time`: it goes on only while the model generates."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_a14_to_a16_ta5_tokens_are_those_generated_and_warm_up_runs_do_not_count(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = Clock(), []
    monkeypatch.setattr(lab, "time", clock)
    seconds = iter([100.0, 50.0, 0.1, 0.2, 0.3, 0.4])

    def generate(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.append((model.training, torch.is_grad_enabled(), options["max_new_tokens"], options["do_sample"]))
        clock.now += next(seconds)
        # Stops after 7 of 50 tokens.
        return torch.cat([input_ids, torch.ones(1, 7, dtype=torch.long)], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    model.train()
    result = benchmark_inference(model, tokenizer, num_runs=4)
    assert asked == [(False, False, 50, False)] * 6
    assert model.training
    assert result == pytest.approx(
        {
            "latency_ms": 250.0,
            "latency_p50_ms": 250.0,
            "latency_p95_ms": 1000 * float(np.percentile([0.1, 0.2, 0.3, 0.4], 95)),
            "throughput": 28 / 1.0,
            "prompt_tokens": len(tokenizer("What is machine learning?")["input_ids"]),
            "generated_tokens": 7,
        }
    )


def test_ta5_a_model_that_stops_early_is_seen_to(model: Any, tokenizer: Any) -> None:
    whole = benchmark_inference(model, tokenizer, num_runs=2, warmup=1, max_new_tokens=20)
    inputs = tokenizer("What is machine learning?", return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    # Its third token becomes the end: it stops where that one first comes.
    model.generation_config.eos_token_id = int(answer[2])
    first = answer.tolist().index(int(answer[2])) + 1
    stopped = benchmark_inference(model, tokenizer, num_runs=2, warmup=0, max_new_tokens=20)
    assert stopped["generated_tokens"] == first <= 3
    assert whole["generated_tokens"] == len(answer)
    assert stopped["throughput"] == pytest.approx(1000 * first / stopped["latency_ms"])


def test_ta5_the_device_is_waited_for_before_each_look_at_the_clock(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    generate = model.generate
    monkeypatch.setattr(lab, "_wait_for", lambda devices: happened.append("wait"))
    monkeypatch.setattr(
        lab, "time", SimpleNamespace(perf_counter=lambda: happened.append("clock") or time.perf_counter())
    )
    monkeypatch.setattr(model, "generate", lambda **o: happened.append("generate") or generate(**o))
    benchmark_inference(model, tokenizer, num_runs=2, warmup=0, max_new_tokens=2)
    assert happened == ["wait", "clock", "generate", "wait", "clock"] * 2


def test_memory_is_there_only_where_it_can_be_measured(model: Any, tokenizer: Any) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = benchmark_inference(model.to(device), tokenizer, num_runs=1, warmup=1, max_new_tokens=2)
    assert ("memory_gb" in result) == (device == "cuda")
    if device == "cuda":
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        assert result["memory_gb"] >= weights / 1024**3


@pytest.mark.parametrize(
    ("options", "where"),
    [({"num_runs": 0}, "num_runs"), ({"warmup": -1}, "warmup"), ({"max_new_tokens": 0}, "max_new_tokens")],
)
def test_numbers_out_of_range_are_refused(model: Any, tokenizer: Any, options: dict[str, int], where: str) -> None:
    with pytest.raises(HpcftError, match=f"{where}: is .* must be at least"):
        benchmark_inference(model, tokenizer, **options)


def test_an_empty_prompt_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(HpcftError, match="prompt: is empty"):
        benchmark_inference(model, tokenizer, prompt=" ")


def test_ta6_a_models_size_is_that_of_the_model_and_not_of_its_run(tmp_path: Path) -> None:
    mine = {
        "final_model/adapter_model.safetensors": 4000,
        "final_model/adapter_config.json": 300,
        "final_model/tokenizer.json": 200,
        "final_model/second/adapter_model.safetensors": 1000,
    }
    other = (
        "training_curves.png",
        "logs.txt",
        "metrics.json",
        "config.yaml",
        "final_model/optimizer.pt",
        "final_model/training_args.bin",
        "final_model/README.md",
        "final_model/.cache/model.safetensors",
        "checkpoints/checkpoint-5/model.safetensors",
        "checkpoint-10/adapter_model.safetensors",
        "checkpoint-10/config.json",
        "attempts/1/config.json",
        "wandb/run/config.json",
    )
    for name, size in (mine | dict.fromkeys(other, 7777)).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert get_model_size(tmp_path) == 5500 / 1024**3
    # Asked for by name, a checkpoint's own model counts.
    assert get_model_size(str(tmp_path / "checkpoint-10")) == 2 * 7777 / 1024**3


def test_a19_a_real_models_size_is_all_its_files(folder: Path) -> None:
    files = [file for file in folder.iterdir() if file.is_file()]
    assert get_model_size(folder) == sum(file.stat().st_size for file in files) / 1024**3


def test_a19_sharded_weights_count_whole(tmp_path: Path, model: Any) -> None:
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert get_model_size(tmp_path) == sum(file.stat().st_size for file in tmp_path.iterdir()) / 1024**3


@pytest.mark.parametrize("name", ["", "none"], ids=["empty", "no folder"])
def test_a19_no_weights_is_an_error_and_not_zero(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="holds no weights"):
        get_model_size(tmp_path / name)

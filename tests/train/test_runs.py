"""Whole jobs through the real worker: what they learn, what they leave, how they stop and go on."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import work

from hpcft.runs.run import Run, RunState
from hpcft.tracking.offline import find_offline_runs, merge, read_offline
from hpcft.train.validate import headline

VARIANTS = ("full", "lora", "qlora")


def weights(run: Run) -> dict[str, torch.Tensor]:
    (file,) = run.paths.final_model.glob("*.safetensors")
    return load_file(file)


def losses(run: Run) -> list[float]:
    return [float(e["loss"]) for e in run.events("step")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_the_stored_ones(
    finished: dict[str, Run], stored_losses: dict[str, list[float]], variant: str
) -> None:
    found = losses(finished[variant])
    assert found == pytest.approx(stored_losses[variant], rel=2e-3)
    assert found[-1] < found[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_event_log_has_every_optimizer_step_once(finished: dict[str, Run], variant: str) -> None:
    steps = [e["step"] for e in finished[variant].events("step")]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize("variant", VARIANTS)
def test_b31_b32_b40_b41_b43_c4_c20_c21_a_run_directory_has_what_it_promises(
    finished: dict[str, Run], variant: str
) -> None:
    run = finished[variant]
    root = run.paths.root
    expected = (
        "config.yaml logs.txt metrics.json evaluation_results.json predictions.jsonl results_summary.json "
        "training_loss.png training_curves.png done.json status.json"
    )
    assert [name for name in expected.split() if not (root / name).is_file()] == []
    assert run.state is RunState.SUCCESS
    names = {p.name for p in run.paths.final_model.iterdir()}
    wanted = {"config.json", "model.safetensors"} if variant == "full" else {"adapter_config.json"}
    assert wanted <= names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize("variant", VARIANTS)
def test_c18_the_log_tells_of_the_system_and_of_each_logged_step(finished: dict[str, Run], variant: str) -> None:
    lines = finished[variant].paths.logs.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [A-Z]+ - ", line) for line in lines)
    system = [line for line in lines if " - INFO - " in line]
    progress = [line for line in lines if " - PROGRESS - " in line]
    assert any("on cpu" in line for line in system)
    assert any("loading the model" in line for line in system)
    assert any("training rows" in line for line in system)
    assert any(re.search(r"Step \d+: loss=[\d.]+ \| learning_rate=[\d.e-]+ \| epoch=", line) for line in progress)
    assert any("validation/loss=" in line for line in progress)


def best_step(run: Run) -> int:
    return int(min(run.events("validation"), key=lambda e: e["metrics"]["validation/loss"])["step"])


def test_b41_the_summary_has_the_configuration_the_loss_and_the_scores(finished: dict[str, Run]) -> None:
    for variant, run in finished.items():
        summary = json.loads(run.paths.results_summary.read_text())
        assert (summary["config"]["variant"], summary["config"]["lora.r"]) == (variant, 4)
        assert summary["train_loss"] == run.metrics["train/final_loss"]
        assert summary["evaluation"] == json.loads(run.paths.evaluation.read_text())


def test_b42_tc9_best_and_last_checkpoint_stay_and_no_other(finished: dict[str, Run]) -> None:
    for run in finished.values():
        kept = {p.name for p in run.paths.checkpoints.iterdir()}
        assert kept == {f"checkpoint-{best_step(run)}", "checkpoint-12"}


def test_b43_the_kept_model_is_the_best_checkpoint_s(finished: dict[str, Run]) -> None:
    for run in finished.values():
        (file,) = run.paths.final_model.glob("*.safetensors")
        best = run.paths.checkpoints / f"checkpoint-{best_step(run)}"
        assert file.read_bytes() == (best / file.name).read_bytes()


def test_b43_b44_without_validation_there_is_no_checkpoint_and_a_model_all_the_same(worker: Any) -> None:
    run = worker.finished("plain", "lora", evaluation={"enabled": False}, training={"num_train_epochs": 1})
    assert not run.paths.checkpoints.exists()
    assert (run.paths.final_model / "adapter_model.safetensors").is_file()
    assert not [k for k in run.metrics if k.startswith("final/")]


def test_b27_b28_scores_are_on_zero_to_one_with_their_provenance(finished: dict[str, Run]) -> None:
    scores = json.loads(finished["qlora"].paths.evaluation.read_text())
    for key in ("bleu", "rouge1", "rouge2", "rougeL", "meteor"):
        assert 0 <= scores[key] <= 1
    assert scores["num_samples"] == 4
    assert scores["provenance"]["f1_score"] == "ROUGE-L F1"
    assert scores["provenance"]["references_max"] > 1


def test_e15_e17_te2_summary_keys_are_measured_or_absent(finished: dict[str, Run]) -> None:
    for variant, run in finished.items():
        metrics = run.metrics
        for key in (
            "train/total_training_flops_tflops",
            "train/throughput_samples_per_sec",
            "train/throughput_tokens_per_sec",
            "final/validation_f1_score",
            "inference/model_size_gb",
        ):
            assert metrics[key] >= 0, (variant, key)
            assert math.isfinite(metrics[key])
        assert metrics["train/peak_rss_gb"] > 0.1
        assert "train/peak_vram_gb" not in metrics
        assert metrics["train/world_size"] == 1
        size = sum(f.stat().st_size for f in run.paths.final_model.glob("*.safetensors"))
        assert metrics["inference/model_size_gb"] == pytest.approx(size / 1024**3)
        assert f"Model Size: {size / 1024**3:.2f} GB" in run.paths.logs.read_text()


def test_e8_e12_the_peak_of_gpu_memory_counts_from_the_training_s_start_and_is_told(worker: Any) -> None:
    def before(_: int) -> None:
        """A GPU of which loading has held more than training does."""
        from hpcft.train import run as training
        from hpcft.train.trainer import FineTuner

        held, whole = {"gb": 9.0}, FineTuner.training_step

        def training_step(self: FineTuner, *args: Any, **kwargs: Any) -> Any:
            held["gb"] = max(held["gb"], 1.234)
            return whole(self, *args, **kwargs)

        FineTuner.training_step = training_step  # type: ignore[method-assign]
        training.reset_peak = lambda device: held.update(gb=0.0)
        training.peak_gb = lambda device: {"train/peak_vram_gb": held["gb"]}

    short = {"num_train_epochs": None, "max_steps": 1}
    run = worker.make("peak", "lora", evaluation={"enabled": False}, training=short)
    assert work(run, before=before) == 0, run.paths.batch_log.read_text()[-3000:]
    assert run.metrics["train/peak_vram_gb"] == 1.234
    assert "Peak Training VRAM: 1.23 GB" in run.paths.logs.read_text()


def test_e10_each_epoch_has_its_time_and_its_throughput(finished: dict[str, Run]) -> None:
    for run in finished.values():
        steps, epochs = list(run.events("step")), [e["metrics"] for e in run.events("epoch")]
        assert [figures["epoch"] for figures in epochs] == [1, 2]
        for figures, mine in zip(epochs, (steps[:6], steps[6:]), strict=True):
            seconds = sum(e["seconds"] for e in mine)
            assert figures["train/epoch_time_min"] == pytest.approx(seconds / 60, abs=1e-6)
            samples = sum(e["samples"] for e in mine)
            assert samples == 48
            assert figures["train/throughput_samples_per_sec"] == pytest.approx(samples / seconds, rel=1e-3)


def test_e11_answers_are_generated_and_scored_at_each_epoch_and_the_scores_are_told(finished: dict[str, Run]) -> None:
    for run in finished.values():
        found, log = [e["metrics"] for e in run.events("validation")], run.paths.logs.read_text()
        assert [scores["epoch"] for scores in found] == [1, 2]
        for scores in found:
            assert scores["validation/f1_score"] == scores["validation/rougeL"]
            assert f"Epoch {scores['epoch']:g}: Val F1: {scores['validation/f1_score']:.4f}" in log
    told = headline({"validation/accuracy": 0.5, "validation/f1_score": 0.25})
    assert told == "Val Acc: 0.5000, Val F1: 0.2500"


def test_e13_flops_are_those_of_the_steps_that_were_done(finished: dict[str, Run]) -> None:
    from transformers import AutoConfig

    from hpcft.measure.flops import analytic_forward_flops

    for variant, run in finished.items():
        config = AutoConfig.from_pretrained(run.config["model"]["name"])
        one, two = (analytic_forward_flops(config, 1, length) for length in (1, 2))
        quadratic = (two - 2 * one) // 2
        linear = one - quadratic
        steps = list(run.events("step"))
        forward = sum(linear * e["padded_tokens"] + quadratic * e["padded_squares"] for e in steps)
        ratio = run.metrics["train/total_training_flops_tflops"] * 1e12 / forward
        if variant == "full":
            assert ratio == pytest.approx(3.0, rel=1e-6)
        else:
            # A frozen base saves the gradients of its weights; the adapters of this tiny model are not tiny.
            assert 2.0 < ratio < 2.7


def test_ta4_four_bit_weights_are_counted_whole(finished: dict[str, Run]) -> None:
    assert finished["qlora"].metrics["model/total_params"] == finished["lora"].metrics["model/total_params"]
    assert finished["qlora"].metrics["model/trainable_params"] == finished["lora"].metrics["model/trainable_params"]


def test_e5_u6_the_offline_wandb_file_has_the_event_logs_points(finished: dict[str, Run]) -> None:
    run = finished["qlora"]
    files = find_offline_runs(run.paths.wandb)
    recorded = merge([read_offline(path) for path in files[str(run.id)]])
    every = 20
    expected = {e["step"]: e["loss"] for e in run.events("step") if e["step"] % every == 0 or e["step"] == 12}
    found = {row["step"]: row["train/loss"] for row in recorded.history if "train/loss" in row}
    assert found == pytest.approx(expected)
    for event in run.events("validation"):
        row = next(r for r in recorded.history if r.get("step") == event["step"] and "validation/bleu" in r)
        assert row["validation/loss"] == pytest.approx(event["metrics"]["validation/loss"])
    for key, value in run.metrics.items():
        assert recorded.summary[key] == pytest.approx(value), key
    assert recorded.config["model_variant"] == "QLoRA"
    assert recorded.config["quantization_strategy"] == "int4"
    assert recorded.config["lora.r"] == 4
    assert recorded.run_id == run.id


@pytest.mark.parametrize("variant", ["lora", "qlora"])
def test_the_adapter_loads_in_peft_and_generates(finished: dict[str, Run], variant: str) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    folder = finished[variant].paths.final_model
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("name[The Ivy Mill]", return_tensors="pt")
    output = model.generate(**ids, max_new_tokens=5, do_sample=False)
    assert output.shape[1] > ids["input_ids"].shape[1]


@pytest.mark.parametrize("variant", ["full", "qlora"])
def test_r5_a_job_that_was_stopped_ends_with_the_weights_of_an_undisturbed_one(
    finished: dict[str, Run], worker: Any, variant: str
) -> None:
    run = worker.make(f"stopped-{variant}", variant)
    code = worker.run(run, until=lambda r: sum(1 for _ in r.events("step")) >= 3)
    assert code == 75
    assert run.state is RunState.PENDING
    assert worker.run(run) == 0
    assert [e["step"] for e in run.events("step")] == list(range(1, 13))
    assert losses(run) == losses(finished[variant])
    expected, found = weights(finished[variant]), weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert run.metrics["train/total_training_flops_tflops"] == pytest.approx(
        finished[variant].metrics["train/total_training_flops_tflops"]
    )


def test_a_start_that_finds_the_end_marker_ends_at_once(finished: dict[str, Run], worker: Any) -> None:
    before = finished["lora"].paths.attempt_numbers()
    assert worker.run(finished["lora"]) == 0
    assert finished["lora"].paths.attempt_numbers() == before


def test_a_job_that_asked_for_a_gpu_and_sees_none_stops_at_once(worker: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    run = worker.make("nogpu", "lora", resources={"accelerator": "cuda"})
    assert worker.run(run) == 78
    assert run.state is RunState.FAILURE
    assert run.status is not None
    assert "asked for a GPU" in run.status.message
    assert "accelerator=cpu" in run.status.message


def test_files_are_private(finished: dict[str, Run]) -> None:
    run = finished["qlora"]
    code = run.paths.root / "code"
    own = {run.paths.config, run.paths.batch_log}  # made by the test, not by the worker
    loose = [p for p in run.paths.root.rglob("*") if p.stat().st_mode & 0o077 and not p.is_relative_to(code)]
    loose = [p for p in loose if p not in own]
    # wandb sets a mode of its own on some files; its folder is private, so nobody reaches them.
    assert [p for p in loose if not p.is_relative_to(run.paths.wandb)] == []
    assert run.paths.wandb.stat().st_mode & 0o077 == 0
    assert run.paths.root.stat().st_mode & 0o077 == 0


def test_an_empty_tensor_is_no_artifact(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from hpcft.errors import HpcftError
    from hpcft.train.finish import verify_model

    (tmp_path / "adapter_config.json").write_text("{}")
    for tensor, words in ((torch.zeros(0), "empty"), (torch.tensor([float("nan")]), "NaN")):
        save_file({"a": tensor}, tmp_path / "adapter_model.safetensors")
        with pytest.raises(HpcftError, match=words):
            verify_model(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(HpcftError, match="cannot be read"):
        verify_model(tmp_path)


def test_the_model_is_on_the_disk_before_the_end_marker_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcft.runs.create import begin_attempt
    from hpcft.runs.paths import RunPaths
    from hpcft.train.finish import mark_done

    paths = RunPaths(tmp_path)
    attempt = begin_attempt(paths)
    (paths.final_model / "additional_chat_templates").mkdir(parents=True)
    files = [paths.final_model / name for name in ("model.safetensors", "additional_chat_templates/tools.jinja")]
    for file in files:
        file.touch()
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    mark_done(paths, attempt, 1, {})
    marker = next(i for i, path in enumerate(synced) if "done.json" in path.name)
    assert {*files, *(file.parent for file in files)} <= set(synced[:marker])


def test_g1_light_modules_load_no_heavy_ones() -> None:
    code = (
        "import sys\n"
        "import hpcft.spec.build, hpcft.runs.run, hpcft.cluster.submit, hpcft.tracking.names, hpcft.report.summary\n"
        "import hpcft.cli.submit, hpcft.cli.run, hpcft.cli.launch, hpcft.cli.show, hpcft.cli.config\n"
        "heavy = {'torch', 'transformers', 'datasets', 'wandb', 'matplotlib', 'peft', 'deepspeed', 'submitit'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

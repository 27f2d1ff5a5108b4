"""What a finished job leaves behind of its gradients, and the study from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import forked
from support.worker import Worker

from hpcft.errors import ConfigError
from hpcft.runs.gradients import gradients_of, load_gradient_log_from_csv
from hpcft.runs.run import Run, RunState
from hpcft.sensitivity import DatasetType, ExperimentConfig, TargetModuleGroup

MEASURED = {"enabled": True}
FILES = [f"gradient_analysis.{end}" for end in ("group_norms.csv", "layer_norms.csv", "summary.json")]
FILES += [
    f"{name}{end}.png"
    for name in ("gradient_norms", "layer_heatmap", "layer_comparison", "gradient_evolution")
    for end in ("", "_log")
]


@pytest.fixture(scope="module")
def measured(worker: Worker) -> Run:
    """A finished run of 12 steps with its gradients measured."""
    group = {"target_module_group": "attention_only"}
    return worker.finished("measured", "lora", pictures=True, gradients=MEASURED, lora=group)


def test_b31_to_b43_a_measured_run_has_every_file_of_the_study(measured: Run) -> None:
    root = measured.paths.root
    wanted = ["config.yaml", "training_loss.png", *FILES, "evaluation_results.json", "results_summary.json"]
    wanted += ["final_model/adapter_config.json", "final_model/adapter_model.safetensors"]
    assert [name for name in wanted if not (root / name).is_file()] == []
    assert [p for p in root.iterdir() if p.stat().st_mode & 0o077 and p.name.startswith("gradient_")] == []


def test_b33_tb1_each_optimizer_step_has_one_row_although_gradients_are_accumulated(measured: Run) -> None:
    assert measured.config["training"]["gradient_accumulation_steps"] == 2
    log = load_gradient_log_from_csv(measured.paths.gradients)
    assert log.steps == list(range(1, 13))
    assert log == gradients_of(measured)
    assert log.layers == 2


def test_b41_the_summary_has_configuration_loss_and_the_statistics_of_the_gradients(measured: Run) -> None:
    summary = json.loads(measured.paths.results_summary.read_text())
    assert summary["config"]["gradients.enabled"] is True
    assert summary["train_loss"] == measured.metrics["train/final_loss"]
    stats = summary["gradient_stats"]
    assert stats == json.loads((measured.paths.root / "gradient_analysis.summary.json").read_text())
    assert stats["attention"]["mean"] > 0
    assert stats["mlp"]["mean"] == stats["embed"]["mean"] == stats["lm_head"]["mean"] == 0


def test_b27_b40_scores_are_taken_after_training_without_being_asked_for(measured: Run) -> None:
    scores = json.loads(measured.paths.evaluation.read_text())
    assert {"bleu", "rouge1", "rouge2", "rougeL", "meteor", "num_samples"} <= set(scores)


def test_b12_the_adapter_s_scale_is_alpha_over_r(measured: Run) -> None:
    adapter = json.loads((measured.paths.final_model / "adapter_config.json").read_text())
    assert (adapter["lora_alpha"], adapter["r"], adapter["use_rslora"]) == (32, 4, False)


def test_a_run_that_was_stopped_has_one_log_over_both_attempts(measured: Run, worker: Worker) -> None:
    run = worker.make("stopped", "lora", gradients=MEASURED, lora={"target_module_group": "attention_only"})
    assert worker.run(run, until=lambda r: sum(1 for _ in r.events("step")) >= 3) == 75
    assert worker.run(run) == 0
    again, undisturbed = (load_gradient_log_from_csv(r.paths.gradients) for r in (run, measured))
    assert again == undisturbed


def test_b21_b22_what_was_asked_not_to_be_measured_is_not_there(worker: Worker) -> None:
    run = worker.finished(
        "sparse",
        "lora",
        pictures=True,
        gradients={**MEASURED, "log_frequency": 3, "layer_norm": False},
        training={"num_train_epochs": 1},
        evaluation={"enabled": False},
    )
    log = load_gradient_log_from_csv(run.paths.gradients)
    assert log.steps == [3, 6]
    assert not (run.paths.root / "gradient_analysis.layer_norms.csv").exists()
    assert not list(run.paths.root.glob("layer_*.png"))


def test_without_measuring_nothing_of_it_is_left(worker: Worker) -> None:
    run = worker.finished("unmeasured", "lora", training={"num_train_epochs": 1}, evaluation={"enabled": False})
    assert not [p.name for p in run.paths.root.iterdir() if p.name.startswith(("gradient", "layer_"))]
    assert "gradient_stats" not in json.loads(run.paths.results_summary.read_text())


def test_a_picture_that_fails_costs_no_result(worker: Worker) -> None:
    run = worker.make(
        "broken", "lora", gradients=MEASURED, training={"num_train_epochs": 1}, evaluation={"enabled": False}
    )
    assert forked.work(run, before=_break_pictures, pictures=True) == 0
    assert run.state is RunState.SUCCESS
    assert not list(run.paths.root.glob("layer_heatmap*.png"))
    assert (run.paths.root / "layer_comparison.png").is_file()
    assert "gradient_stats" in json.loads(run.paths.results_summary.read_text())
    assert "no colours" in run.paths.logs.read_text()


def _break_pictures(rank: int) -> None:
    from hpcft.viz import gradient_layers

    def fail(*_: Any) -> None:
        raise RuntimeError("no colours")

    gradient_layers._draw_heatmap = fail


def test_b47_a_configuration_is_set_by_the_keys_names() -> None:
    config = ExperimentConfig(experiment_name="mine")
    config.data.dataset_type = DatasetType.E2E_NLG
    config.lora.target_module_group = TargetModuleGroup.MLP_ONLY
    config.lora.r = 16
    config.training.max_steps = 200
    config.training.learning_rate = 1e-4
    config.training.batch_size = 2
    assert config.values() == {
        "name": "mine",
        "data.dataset": "e2e_nlg",
        "lora.target_module_group": "mlp_only",
        "lora.r": 16,
        "training.max_steps": 200,
        "training.learning_rate": 1e-4,
        "training.per_device_train_batch_size": 2,
    }
    assert (config.lora.r, config.lora.lora_alpha, config.experiment_name) == (16, 32, "mine")
    assert ExperimentConfig().experiment_name is None
    assert {"dataset_type", "max_length"} <= set(dir(config.data))


def test_b47_a_key_that_does_not_exist_names_the_nearest() -> None:
    config = ExperimentConfig()
    with pytest.raises(ConfigError, match=r"ExperimentConfig.training.lernin_rate: .*training.learning_rate"):
        config.training.lernin_rate = 1
    with pytest.raises(ConfigError, match=r"section; name a key in it"):
        config.lora = 8
    with pytest.raises(ConfigError, match=r"ExperimentConfig.lora.max_steps"):
        config.lora.max_steps = 8


def test_b48_b49_an_experiment_runs_here_and_gives_its_norms_and_its_summary(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcft.sensitivity import generate_summary_report, plot_gradient_norms, run_single_experiment

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = ExperimentConfig(experiment_name="mlp")
    config.model.name = tiny_model
    config.data.dataset_type = DatasetType.QUICKSTART
    config.data.train_samples, config.data.eval_samples, config.data.max_length = 24, 2, 256
    config.lora.target_module_group = TargetModuleGroup.MLP_ONLY
    config.training.max_steps = 3
    config.evaluation.max_new_tokens = 4
    config.resources.accelerator = "cpu"
    results = run_single_experiment(config)
    assert set(results) == {"config", "output_dir", "gradient_log", "summary", "evaluation"}
    assert results["output_dir"] == tmp_path / "results" / "mlp"
    assert results["config"]["lora.target_module_group"] == "mlp_only"
    assert results["summary"]["mlp"]["mean"] > results["summary"]["attention"]["mean"] == 0
    assert results["gradient_log"].steps == [1, 2, 3]
    assert 0 <= results["evaluation"]["rougeL"] <= 1
    log = load_gradient_log_from_csv("results/mlp/gradient_analysis")
    assert log == results["gradient_log"]
    paths = plot_gradient_norms({"First": log, "Second": log}, title="Both", save_path="both.png")
    assert [path.name for path in paths] == ["both.png", "both_log.png"]
    assert set(generate_summary_report({"MLP": log}, "report")) == {"experiments", "comparison"}


def test_the_study_is_light_to_import() -> None:
    heavy = "{'torch', 'matplotlib', 'numpy', 'pandas', 'transformers'}"
    code = f"import sys, hpcft.sensitivity\nprint({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""`hpcft sensitivity`: what is submitted, and what is compared."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure
from support.gradients import finished_run, made

from hpcft.runs.gradients import write_gradients

Call = Callable[..., Any]
BATCH = ("e2e_attention", "e2e_mlp", "samsum_attention", "samsum_mlp")
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
# The table of part B: option, the key that it sets, its default, another value as it is typed and as it is read.
OPTIONS = [
    (7, "--dataset", "data.dataset", "e2e_nlg", "samsum", "samsum"),
    (8, "--num_samples", "data.train_samples", 500, "0", 0),
    (9, "--max_length", "data.max_length", 128, "96", 96),
    (10, "--target", "lora.target_module_group", "attention_only", "all", "all"),
    (11, "--r", "lora.r", 8, "16", 16),
    (12, "--lora_alpha", "lora.lora_alpha", 32, "64", 64),
    (13, "--lora_dropout", "lora.lora_dropout", 0.1, "0.05", 0.05),
    (14, "--batch_size", "training.per_device_train_batch_size", 4, "2", 2),
    (15, "--grad_accum", "training.gradient_accumulation_steps", 4, "8", 8),
    (16, "--max_steps", "training.max_steps", 100, "50", 50),
    (17, "--lr", "training.learning_rate", 2e-4, "1e-4", 1e-4),
    (18, "--warmup_steps", "training.warmup_steps", 10, "5", 5),
    (19, "--seed", "training.seed", 42, "7", 7),
    (20, "--model", "model.name", TINYLLAMA, "org/other", "org/other"),
    (21, "--log_frequency", "gradients.log_frequency", 1, "10", 10),
    (24, "--eval_samples", "data.eval_samples", 100, "20", 20),
    (25, "--experiment_name", "name", None, "mine", "mine"),
    ("", "--phase_strategy", "lora.phase_strategy", None, "early->late", "early->late"),
    ("", "--phase1_end", "lora.phase1_end", 100, "10", 10),
    ("", "--phase2_end", "lora.phase2_end", 200, "120", 120),
]


# A model and rows that need no network.
SMALL = ("--model", "quickstart", "--dataset", "quickstart")


def job_of(hpcft: Call, *words: str) -> dict[str, Any]:
    """The keys of the job that `hpcft submit` and `hpcft sensitivity` make of some words, without its checks."""
    answer = hpcft("config", "show", *words, "--cluster", "local", "--json")
    assert answer.code == 0, answer.err
    return dict(json.loads(answer.out))


def submitted(hpcft: Call, *words: str) -> list[dict[str, Any]]:
    """The jobs that are submitted to the fake cluster, as their run directories keep them."""
    answer = hpcft("sensitivity", *words, "--cluster", "slurm")
    assert answer.code == 0, answer.err
    return [yaml.safe_load(path.read_text()) for path in sorted(Path("results").glob("*/config.yaml"))]


@pytest.mark.parametrize(("row", "option", "key", "default", "typed", "value"), OPTIONS, ids=[o[1] for o in OPTIONS])
def test_b7_to_b25_an_option_sets_its_key_and_its_default_is_the_table_s(
    hpcft: Call, row: int, option: str, key: str, default: Any, typed: str, value: Any
) -> None:
    assert job_of(hpcft)[key] == default
    assert job_of(hpcft, option, typed)[key] == value
    assert job_of(hpcft, option.replace("_", "-"), typed)[key] == value


def test_b22_b23_switches_turn_layers_and_evaluation_off(hpcft: Call) -> None:
    for switch, key in (("--no_layer_norm", "gradients.layer_norm"), ("--no_eval", "evaluation.enabled")):
        assert job_of(hpcft)[key] is True
        assert job_of(hpcft, switch)[key] is False
        assert job_of(hpcft, switch.replace("_", "-"))[key] is False


def test_tb13_the_help_says_the_defaults_that_hold(hpcft: Call) -> None:
    # A long default breaks at its hyphens.
    shown = "".join(hpcft("sensitivity", "--help").out.split())
    for _, option, _, default, _, _ in OPTIONS:
        spelled = option.replace("_", "-")
        assert spelled in shown
        if default is not None:
            assert f"[{default}]" in shown, option


def test_b5_a_job_by_options_alone_is_measured_and_named_after_what_it_is(hpcft: Call, fake_slurm: Any) -> None:
    (job,) = submitted(hpcft, *SMALL, "--target", "mlp_only", "--r", "4", "--lr", "1e-3")
    assert job["gradients"] == {"enabled": True, "log_frequency": 1, "layer_norm": True}
    (folder,) = Path("results").iterdir()
    assert folder.name.startswith("quickstart_mlp_only_r4_lr0.001_2")


def test_b6_tb2_options_and_the_preset_combine(hpcft: Call, fake_slurm: Any) -> None:
    (job,) = submitted(hpcft, "--preset", "e2e_attention", "--batch_size", "2", "--grad_accum", "8", *SMALL)
    assert (job["name"], job["lora"]["target_module_group"]) == ("e2e_attention_only", "attention_only")
    assert job["training"]["per_device_train_batch_size"] == 2
    assert job["training"]["gradient_accumulation_steps"] == 8


@pytest.mark.parametrize("preset", BATCH)
def test_b2_tb2_tb13_a_preset_is_the_table_but_for_data_target_and_name(hpcft: Call, preset: str) -> None:
    job, default = job_of(hpcft, "--preset", preset), job_of(hpcft)
    assert job.pop("gradients.enabled") is True
    assert default.pop("gradients.enabled") is False
    told = {"data.dataset", "lora.target_module_group", "name"}
    assert {key for key in job if job[key] != default[key]} <= told
    assert job["data.train_samples"] == 500
    data, _, target = preset.partition("_")
    assert job["data.dataset"].startswith(data)
    assert job["lora.target_module_group"] == f"{target}_only"


@pytest.mark.parametrize("preset", BATCH)
def test_b45_a_preset_s_result_is_called_after_data_and_target(hpcft: Call, preset: str) -> None:
    assert job_of(hpcft, "--preset", preset)["name"] == f"{preset}_only"


def test_other_words_of_the_same_job_win_as_ever(hpcft: Call, fake_slurm: Any, project: Path) -> None:
    (project / "hpcft.yaml").write_text("gradients: {enabled: false, log_frequency: 5}\n")
    (job,) = submitted(hpcft, *SMALL, "lora.r=2")
    # The verb is stronger than a file, and leaves what else the file says.
    assert job["gradients"] == {"enabled": True, "log_frequency": 5, "layer_norm": True}
    refused = hpcft("sensitivity", *SMALL, "--set", "gradients.enabled=false", "--cluster", "slurm")
    assert refused.code == 2
    assert "--set gradients.enabled=false: is what this verb is for" in refused.err


def test_dynamic_lora_means_attention_first_where_no_strategy_is_named(hpcft: Call, fake_slurm: Any) -> None:
    (job,) = submitted(hpcft, "--preset", "e2e_attention", "--dynamic_lora", *SMALL, "--name", "one")
    assert (job["lora"]["phase_strategy"], job["lora"]["target_module_group"]) == ("attn->mlp->both", "both")
    jobs = submitted(
        hpcft, *SMALL, "--dynamic_lora", "--phase_strategy", "early->late", "--phase1_end", "5", "--name", "two"
    )
    assert (jobs[1]["lora"]["phase_strategy"], jobs[1]["lora"]["phase1_end"]) == ("early->late", 5)


def test_b3_tb2_batch_submits_all_presets_each_with_every_option_that_was_typed(hpcft: Call, fake_slurm: Any) -> None:
    # Values that an earlier tool took for its defaults and dropped.
    typed = ("--num_samples", "500", "--max_steps", "100", "--lora_dropout", "0.2", "--seed", "1")
    jobs = submitted(hpcft, "--batch", *typed, *SMALL, "--set", "gradients.log_frequency=2")
    assert [job["name"] for job in jobs] == [f"{preset}_only" for preset in BATCH]
    assert fake_slurm.submissions == 4
    for job in jobs:
        assert (job["data"]["train_samples"], job["training"]["max_steps"]) == (500, 100)
        assert (job["lora"]["lora_dropout"], job["training"]["seed"]) == (0.2, 1)
        assert job["gradients"] == {"enabled": True, "log_frequency": 2, "layer_norm": True}
    assert [job["lora"]["target_module_group"] for job in jobs] == ["attention_only", "mlp_only"] * 2


def test_b3_a_dry_run_of_the_batch_makes_nothing(hpcft: Call, fake_slurm: Any) -> None:
    shown = hpcft("sensitivity", "--batch", *SMALL, "--cluster", "slurm", "--dry-run", "--json")
    assert list(json.loads(shown.out)) == list(BATCH)
    assert all("sbatch" in job["script"].lower() for job in json.loads(shown.out).values())
    assert (fake_slurm.submissions, Path("results").exists()) == (0, False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--batch", "--preset", "e2e_mlp"), 2, "--preset: is one of four with --batch"),
        (("--batch", "--name", "x"), 2, "--name: would be of four runs"),
        (("--batch", "--compare", "a", "b"), 2, "exclude each other"),
        (("--compare", "a", "b", "--lr", "1"), 2, "--lr: means nothing with --compare"),
        (("--compare", "a", "b", "--wait"), 2, "--wait: means nothing with --compare"),
        (("--compare", "a", "b", "--lang", "fr"), 2, "--lang: 'fr' is not one of en, zh-TW"),
        (("--compare",), 2, "0 of what was named can be compared; two are needed"),
        (("--compare", "nothing"), 2, "no run called 'nothing'"),
        (("--log-frequency", "0"), 78, "--log-frequency: gradients.log_frequency: must be at least 1"),
        (("--phase-strategy", "mlp->attn"), 78, "did you mean both->mlp->attn"),
    ],
)
def test_what_is_typed_wrongly_is_named(hpcft: Call, words: tuple[str, ...], code: int, said: str) -> None:
    answer = hpcft("sensitivity", *words)
    assert (answer.code, said in answer.err) == (code, True), answer.err


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made, and their files are empty: each would take a second to render."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: Path(path).touch())


@pytest.fixture
def results(project: Path, unrendered: None) -> Path:
    """Two finished runs, one without gradients, one that goes on, and the tables of an earlier tool."""
    folder = project / "results"
    lora = {"target_module_group": "attention_only", "r": 4}
    finished_run(folder / "attention", made(20, 2, trained=("attention",)), lora=lora, data={"dataset": "e2e_nlg"})
    finished_run(folder / "both", made(20, 2), lora={**lora, "target_module_group": "both"})
    finished_run(folder / "plain", None)
    finished_run(folder / "going", made(3, 2)).done.unlink()
    (folder / "earlier").mkdir()
    write_gradients(made(10, 2, trained=("mlp",)), folder / "earlier" / "gradient_analysis")
    return folder


def comparison(results: Path) -> tuple[Path, dict[str, Any]]:
    (folder,) = results.glob("comparison_*")
    text = (folder / "experiment_summary.json").read_text()
    return folder, json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_b4_finished_results_are_compared_in_a_folder_beside_them(hpcft: Call, results: Path) -> None:
    answer = hpcft("sensitivity", "--compare", "results/attention", "results/both", "results/earlier")
    assert answer.code == 0, answer.err
    folder, summary = comparison(results)
    assert re.fullmatch(r"comparison_\d{8}_\d{6}", folder.name)
    names = ["attention", "both", "earlier"]
    assert list(summary["experiments"]) == list(summary["comparison"]) == names
    pictures = [f"{name}_layer_{kind}" for name in names for kind in ("heatmap", "comparison")]
    pictures.append("comparison_gradient_norms")
    assert {file.stem for file in folder.glob("*.png")} == {f"{p}{end}" for p in pictures for end in ("", "_log")}
    assert summary["experiments"]["attention"]["target_module_group"] == "attention_only"
    assert summary["experiments"]["attention"]["model/trainable_params"] == 1000
    assert summary["experiments"]["both"]["gradient_stats"]["mlp"]["peak_step"] == 1
    assert "attention" in answer.out
    assert str(folder) in answer.err


def test_tb7_a_ratio_that_does_not_exist_is_null_and_a_dash_in_the_table(hpcft: Call, results: Path) -> None:
    mlp = {"target_module_group": "mlp_only", "r": 4}
    finished_run(results / "mlp", made(20, 2, trained=("mlp",)), lora=mlp)
    answer = hpcft("sensitivity", "--compare", "attention", "mlp", "both")
    _, summary = comparison(results)
    assert summary["comparison"]["attention"]["mlp_mean"] == 0
    assert summary["comparison"]["mlp"]["attention_mean"] == 0
    assert summary["comparison"]["attention"]["attention_to_mlp_ratio"] is None
    assert summary["comparison"]["mlp"]["attention_to_mlp_ratio"] is None
    cells = {words[0]: words[1:] for line in answer.out.splitlines() if (words := line.split())}
    assert [cell == "-" for cell in cells["attention"][:3]] == [False, True, True]
    assert [cell == "-" for cell in cells["mlp"][:3]] == [True, False, True]
    both = summary["comparison"]["both"]
    assert both["attention_to_mlp_ratio"] == pytest.approx(both["attention_mean"] / both["mlp_mean"])


def test_b52_what_cannot_be_compared_is_named_with_its_reason(hpcft: Call, results: Path) -> None:
    (results / "notes.txt").write_text("")
    answer = hpcft("sensitivity", "--compare", *sorted(map(str, results.iterdir())))
    assert answer.code == 0, answer.err
    assert "left out: plain: has no gradient norms" in answer.err
    assert "left out: going: has not finished" in answer.err
    assert f"left out, no runs: {results / 'notes.txt'}" in answer.err
    answer = hpcft("sensitivity", "--compare", "plain", "both")
    assert (answer.code, "1 of what was named can be compared" in answer.err) == (2, True)


def test_b50_the_ranks_of_a_sweep_are_compared_by_its_name_and_say_what_they_differ_in(
    hpcft: Call, project: Path, unrendered: None
) -> None:
    folder = project / "results" / "ranks"
    for number, rank in enumerate((4, 8, 16, 32), 1):
        finished_run(folder / f"{number:04d}", made(10, 2, height=1 / rank), lora={"r": rank})
    lines = [{"number": n, "overrides": {"lora.r": r}} for n, r in enumerate((4, 8, 16, 32), 1)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {"id": "a", "method": "grid", "metric": "m", "goal": "minimize", "keys": ["lora.r"], "trials": 4}
    settings |= {"seed": 0, "concurrency": None, "controlled": False, "cluster": "local", "scheduler": "local"}
    (folder / "sweep.json").write_text(json.dumps(settings))
    for words in (("ranks",), tuple(map(str, sorted(folder.iterdir())))):
        answer = hpcft("sensitivity", "--compare", *words, "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        assert list(found["comparison"]) == ["0001 r=4", "0002 r=8", "0003 r=16", "0004 r=32"]
    assert Path(found["directory"], "0003_r=16_layer_heatmap.png").is_file()


def test_b50_the_recipes_are_commands(hpcft: Call) -> None:
    whole = job_of(hpcft, "--preset", "e2e_attention", "--num_samples", "0", "--max_steps", "500")
    assert (whole["data.train_samples"], whole["training.max_steps"]) == (0, 500)
    quick = job_of(hpcft, "--preset", "e2e_attention", "--num_samples", "100", "--max_steps", "50")
    assert (quick["data.train_samples"], quick["training.max_steps"]) == (100, 50)
    trials = json.loads(hpcft("sweep", "gradient_rank", "--cluster", "local", "--dry-run", "--json").out)
    values = [trial["overrides"] for trial in trials["overrides"]]
    assert sorted({int(value["lora.r"]) for value in values}) == [4, 8, 16, 32]
    assert {value["lora.target_module_group"] for value in values} == {"attention_only", "mlp_only"}


def test_b52_it_runs_from_any_folder_and_says_where_it_looks(hpcft: Call, project: Path) -> None:
    (project / "deep" / "down").mkdir(parents=True)
    os.chdir(project / "deep" / "down")
    assert hpcft("sensitivity", "--preset", "e2e_mlp", *SMALL, "--cluster", "local", "--dry-run").code == 0
    answer = hpcft("sensitivity", "--compare", "e2e_mlp_only", "e2e_attention_only")
    assert answer.code == 2
    assert "results: no run called 'e2e_mlp_only'\n  there is no run in results yet" in answer.err


def test_b51_the_advice_for_a_full_gpu_is_what_the_tool_says(hpcft: Call) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sensitivity.md").read_text()
    for word in ("--batch_size", "--grad_accum", "--max_length", "hpcft fit"):
        assert word in page

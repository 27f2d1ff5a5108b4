"""What `evaluate`, `merge`, `quantize` and `bench` work on, and what they take over from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny_models import build

from hpcft.cli.subject import find_subject
from hpcft.errors import UsageError

Call = Callable[..., Any]


@pytest.fixture
def results(project: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A finished training run, a finished evaluation of it, and one that goes on."""
    model = build("llama", project / "base")
    for name, kind, end in (("first", "train", True), ("scored", "evaluate", True), ("going", "train", False)):
        folder = project / "results" / name
        folder.mkdir(parents=True)
        kept = str(project / "results" / "first" / "final_model") if kind == "evaluate" else str(model)
        job = {
            "kind": kind,
            "variant": "full",
            "model": {"name": kept},
            "data": {"dataset": str(project / "pairs.csv"), "max_length": 77, "input_column": "source"},
            "training": {"seed": 5, "max_steps": 3, "learning_rate": 0.1},
            "resources": {"gpus_per_node": 8},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(job))
        if end:
            (folder / "done.json").write_text("{}")
    build("llama", project / "results" / "first" / "final_model")
    for name in ("pairs.csv", "other.csv"):
        (project / name).write_text("source,target\na,b\nc,d\ne,f\ng,h\n")
    # What the libraries say while the models are made is not the command's.
    capsys.readouterr()
    return project / "results"


def submitted(hpcft: Call, *words: str) -> dict[str, Any]:
    """The job that would be submitted, as its run directory keeps it."""
    answer = hpcft(*words, "--cluster", "slurm", "--json")
    assert answer.code == 0, answer.err
    return yaml.safe_load((Path(json.loads(answer.out)["directory"]) / "config.yaml").read_text())


def test_a_run_gives_its_model_data_and_seed_and_not_its_ranks(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    job = submitted(hpcft, "evaluate", "first")
    assert job["kind"] == "evaluate"
    assert job["of"] == str(results / "first")
    assert job["model"]["name"] == str(results / "first" / "final_model")
    assert (job["data"]["max_length"], job["data"]["input_column"]) == (77, "source")
    assert job["training"]["seed"] == 5
    assert job["resources"]["gpus_per_node"] == 1
    assert job["variant"] == "full"


def test_what_is_typed_beats_what_the_run_says(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    assert submitted(hpcft, "evaluate", "first", "--max-length", "99")["data"]["max_length"] == 99


def test_a_run_is_opened_and_asked_as_it_was_made_whatever_files_and_the_environment_say(
    hpcft: Call, results: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results.parent / "hpcft.yaml").write_text(
        "variant: qlora\ndata: {dataset: other.csv, validation: other.csv, max_length: 9}\nlora: {r: 64}\n"
        "peft: {reduction: 2}\ntracking: {project: elsewhere}\n"
    )
    monkeypatch.setenv("HPCFT_MODEL__REVISION", "main")
    monkeypatch.setenv("HPCFT_EVALUATION__MAX_NEW_TOKENS", "7")
    config = yaml.safe_load((results / "first" / "config.yaml").read_text())
    config |= {
        "lora": {"r": 4},
        "peft": {"reduction": 8},
        "evaluation": {"max_new_tokens": 33},
        "tracking": {"project": "own"},
    }
    # As a run's own file has them: what is unset stands there too.
    config["data"]["validation"] = config["model"]["revision"] = None
    (results / "first" / "config.yaml").write_text(yaml.safe_dump(config))
    job = submitted(hpcft, "bench", "first", "--preset", "quickstart")
    assert (job["variant"], job["lora"]["r"], job["model"]["revision"]) == ("full", 4, None)
    assert job["peft"]["reduction"] == 8
    assert job["data"]["dataset"] == str(results.parent / "pairs.csv")
    assert (job["data"]["validation"], job["data"]["max_length"]) == (None, 77)
    assert job["evaluation"]["max_new_tokens"] == 33
    # No score hangs on where it is told.
    assert job["tracking"]["project"] == "elsewhere"


def test_a_job_file_that_is_named_beats_what_the_run_says(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    (results.parent / "ask.yaml").write_text("data: {dataset: other.csv}\nevaluation: {max_new_tokens: 9}\n")
    job = submitted(hpcft, "evaluate", "first", "ask.yaml")
    assert job["data"]["validation"] == job["data"]["dataset"] == str(results.parent / "other.csv")
    assert job["evaluation"]["max_new_tokens"] == 9


def test_how_to_quantise_is_not_taken_from_a_run_that_was_not_quantised(
    hpcft: Call, results: Path, fake_slurm: Any
) -> None:
    (results.parent / "hpcft.yaml").write_text("quantize: {method: bnb-int8}\n")
    config = yaml.safe_load((results / "first" / "config.yaml").read_text()) | {"quantize": {"method": "bnb-nf4"}}
    (results / "first" / "config.yaml").write_text(yaml.safe_dump(config))
    assert submitted(hpcft, "quantize", "first")["quantize"]["method"] == "bnb-int8"


def test_the_projects_training_set_is_not_asked_whole(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    (results.parent / "hpcft.yaml").write_text("data: {dataset: pairs.csv}\n")
    data = submitted(hpcft, "evaluate", str(results.parent / "base"))["data"]
    assert (data["dataset"], data["validation"]) == (str(results.parent / "pairs.csv"), None)


def test_another_data_set_is_asked_whole_and_brings_its_own_columns(
    hpcft: Call, results: Path, fake_slurm: Any
) -> None:
    data = submitted(hpcft, "evaluate", "first", "--dataset", "other.csv")["data"]
    assert data["validation"] == data["dataset"] == str(results.parent / "other.csv")
    assert (data["input_column"], data["max_length"]) == (None, 77)


def test_a_bench_of_an_evaluation_measures_the_evaluated_model(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    job = submitted(hpcft, "bench", "scored")
    assert job["model"]["name"] == str(results / "first" / "final_model")
    assert job["of"] == str(results / "scored")


def test_a_quantised_run_is_labelled_ptq(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    job = submitted(hpcft, "quantize", "first", "--method", "bnb-int8")
    assert (job["variant"], job["quantize"]["method"]) == ("ptq", "bnb-int8")


def test_b29_a_final_model_is_evaluated_by_hand_on_a_set_of_one_s_own(
    hpcft: Call, results: Path, fake_slurm: Any
) -> None:
    folder = results / "first" / "final_model"
    job = submitted(hpcft, "evaluate", str(folder), "--dataset", "other.csv", "--eval-samples", "3")
    assert (job["kind"], job["model"]["name"]) == ("evaluate", str(folder))
    assert job["data"]["validation"].endswith("other.csv")
    assert job["data"]["eval_samples"] == 3


def test_a_folder_and_a_hub_id_are_models_too(results: Path) -> None:
    folder = results.parent / "base"
    assert (find_subject(str(folder), results).model, find_subject(str(folder), results).run) == (str(folder), None)
    assert find_subject("guild/model", results).model == "guild/model"


def test_the_quickstart_model_is_asked_what_a_run_of_it_is_asked(hpcft: Call, results: Path, fake_slurm: Any) -> None:
    job = submitted(hpcft, "bench", "quickstart", "--preset", "lab")
    assert (job["model"]["name"], job["of"]) == ("quickstart", None)
    assert (job["data"]["dataset"], job["data"]["validation"]) == ("quickstart", None)


def test_a_model_that_is_no_run_needs_a_data_set(hpcft: Call, results: Path) -> None:
    answer = hpcft("evaluate", str(results.parent / "base"), "--cluster", "local", "--dry-run")
    assert answer.code == 2
    assert "--dataset" in answer.err
    named = hpcft("evaluate", str(results.parent / "base"), "--dataset", "other.csv", "--cluster", "local", "--dry-run")
    assert named.code == 0, named.err


def test_a_run_that_goes_on_is_refused(results: Path) -> None:
    with pytest.raises(UsageError, match="the run 'going' has not finished"):
        find_subject("going", results)


@pytest.mark.parametrize("text", ["nothing", "./nowhere", "a/b/c"])
def test_what_is_nothing_is_said_to_be_no_run(results: Path, text: str) -> None:
    with pytest.raises(UsageError, match="no run called"):
        find_subject(text, results)


def test_several_ranks_are_refused_where_one_process_does_the_job(hpcft: Call, results: Path) -> None:
    for kind in ("merge", "quantize", "bench"):
        answer = hpcft(kind, "first", "--gpus-per-node", "2", "--cluster", "slurm", "--dry-run")
        assert answer.code == 78
        assert f"a {kind} job is one process" in answer.err

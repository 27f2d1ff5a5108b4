"""`--variant distill` as it is called: who teaches, what is refused before anything is queued, what it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.models.quickstart import build_model, model_folder

WORDS = ("--variant", "distill", "--dataset", "quickstart", "--max-steps", "2")


@pytest.fixture(autouse=True)
def _made(small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))


@pytest.fixture
def finished(make_run: Callable[..., Any], small_quickstart: Path) -> Any:
    run = make_run("mine", done=True)
    shutil.copytree(model_folder(small_quickstart), run.final_model)
    return run


def test_a_finished_run_teaches_by_its_name(hpcft: Callable[..., Any], finished: Any, fake_slurm: Any) -> None:
    answer = hpcft("submit", *WORDS, "--teacher", "mine", "--cluster", "slurm", "--json")
    assert answer.code == 0, answer.err
    config = yaml.safe_load((Path(json.loads(answer.out)["directory"]) / "config.yaml").read_text())
    assert config["distill"]["teacher"] == str(finished.final_model.absolute())
    assert config["model"]["name"] == "student"
    assert (config["training"]["learning_rate"], config["training"]["max_steps"]) == (1e-4, 2)


def test_a_folder_teaches_by_its_path_from_here(hpcft: Callable[..., Any], fake_slurm: Any, project: Path) -> None:
    build_model(project / "big", steps=0, hidden=64, layers=1, vocab=300)
    answer = hpcft("submit", *WORDS, "--teacher", "big", "--cluster", "slurm", "--json")
    assert answer.code == 0, answer.err
    config = yaml.safe_load((Path(json.loads(answer.out)["directory"]) / "config.yaml").read_text())
    assert config["distill"]["teacher"] == str(project / "big")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "who teaches? Name a finished run, a folder or a hub id: --teacher"),
        (("--teacher", "unfinished"), "has not finished"),
        (("--teacher", "broken"), "the run 'broken' failed\n  hpcft explain broken"),
        (("--teacher", "./nowhere"), "there is no folder"),
        (("--teacher", "./nowhere"), "--teacher quickstart"),
        (("--teacher", "quikstart"), "no run, folder or cached model is called 'quikstart'"),
        (("--teacher", "quikstart"), "did you mean 'quickstart'? --teacher takes"),
        (("--teacher", "unfinishd"), "did you mean 'unfinished'? --teacher takes"),
        (
            ("--teacher", "wide", "--set", "distill.loss=feature", "--set", "distill.student_hidden=32"),
            "the student's are 32 wide, the teacher's 64",
        ),
        (("--teacher", "quickstart", "--model", "other"), "do not share their tokens"),
        (("--teacher", "quickstart", "--set", "distill.student_layers=9"), "a student of 9 would be the larger one"),
        (("--teacher", "quickstart", "--set", "distill.alpha=0.5", "--set", "distill.beta=0.6"), "one together"),
        (("--teacher", "quickstart", "--dataset", "rows.csv"), "a classifier has no next-token distributions"),
    ],
)
def test_u3_what_cannot_teach_is_told_before_anything_is_queued(
    hpcft: Callable[..., Any],
    make_run: Callable[..., Any],
    fake_slurm: Any,
    project: Path,
    words: tuple[str, ...],
    told: str,
) -> None:
    make_run("unfinished", status={"state": "training"})
    make_run("broken", status={"state": "failed"})
    for name in ("other", "wide"):
        build_model(project / name, steps=0, hidden=64, layers=1, vocab=300)
    rows = "".join(f"word {n},{'yes' if n % 2 else 'no'}\n" for n in range(40))
    (project / "rows.csv").write_text(f"text,label\n{rows}")
    common = WORDS if "--dataset" not in words else ("--variant", "distill")
    answer = hpcft("submit", *common, *words, "--cluster", "slurm")
    assert answer.code != 0
    assert told in answer.err
    assert "Traceback" not in answer.err
    assert sorted(p.name for p in (project / "results").iterdir()) == ["broken", "unfinished"]


def test_a_name_that_is_taken_is_told_with_the_one_that_the_run_has(
    hpcft: Callable[..., Any], make_run: Callable[..., Any], fake_slurm: Any
) -> None:
    words = ("submit", *WORDS, "--teacher", "quickstart", "--name", "small", "--cluster", "slurm", "--json")
    assert "is taken" not in hpcft(*words).err
    answer = hpcft(*words)
    assert answer.code == 0, answer.err
    assert f"'small' is taken; this run is {json.loads(answer.out)['run']}\n" in answer.err


def test_fit_counts_the_teacher_and_a_student_that_is_not_made_yet(hpcft: Callable[..., Any]) -> None:
    def parts(*words: str) -> dict[str, float]:
        answer = hpcft("fit", *WORDS, "--teacher", "quickstart", "--cluster", "slurm", "--json", *words)
        assert answer.code == 0, answer.err
        return {part["name"]: part["low_gb"] for part in json.loads(answer.out)["per_rank"]["parts"]}

    found, quantised = parts(), parts("--set", "distill.teacher_quantization=8bit")
    assert 0 < quantised["teacher"] < found["teacher"]
    assert found["teacher"] < found["weights"], "half of the layers, in float32"
    kept = parts("--set", "distill.cache=true", "--set", "distill.top_k=4")
    assert "teacher" not in kept


def test_fetch_brings_the_teacher(hpcft: Callable[..., Any]) -> None:
    answer = hpcft("fetch", *WORDS, "--teacher", "quickstart", "--no-eval", "--json", "--cluster", "local")
    assert answer.code == 0, answer.err
    assert [(row["what"], row["name"], row["state"]) for row in json.loads(answer.out)] == [
        ("model", "quickstart", "there")
    ]

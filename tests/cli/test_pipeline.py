"""`hpcft pipeline`: what is submitted, in which order, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Call = Callable[..., Any]
SMALL = """
base:
  model: {name: quickstart}
  data: {dataset: quickstart}
  training: {max_steps: 2}
stages:
  lora: {variant: lora}
  full: {variant: full}
  merged: {kind: merge, of: lora}
  scores: {kind: evaluate, of: [full, merged]}
"""


@pytest.fixture
def mine(project: Path, small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    (project / "mine.yaml").write_text(SMALL)
    return project


def stages(answer: Any) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in json.loads(answer.out)["stages"]}


def dependency(job: dict[str, Any]) -> str | None:
    lines = [line for line in job["script"].splitlines() if "--dependency" in line]
    return lines[0].partition("afterok:")[2] if lines else None


def test_slurm_ties_each_stage_to_those_it_works_on(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    answer = hpcft("pipeline", "mine.yaml", "--cluster", "slurm", "--json")
    assert answer.code == 0, answer.err
    found = stages(answer)
    jobs = {name: fake_slurm.job(stage["job_id"]) for name, stage in found.items()}
    assert dependency(jobs["lora"]) is dependency(jobs["full"]) is None
    assert dependency(jobs["merged"]) == found["lora"]["job_id"]
    assert dependency(jobs["scores-full"]) == found["full"]["job_id"]
    assert dependency(jobs["scores-merged"]) == found["merged"]["job_id"]
    assert all("--kill-on-invalid-dep=yes" in jobs[name]["script"] for name in jobs if dependency(jobs[name]))


def test_a_data_file_with_an_equals_sign_in_its_path_is_one_file(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    rows = mine / "lang=en" / "rows.csv"
    rows.parent.mkdir()
    rows.write_text("source,target\n" + "".join(f"q{n},a{n}\n" for n in range(9)))
    words = ["mine.yaml", "--cluster", "slurm", "--dataset", "lang=en/rows.csv", "--json"]
    first = stages(hpcft("pipeline", *words, "--dry-run"))
    rows.write_text(rows.read_text().replace("q1", "other"))
    again = stages(hpcft("pipeline", *words))
    assert first["lora"]["content"] != again["lora"]["content"]
    job = yaml.safe_load((Path(again["lora"]["directory"]) / "config.yaml").read_text())
    assert job["data"]["dataset"] == str(rows)


def test_a_second_call_submits_nothing_that_is_queued(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    first = stages(hpcft("pipeline", "mine.yaml", "--cluster", "slurm", "--json"))
    asked = fake_slurm.submissions
    again = stages(hpcft("pipeline", "mine.yaml", "--cluster", "slurm", "--json"))
    assert fake_slurm.submissions == asked == 5
    assert {n: s["job_id"] for n, s in again.items()} == {n: s["job_id"] for n, s in first.items()}


def test_a_changed_value_changes_the_stages_that_it_decides_and_those_behind_them(hpcft: Call, mine: Path) -> None:
    def contents(*words: str) -> dict[str, str]:
        answer = hpcft("pipeline", "mine.yaml", "--cluster", "local", "--dry-run", "--json", *words)
        return {name: stage["content"] for name, stage in stages(answer).items()}

    plain = contents()

    def changed(*words: str) -> set[str]:
        return {name for name, content in contents(*words).items() if content != plain[name]}

    assert changed() == set()
    assert changed("--set", "merge.dtype=bfloat16") == {"merged", "scores-merged"}
    assert changed("--lora-r", "4") == {"lora", "merged", "scores-merged"} | {"full", "scores-full"}
    assert changed("--set", "peft.reduction=8") == {"lora", "merged", "scores-merged"} | {"full", "scores-full"}
    assert changed("--set", "training.seed=7") == set(plain)
    assert changed("--time", "1:00:00") == set()
    assert changed("--wandb", "disabled", "--name", "other") == set()
    (mine / "mine.yaml").write_text(SMALL.replace("{variant: full}", "{variant: full, training: {max_steps: 3}}"))
    assert changed() == {"full", "scores-full"}


def test_a_changed_data_file_changes_its_stages(hpcft: Call, mine: Path) -> None:
    def contents() -> dict[str, str]:
        answer = hpcft("pipeline", "mine.yaml", "--cluster", "local", "--dry-run", "--json", "--dataset", "pairs.csv")
        return {name: stage["content"] for name, stage in stages(answer).items()}

    (mine / "pairs.csv").write_text("source,target\na,b\nc,d\n")
    before = contents()
    (mine / "pairs.csv").write_text("source,target\na,b\nc,e\n")
    assert all(before[name] != content for name, content in contents().items())


def test_the_command_line_beats_the_file_and_ranks_are_training_s(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    words = ["--max-steps", "7", "--gpus-per-node", "4", "--nodes", "2"]
    found = stages(hpcft("pipeline", "mine.yaml", "--cluster", "slurm", "--json", *words))
    scripts = {name: fake_slurm.job(stage["job_id"])["script"] for name, stage in found.items()}
    assert "--nodes=2" in scripts["lora"]
    assert "--ntasks-per-node=4" in scripts["lora"]
    assert "--ntasks-per-node=1" in scripts["merged"]
    assert "max_steps: 7" in (Path(found["lora"]["directory"]) / "config.yaml").read_text()


def test_submit_of_variant_ptq_is_the_pipeline_of_that_name(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    words = ["--variant", "ptq", "--preset", "quickstart", "--method", "bnb-int8", "--cluster", "slurm", "--json"]
    found = stages(hpcft("submit", *words))
    assert list(found) == ["lora", "merged", "quantized", "scores", "bench"]
    config = (Path(found["quantized"]["directory"]) / "config.yaml").read_text()
    assert "variant: ptq" in config
    assert "method: bnb-int8" in config
    assert "variant: lora" in (Path(found["lora"]["directory"]) / "config.yaml").read_text()


def test_an_unknown_pipeline_names_those_that_there_are(hpcft: Call, project: Path) -> None:
    answer = hpcft("pipeline", "compare_variant", "--cluster", "local")
    assert answer.code == 78
    assert "did you mean 'compare_variants'?" in answer.err


@pytest.mark.slow
def test_without_slurm_stages_run_in_order_and_a_failed_one_stops_those_behind_it(hpcft: Call, mine: Path) -> None:
    (mine / "mine.yaml").write_text(SMALL.replace("of: lora}", "of: lora, merge: {max_kl: 1e-30, dtype: float16}}"))
    answer = hpcft("pipeline", "mine.yaml", "--cluster", "local")
    assert answer.code == 1
    assert "not finished: merged, scores-merged" in answer.err
    assert "scores-merged: not run, since merged has not finished" in answer.err
    (mine / "mine.yaml").write_text(SMALL)
    again = hpcft("pipeline", "mine.yaml", "--cluster", "local", "--json")
    assert again.code == 0, again.err
    assert "lora: kept" in again.err
    assert {stage["state"] for stage in stages(again).values()} == {"done"}

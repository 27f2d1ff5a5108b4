"""What the verbs print and make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.cli.launch import absolute
from hpcft.cli.main import VERBS
from hpcft.runs.run import Run
from hpcft.spec.job import Job

Call = Callable[..., Any]
QUICK = ("--preset", "quickstart", "--cluster", "local")


def test_help_lists_every_verb_and_the_exit_codes(hpcft: Call) -> None:
    result = hpcft("--help")
    assert result.code == 0
    for verb in VERBS:
        assert verb in result.out
    assert "Exit codes" in result.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(hpcft: Call, verb: str) -> None:
    words = (verb, "show", "--help") if verb == "config" else (verb, "--help")
    assert "Examples:" in hpcft(*words).out


def test_dry_run_prints_the_script_and_what_it_asks_and_makes_nothing(hpcft: Call, project: Path) -> None:
    result = hpcft("submit", *QUICK, "--variant", "qlora", "--gpus-per-node", "2", "--dry-run")
    assert result.code == 0
    assert "#SBATCH --ntasks-per-node=2" in result.out
    assert "2 (2 a node)" in result.out
    assert "ZeRO 2" in result.out
    assert list(project.iterdir()) == []


def test_config_show_says_where_each_value_comes_from(
    hpcft: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "hpcft.yaml").write_text("training:\n  seed: 7\n")
    (project / "job.yaml").write_text("lora:\n  r: 2\n")
    monkeypatch.setenv("HPCFT_DATA__MAX_LENGTH", "64")
    result = hpcft("config", "show", *QUICK, "job.yaml", "lora.lora_alpha=4", "--lr", "1e-5", "--origin", "--json")
    values = json.loads(result.out)
    assert values["training.seed"] == {"value": 7, "origin": "hpcft.yaml:2"}
    assert values["lora.r"] == {"value": 2, "origin": "job.yaml:2"}
    assert values["data.max_length"] == {"value": 64, "origin": "HPCFT_DATA__MAX_LENGTH"}
    assert values["lora.lora_alpha"]["value"] == 4
    assert values["training.learning_rate"] == {"value": 1e-5, "origin": "--lr"}
    assert values["model.name"]["origin"].startswith(("jobs/", "/"))
    assert values["resources.time"]["origin"] == "profile local"
    assert values["tracking.project"]["origin"] == "default"


def test_options_with_underscores_are_taken(hpcft: Call) -> None:
    result = hpcft(
        "config", "show", *QUICK, "--grad_accum", "8", "--num_samples=10", "--experiment_name", "x", "--json"
    )
    values = json.loads(result.out)
    assert values["training.gradient_accumulation_steps"] == 8
    assert values["data.train_samples"] == 10
    assert values["name"] == "x"


def test_the_projects_config_chooses_the_cluster(hpcft: Call, project: Path) -> None:
    (project / "hpcft.yaml").write_text("cluster: local\n")
    assert "cluster: local (hpcft.yaml:1)" in hpcft("config", "show", "--preset", "quickstart").err


def test_submit_says_run_job_log_and_what_to_type_next(hpcft: Call, fake_slurm: Any) -> None:
    result = hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine")
    assert result.code == 0
    run = Run(Path("results/mine"))
    for text in (run.name, str(run.id), str(run.job_id), str(run.paths.batch_log)):
        assert text in result.out
    assert "hpcft show mine" in result.err
    assert fake_slurm.submissions == 1
    assert run.paths.script.read_text() == fake_slurm.job(run.job_id)["script"]


def test_b31_c19_the_run_directory_keeps_job_versions_origins_and_code(hpcft: Call, fake_slurm: Any) -> None:
    hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine", "--variant", "full")
    root = Path("results/mine")
    assert yaml.safe_load((root / "config.yaml").read_text())["variant"] == "full"
    provenance = json.loads((root / "provenance.json").read_text())
    assert provenance["origins"]["variant"] == "--variant"
    assert "torch" in provenance["versions"]
    assert (root / "code" / "hpcft" / "worker.py").is_file()


def test_b31_c19_a_runs_config_can_be_submitted_again(hpcft: Call, fake_slurm: Any) -> None:
    hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine", "--lr", "3e-3")
    again = hpcft("config", "show", "results/mine/config.yaml", "--cluster", "slurm", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["training.learning_rate"] == 3e-3


def test_render_writes_a_script_that_plain_sbatch_takes(hpcft: Call, fake_slurm: Any) -> None:
    result = hpcft("render", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine")
    path = Path(result.out.strip())
    assert path == Path("results/mine/job.sh").absolute()
    assert fake_slurm.submissions == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_show_as_json_has_state_and_ids(hpcft: Call, fake_slurm: Any) -> None:
    hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine")
    shown = json.loads(hpcft("show", "mine", "--json").out)
    assert shown["state"] == "PENDING"
    assert shown["job_id"] == "1"
    assert shown["cluster"] == "slurm"


def test_data_is_found_from_everywhere_also_with_an_equals_sign_in_its_path(project: Path) -> None:
    for name in ("lang=en", "lang=de"):
        (project / name).mkdir()
        (project / name / "rows.csv").touch()
    data = {"dataset": "lang=en/rows.csv", "validation": "lang=de/rows.csv"}
    data |= {"mix": ["lang=en/rows.csv", "german=lang=de/rows.csv", "hub=org/set"]}
    found = absolute(Job.model_validate({"data": data})).data
    assert (found.dataset, found.validation) == (f"{project}/lang=en/rows.csv", f"{project}/lang=de/rows.csv")
    assert found.mix == [f"{project}/lang=en/rows.csv", f"german={project}/lang=de/rows.csv", "hub=org/set"]

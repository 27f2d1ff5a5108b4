"""`hpcft doctor` and the preflight of a submission."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.fixtures import FakeSlurm

SITE = "scheduler: slurm\nresources: {accelerator: cpu, account: acme, time: 01:00:00}\n"


@pytest.fixture
def site(project: Path, fake_slurm: FakeSlurm, small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cluster that answers, and its profile; a busy machine may take its time."""
    (project / "hpc").mkdir()
    (project / "hpc" / "site.yaml").write_text(SITE)
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    monkeypatch.setattr("hpcft.cluster.preflight.call", lambda command, timeout_s: _patient(command))
    return ["--cluster", "site"]


def _patient(command: list[str]) -> Any:
    from hpcft.cluster.slurm import call

    return call(command, timeout_s=60)


def findings(text: str) -> dict[str, dict[str, str]]:
    return {f["check"]: f for f in json.loads(text)["findings"]}


def test_a_good_place_is_green_and_ends_with_0(hpcft: Callable[..., Any], site: list[str]) -> None:
    found = hpcft("doctor", *site, "--json")
    assert found.code == 0, found.out + found.err
    told = findings(found.out)
    for check in ("Slurm", "partition", "account", "qos", "sbatch", "results", "space", "clock", "locks"):
        assert told[check]["light"] == "green", told[check]
    assert "inputs" not in told


def test_what_is_red_has_its_mend_and_ends_with_78(hpcft: Callable[..., Any], site: list[str]) -> None:
    found = hpcft("doctor", *site, "--preset", "quickstart", "--partition", "nope", "--nodes", "2")
    assert found.code == 78
    assert "RED partition" in " ".join(found.out.split())
    assert "--partition debug" in found.out
    assert "inputs" in found.out


def test_a_controller_that_is_down_is_told(hpcft: Callable[..., Any], site: list[str], fake_slurm: FakeSlurm) -> None:
    fake_slurm.fault(controller="down")
    found = hpcft("doctor", *site, "--json")
    assert found.code == 78
    told = findings(found.out)
    assert told["Slurm"]["light"] == "red"
    assert told["partition"]["light"] == "grey"


def test_the_jobs_own_faults_are_findings(hpcft: Callable[..., Any], site: list[str]) -> None:
    found = hpcft("doctor", *site, "--model", "guild/none", "--dataset", "samsum", "--variant", "lora", "--json")
    told = findings(found.out)
    assert told["inputs"]["light"] == "red"
    assert "hpcft fetch --model guild/none" in told["inputs"]["mend"]
    assert told["data"]["light"] == "red"
    assert "--dataset samsum" in told["data"]["mend"]


def test_a_local_place_has_no_slurm(hpcft: Callable[..., Any], project: Path) -> None:
    found = hpcft("doctor", "--cluster", "local", "--json")
    assert found.code == 0, found.out
    assert "Slurm" not in findings(found.out)


def test_repair_settles_what_is_open(hpcft: Callable[..., Any], project: Path) -> None:
    found = hpcft("doctor", "--cluster", "local", "--repair")
    assert found.code == 0
    assert "nothing is left open" in found.err


def submit(hpcft: Callable[..., Any], site: list[str], *words: str) -> Any:
    return hpcft("submit", *site, "--preset", "quickstart", "--variant", "lora", *words)


def test_what_would_wait_for_ever_is_refused_before_it_is_submitted(
    hpcft: Callable[..., Any], site: list[str], fake_slurm: FakeSlurm, project: Path
) -> None:
    found = submit(hpcft, site, "--time", "2-00", "--nodes", "9")
    assert found.code == 78
    assert "resources.time" in found.err
    assert "--nodes 2" in found.err
    assert fake_slurm.submissions == 0
    assert not list(project.glob("results/*"))
    assert submit(hpcft, site).code == 0
    assert fake_slurm.submissions == 1


def test_a_job_that_surely_does_not_fit_is_warned_of(
    hpcft: Callable[..., Any], site: list[str], project: Path, fake_slurm: FakeSlurm
) -> None:
    profile = "scheduler: slurm\nresources: {gpu_type: h100}\ngpu_memory_gb: {h100: 0.001}\n"
    (project / "hpc" / "small.yaml").write_text(profile)
    found = submit(hpcft, ["--cluster", "small"], "--dry-run")
    assert found.code == 0
    assert "warning: GPU memory" in found.err
    assert "hpcft fit" in found.err


def test_wandb_online_without_a_key_is_refused(hpcft: Callable[..., Any], site: list[str]) -> None:
    found = submit(hpcft, site, "--wandb", "online", "--dry-run")
    assert found.code == 78
    assert "wandb login" in found.err


def test_a_key_that_no_job_gets_is_no_key_of_its_own(
    hpcft: Callable[..., Any], site: list[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    (project / "hpc" / "site.yaml").write_text(SITE + "internet: true\n")
    found = findings(hpcft("doctor", *site, "--json").out)["wandb"]
    assert (found["light"], found["mend"]) == ("yellow", "wandb login")
    refused = submit(hpcft, site, "--wandb", "online", "--dry-run")
    assert refused.code == 78
    assert "in this shell's variables alone" in refused.err
    # A job of this machine has it, and one of Slurm what a file has that its variables name.
    assert findings(hpcft("doctor", "--cluster", "local", "--json").out)["wandb"]["light"] == "green"
    (project / "key").write_text(f"machine api.wandb.ai\n  login user\n  password {'k' * 40}\n")
    (project / "key").chmod(0o600)
    monkeypatch.setenv("NETRC", str(project / "key"))
    assert findings(hpcft("doctor", *site, "--json").out)["wandb"]["light"] == "green"


def test_a_hub_set_that_an_offline_job_lacks_is_refused(hpcft: Callable[..., Any], site: list[str]) -> None:
    words = ["--dataset", "samsum", "--dry-run"]
    found = submit(hpcft, site, *words)
    assert found.code == 78
    assert "hpcft fetch --model quickstart --dataset samsum" in found.err


def test_the_cache_of_the_profile_counts_and_not_the_shells(
    hpcft: Callable[..., Any], site: list[str], project: Path
) -> None:
    cache = project / "cache" / "datasets" / "knkarthick___samsum" / "default" / "0.0.0" / "abc"
    cache.mkdir(parents=True)
    (cache / "dataset_info.json").write_text("{}")
    text = SITE + f"env: {{HF_HOME: {project / 'cache'}}}\n"
    (project / "hpc" / "site.yaml").write_text(text)
    assert submit(hpcft, site, "--dataset", "samsum", "--dry-run").code == 0

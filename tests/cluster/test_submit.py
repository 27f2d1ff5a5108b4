"""Exactly once, whatever sbatch says: against the small fake of Slurm's commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.slurm import find_by_name

from hpcft.cluster import submit as submission
from hpcft.cluster.profile import Profile
from hpcft.cluster.queue import JobState, ask
from hpcft.cluster.submit import record_intent, submit_local, submit_slurm
from hpcft.errors import ConfigError, UnavailableError
from hpcft.runs.create import make_run_directory
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.runs.submission import Journal
from hpcft.spec.build import build
from hpcft.spec.layers import pairs_layer

PROFILE = Profile.model_validate({"name": "site", "env": {}})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_LOOKS_S", (0.0, 0.05, 0.05))


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = make_run_directory(tmp_path / "results", "mine", "mine")
    paths.config.write_text("variant: lora\n")
    return paths


def send(paths: RunPaths, said: list[str] | None = None, *pairs: str) -> str:
    job = build([pairs_layer(pairs, "--set")]).job
    with Journal(paths) as journal:
        record_intent(journal, job, PROFILE, paths, "k3f9x2m1qa")
        return submit_slurm(
            job, PROFILE, paths, "k3f9x2m1qa", journal, (said if said is not None else []).append
        ).job_id


def test_a_job_is_submitted_once_with_its_key_in_its_name(fake_slurm: Any, run: RunPaths) -> None:
    job_id = send(run)
    assert fake_slurm.submissions == 1
    assert find_by_name("mine.k3f9x2m1qa") == job_id
    assert [r["kind"] for r in Run(run.root).journal()] == ["intent", "sending", "submitted"]
    assert ask([job_id])[job_id].state is JobState.PENDING
    # Nothing of submitit's own stays beside our script.
    assert sorted(p.name for p in run.root.iterdir()) == ["client.jsonl", "config.yaml", "job.sh", "submission.1"]


def test_the_intent_is_on_disk_before_sbatch_is_called(
    fake_slurm: Any, run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcft.cluster import executor

    seen: list[list[str]] = []

    def spy(command: list[str], **options: Any) -> Any:
        seen.append([r["kind"] for r in Run(run.root).journal()])
        return original(command, **options)

    original = executor.call
    monkeypatch.setattr(executor, "call", spy)
    send(run)
    assert seen == [["intent", "sending"]]


def test_r2_a_time_out_after_acceptance_is_settled_by_looking(fake_slurm: Any, run: RunPaths) -> None:
    fake_slurm.fault(sbatch="timeout_after_accept")
    said: list[str] = []
    job_id = send(run, said)
    assert fake_slurm.submissions == 1
    assert find_by_name("mine.k3f9x2m1qa") == job_id
    assert any("looking for the job" in line for line in said)


def test_r2_a_time_out_before_acceptance_is_said_to_be_unsure_and_not_repeated(fake_slurm: Any, run: RunPaths) -> None:
    fake_slurm.fault(sbatch="timeout_before_accept")
    with pytest.raises(UnavailableError, match="not known whether the job was queued"):
        send(run)
    assert fake_slurm.submissions == 1
    assert Run(run.root).journal()[-1]["kind"] == "unsure"


@pytest.mark.parametrize(
    ("fault", "key", "words"),
    [
        ("refuse_partition", "resources.partition", "invalid partition"),
        ("refuse_account", "resources.account", "Invalid account"),
        ("refuse_qos", "resources.qos", "Invalid qos"),
        ("refuse_nodes", "resources.nodes", "node count"),
        ("refuse_time", "resources.time", "time limit"),
    ],
)
def test_a_refusal_is_told_in_slurms_words_with_the_key_to_change(
    fake_slurm: Any, run: RunPaths, fault: str, key: str, words: str
) -> None:
    fake_slurm.fault(sbatch=fault)
    with pytest.raises(ConfigError) as caught:
        send(run)
    assert caught.value.where == key
    assert words.lower() in str(caught.value).lower()
    assert fake_slurm.submissions == 1


def test_a_refused_partition_names_the_valid_ones(fake_slurm: Any, run: RunPaths) -> None:
    fake_slurm.fault(sbatch="refuse_partition")
    with pytest.raises(ConfigError, match="valid here: debug"):
        send(run)


def test_a_controller_that_is_down_is_not_a_mistake_of_the_user(fake_slurm: Any, run: RunPaths) -> None:
    fake_slurm.fault(controller="down")
    with pytest.raises(UnavailableError, match="nothing was queued"):
        send(run)


def test_no_slurm_is_said_with_the_way_out(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnavailableError, match="--cluster local"):
        send(run)


def test_sbatch_variables_are_not_used_and_are_named(
    fake_slurm: Any, run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    said: list[str] = []
    send(run, said)
    assert any("SBATCH_PARTITION" in line for line in said)


def test_an_accounting_that_is_down_makes_unknown_and_not_failed(fake_slurm: Any, run: RunPaths) -> None:
    fake_slurm.fault(accounting="down")
    assert ask(["999"])["999"].state is JobState.UNKNOWN
    assert not ask(["999"])["999"].is_final


def test_several_nodes_on_the_local_cluster_are_refused(run: RunPaths) -> None:
    job = build([pairs_layer(["resources.nodes=2"], "--set")]).job
    with Journal(run) as journal, pytest.raises(ConfigError, match="this machine is one"):
        submit_local(job, Profile.model_validate({"name": "local", "scheduler": "local"}), run, journal)


def test_submitting_leaves_the_handlers_of_other_loggers_open() -> None:
    """submitit configures logging at its import, which would close absl's handler, and standard error with it."""
    code = "import absl.logging, sys, hpcft.cluster.executor; print('still open', file=sys.stderr)"
    code = f"import io, sys; sys.stderr = io.TextIOWrapper(io.FileIO(2, 'w', closefd=False))\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "still open" in done.stderr

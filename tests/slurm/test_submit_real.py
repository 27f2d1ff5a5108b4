"""Submission, requeue, refusal and cancelling on a real Slurm, with a worker of a few lines."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.slurm import find_by_name

from hpcft.cluster.profile import Profile, choose_cluster
from hpcft.cluster.queue import JobState, ask
from hpcft.cluster.render import job_name, render
from hpcft.cluster.submit import record_intent, submit_slurm
from hpcft.errors import ConfigError
from hpcft.runs.create import make_run_directory, new_run_id
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.runs.submission import Journal
from hpcft.spec.build import build
from hpcft.spec.layers import pairs_layer

SITE = Profile.model_validate({"name": "site", "env": {"GREETING": "hello; $HOME"}})
# Says who it is; then asks to be queued again once, or waits for a signal and asks for it then.
WORKER = """
import json, os, signal, sys, time
from pathlib import Path
root = Path(sys.argv[1])
got = []
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda n, _: got.append(n))
attempt, rank = os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ["SLURM_PROCID"]
(root / f"{attempt}-{rank}.tmp").write_text(json.dumps({"cwd": os.getcwd(), **os.environ}))
(root / f"{attempt}-{rank}.tmp").rename(root / f"{attempt}-{rank}.json")
print(f"attempt {attempt}, rank {rank}", flush=True)
if (root / "wait").exists():
    end = time.monotonic() + 60
    while time.monotonic() < end and not got:
        time.sleep(0.05)
    sys.exit(75 if got else 0)
sys.exit(75 if attempt == "0" else 0)
"""


@pytest.fixture
def run(slurm_cluster: Any, slurm_home: Path) -> RunPaths:
    paths = make_run_directory(slurm_home / "größe und mehr", "größe", "mine")
    paths.config.write_text("variant: lora\n")
    package = paths.code / "hpcft"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "worker.py").write_text(WORKER)
    return paths


def send(paths: RunPaths, *pairs: str) -> tuple[str, str]:
    """Submit the run; its job's id and name."""
    plain = pairs_layer(["resources.accelerator=cpu", "resources.time=5"], "profile")
    job = build([plain, pairs_layer(list(pairs), "--set")]).job
    run_id = new_run_id()
    with Journal(paths) as journal:
        record_intent(journal, job, SITE, paths, run_id)
        submitted = submit_slurm(job, SITE, paths, run_id, journal, lambda _: None)
    return submitted.job_id, job_name(paths, run_id)


def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.2)


def facts(paths: RunPaths, attempt: int, rank: int) -> dict[str, str]:
    found: dict[str, str] = json.loads((paths.root / f"{attempt}-{rank}.json").read_text())
    return found


def test_a_job_that_asks_to_go_on_is_queued_again_and_finishes(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    job_id, name = send(run, "resources.nodes=2", "resources.gpus_per_node=2", "resources.accelerator=cuda")
    assert find_by_name(name) == job_id
    until(lambda: ask([job_id])[job_id].is_final)
    assert ask([job_id])[job_id].state is JobState.COMPLETED

    for attempt in (0, 1):
        ranks = [facts(run, attempt, rank) for rank in range(4)]
        assert [(f["SLURM_PROCID"], f["SLURM_LOCALID"]) for f in ranks] == [
            ("0", "0"),
            ("1", "1"),
            ("2", "0"),
            ("3", "1"),
        ]
        assert {f["SLURM_NTASKS"] for f in ranks} == {"4"}
        assert len({(f["MASTER_ADDR"], f["MASTER_PORT"]) for f in ranks}) == 1
        assert {f["GREETING"] for f in ranks} == {"hello; $HOME"}
        assert {f["PYTHONPATH"] for f in ranks} == {str(run.code)}
        assert {f["cwd"] for f in ranks} == {str(run.root)}
        assert "planted-secret" not in str(ranks)
    log = run.batch_log.read_text()
    assert "attempt 0, rank 3" in log
    assert "attempt 1, rank 3" in log


def test_a_cancelled_job_stays_cancelled(run: RunPaths) -> None:
    (run.root / "wait").touch()
    job_id, _ = send(run)
    until((run.root / "0-0.json").is_file)
    subprocess.run(["scancel", job_id], check=True)
    until(lambda: ask([job_id])[job_id].is_final)
    # A requeued job would be pending again by now.
    time.sleep(2)
    assert ask([job_id])[job_id].state is JobState.CANCELLED
    assert not (run.root / "1-0.json").exists()


def test_an_ended_job_is_found_by_its_key_in_accounting_alone(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcft.cluster import queue

    job_id, name = send(run)
    original = queue.call
    monkeypatch.setattr(queue, "call", lambda c, **k: original(["false"] if c[0] == "squeue" else c, **k))
    until(lambda: find_by_name(name) == job_id, 10)


def test_slurm_takes_every_script(run: RunPaths) -> None:
    pairs = ["resources.accelerator=cuda", "resources.gpu_type=h100", "resources.cpus_per_task=2"]
    pairs += ["resources.mem_gb=1.5", "resources.partition=gpu", "resources.account=acme", "resources.time=1-00:00:00"]
    job = build([pairs_layer(pairs, "--set")]).job
    site = Profile.model_validate({"name": "site", "sbatch": {"exclude": "node2", "nice": "5"}})
    run.script.write_text(render(job, site, run, "k3f9x2m1qa"))
    done = subprocess.run(["sbatch", "--test-only", str(run.script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("pair", "key", "valid"),
    [
        ("resources.partition=nope", "resources.partition", "debug"),
        ("resources.account=nope", "resources.account", "acme"),
        ("resources.qos=nope", "resources.qos", ""),
        ("resources.time=9-00:00:00", "resources.time", "debug: 1-00:00:00"),
        ("resources.nodes=5", "resources.nodes", ""),
        ("resources.gpu_type=v100", "resources", "4 × h100"),
        ("resources.constraint=nope", "resources.constraint", ""),
    ],
)
def test_a_refusal_names_the_key_and_what_is_valid(run: RunPaths, pair: str, key: str, valid: str) -> None:
    with pytest.raises(ConfigError) as caught:
        send(run, "resources.accelerator=cuda", pair)
    assert caught.value.where == key
    assert valid in str(caught.value)
    assert Run(run.root).job_id is None


def test_a_cluster_that_answers_is_chosen(slurm_cluster: Any) -> None:
    profile, reason = choose_cluster(None, None)
    assert (profile.name, profile.scheduler) == ("slurm", "slurm")
    assert "a controller answers" in reason


def test_states_of_several_jobs_come_in_one_question(run: RunPaths) -> None:
    job_id, _ = send(run)
    found = ask([job_id, "999999"])
    assert found[job_id].state in (JobState.PENDING, JobState.RUNNING)
    assert found["999999"].state is JobState.UNKNOWN
    subprocess.run(["scancel", job_id], check=True)

"""Jobs that are pushed out, run out of time, or lose their node or their processes end as undisturbed ones do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcft.cluster.explain import Cause, verdict_of
from hpcft.cluster.explain.verdict import Verdict
from hpcft.cluster.queue import ask
from hpcft.data.e2e import make_rows, write_csv
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run, RunState
from hpcft.tracking.offline import find_offline_runs, merge, read_offline

HPCFT = str(Path(sys.executable).with_name("hpcft"))
PROFILE = """\
scheduler: slurm
resources: {accelerator: cpu, time: "00:10:00", cpus_per_task: 1, mem_gb: 3, account: acme}
env: {OMP_NUM_THREADS: "1"}
"""
# A fifth of a second a step, on one core.
JOB = """\
variant: lora
model: {name: model}
data: {dataset: e2e.csv, train_samples: 0, max_length: 256}
lora: {r: 4, lora_dropout: 0.1, target_module_group: both}
training: {per_device_train_batch_size: 4, gradient_accumulation_steps: 2, learning_rate: 5e-3, save_minutes: 0.02}
evaluation: {enabled: false}
tracking: {log_every: 5}
"""


@pytest.fixture(scope="module")
def site(slurm_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a profile for CPU ranks, a tiny model and E2E-style data."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "lab.yaml").write_text(PROFILE)
    (folder / "job.yaml").write_text(JOB)
    (folder / "model").mkdir()
    build_model(folder / "model", steps=0, hidden=64, layers=2, vocab=512)
    write_csv(folder / "e2e.csv", make_rows(80, 3))
    return folder


@pytest.fixture
def cluster(slurm_cluster: Any) -> Any:
    """A cluster of our own, since others' jobs would be pushed out and their daemons killed."""
    if not hasattr(slurm_cluster, "pid"):
        pytest.skip("this needs a cluster that is ours to disturb")
    return slurm_cluster


def submit(site: Path, name: str, *words: str) -> Run:
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml", "OMP_NUM_THREADS": "1"}
    command = [HPCFT, "submit", "job.yaml", "--name", name, *words]
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return Run(site / "results" / name)


def until(run: Run, what: Callable[[], bool], seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        log = run.paths.batch_log.read_text()[-3000:] if run.paths.batch_log.exists() else "no log"
        queue = subprocess.run(["squeue"], capture_output=True, text=True).stdout
        assert time.monotonic() < deadline, f"{log}\n{queue}"
        time.sleep(0.1)


def finish(run: Run, seconds: float = 150) -> None:
    until(run, lambda: run.state is RunState.SUCCESS, seconds)


def stepped(run: Run, steps: int) -> None:
    until(run, lambda: sum(1 for _ in run.events("step")) >= steps)


def weights(run: Run) -> dict[str, torch.Tensor]:
    (file,) = run.paths.final_model.glob("*.safetensors")
    return load_file(file)


def check(run: Run, calm: Run) -> None:
    """It went on above step 0, lost nothing, and nothing was done twice in its record."""
    starts = [e["resume_step"] for e in run.events("start")]
    assert starts[0] == 0
    assert all(step > 0 for step in starts[1:])
    assert len(starts) > 1
    losses = [[(e["step"], e["loss"]) for e in r.events("step")] for r in (run, calm)]
    assert losses[0] == losses[1]
    expected, found = weights(calm), weights(run)
    assert all(torch.equal(expected[k], found[k]) for k in expected)


@pytest.fixture(scope="module")
def calm(site: Path) -> Run:
    """The undisturbed run."""
    run = submit(site, "calm", "--max-steps", "60")
    finish(run)
    return run


def test_a_job_that_another_one_pushes_out_goes_on_and_ends_as_an_undisturbed_one(
    site: Path, cluster: Any, calm: Run
) -> None:
    cluster.wait_idle()
    run = submit(site, "pushed", "--max-steps", "60", "--partition", "low")
    stepped(run, 5)
    wide = ["sbatch", "--partition=gpu", "--account=acme", "--nodes=2", "--ntasks-per-node=4", "--mem=100", "--time=2"]
    subprocess.run([*wide, "--output=/dev/null", "--wrap=sleep 5"], check=True, capture_output=True)
    finish(run)
    check(run, calm)
    (stopped,) = run.events("stopped")
    assert stopped["reason"] == "SIGUSR2"
    # One wandb run, with each point of each attempt.
    files = find_offline_runs(run.paths.wandb)
    assert list(files) == [run.id]
    points = [
        row["step"] for row in merge([read_offline(p) for p in files[str(run.id)]]).history if "train/loss" in row
    ]
    assert points == list(range(5, 61, 5))


def test_a_step_that_is_killed_with_9_is_started_again_from_its_last_checkpoint(site: Path, calm: Run) -> None:
    run = submit(site, "killed", "--max-steps", "60")
    stepped(run, 20)
    subprocess.run(["scancel", "--signal=KILL", f"{run.job_id}.0"], check=True)
    finish(run)
    check(run, calm)
    assert not list(run.events("stopped"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_three_times_longer_than_its_time_limit_ends_by_itself(site: Path, cluster: Any) -> None:
    cluster.wait_idle()
    steps = ("--max-steps", "1800")
    calm = submit(site, "calm-long", *steps)
    run = submit(site, "long", *steps, "--time", "2", "--set", "resources.signal_seconds=20")
    # Slurm may send the signal 60 s early: of a limit of one minute, hardly the start would be left.
    finish(run, 1500)
    finish(calm, 60)
    check(run, calm)
    assert len(list(run.events("start"))) >= 3


@pytest.mark.slow
def test_a_job_that_makes_no_step_within_its_time_limit_stops_its_chain_and_says_why(
    site: Path, slurm_cluster: Any
) -> None:
    write_csv(site / "many.csv", make_rows(4000, 3))
    words = ("--dataset", "many.csv", "--max-steps", "5", "--grad-accum", "1000", "--time", "1")
    run = submit(site, "no-step", *words, "--set", "resources.signal_seconds=20")
    verdict = end_of_chain(run)
    assert verdict.cause is Cause.TIME_LIMIT
    assert "at step 0 of" in verdict.summary
    assert verdict.mends[0].command.startswith("hpcft resume")
    assert "resources.time=" in verdict.mends[0].command
    assert run.paths.attempt_numbers() == [1]


@pytest.mark.slow
def test_a_loss_that_is_nan_after_a_time_limit_stops_the_chain_and_says_why(site: Path, slurm_cluster: Any) -> None:
    shutil.copytree(site / "model", site / "spoilt")
    words = ("--model", "spoilt", "--max-steps", "2000", "--time", "2", "--set", "resources.signal_seconds=20")
    run = submit(site, "not-a-number", *words)
    until(run, lambda: bool(list(run.events("stopped"))), 300)
    (file,) = (site / "spoilt").glob("*.safetensors")
    tensors = load_file(file)
    tensors[next(name for name in tensors if "norm" in name)][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    verdict = end_of_chain(run)
    assert verdict.cause is Cause.NAN_LOSS
    (first,) = (e["step"] for e in run.events("stopped"))
    assert f"at step {first + 1}" in verdict.summary
    assert run.paths.attempt_numbers() == [1, 2]


def end_of_chain(run: Run) -> Verdict:
    """What is said of a run whose job is over, after it was made sure that Slurm does not start it again."""
    job = str(run.job_id)
    until(run, lambda: ask([job])[job].is_final, 300)
    # A requeued job is final for a moment.
    time.sleep(10)
    assert ask([job])[job].is_final
    return verdict_of(run)


@pytest.mark.slow
def test_a_job_whose_slurmd_is_killed_with_its_processes_goes_on_elsewhere(site: Path, cluster: Any, calm: Run) -> None:
    cluster.wait_idle()
    run = submit(site, "node-lost", "--max-steps", "60")
    stepped(run, 20)
    shown = subprocess.run(["squeue", "-h", "-j", str(run.job_id), "-o", "%B"], capture_output=True, text=True).stdout
    node = shown.strip()
    slurmd = cluster.pid(node)
    os.kill(slurmd, signal.SIGKILL)
    # The node's power is gone: its job steps and the ranks in them too.
    for pid in tree_of_job(str(run.job_id)):
        os.kill(pid, signal.SIGKILL)
    try:
        finish(run, 240)
    finally:
        cluster.start()
    check(run, calm)


def tree_of_job(job_id: str) -> list[int]:
    """The processes whose environment says that they are a job's, with Slurm's own daemons of it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            names = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if f"SLURM_JOB_ID={job_id}\0".encode() in names or f"slurmstepd: [{job_id}.".encode() in names:
            found.append(int(folder.name))
    return found

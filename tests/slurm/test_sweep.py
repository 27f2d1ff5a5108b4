"""Sweeps on a real cluster: an array that is pushed out here and there, and a search whose controller is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import PROFILE, stub_worker, sweep_folder

from hpcft.cluster.array import submit_trials
from hpcft.cluster.controller import controller_of
from hpcft.data.e2e import make_rows, write_csv
from hpcft.runs.run import Run, RunState
from hpcft.runs.submission import submissions
from hpcft.runs.sweep import PRUNED, SweepFolder, sweep_rows
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer

HPCFT = str(Path(sys.executable).with_name("hpcft"))
LAB = """\
scheduler: slurm
resources: {accelerator: cpu, time: "00:10:00", cpus_per_task: 1, mem_gb: 3, account: acme}
env: {OMP_NUM_THREADS: "1"}
"""
# A fifth of a second a step, on one core.
JOB = """\
variant: lora
data: {dataset: e2e.csv, train_samples: 0, eval_samples: 4, max_length: 256}
lora: {r: 4, target_module_group: both}
training: {per_device_train_batch_size: 4, gradient_accumulation_steps: 2, max_steps: 40, save_minutes: 0.02}
evaluation: {max_new_tokens: 4}
tracking: {mode: disabled}
"""
SEARCH = """\
command: [hpcft, run, job.yaml, "${args_no_hyphens}"]
method: bayes
metric: {name: validation/loss}
parameters:
  training.learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-2}
  lora.r: {values: [2, 4]}
early_terminate: {type: hyperband, min_iter: 1, eta: 2}
"""


@pytest.fixture
def site(slurm_cluster: Any, slurm_home: Path, tiny_model: Path) -> Path:
    """A project folder with a profile for CPU ranks, a job and its data."""
    (slurm_home / "lab.yaml").write_text(LAB)
    (slurm_home / "job.yaml").write_text(JOB + f"model: {{name: {tiny_model}}}\n")
    (slurm_home / "search.yaml").write_text(SEARCH)
    write_csv(slurm_home / "e2e.csv", make_rows(80, 3))
    return slurm_home


def hpcft(site: Path, *words: str) -> Any:
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([HPCFT, *words], cwd=site, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def until(folder: SweepFolder, what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        queue = subprocess.run(["squeue"], capture_output=True, text=True).stdout
        logs = "".join(f"{p}\n{p.read_text()[-500:]}\n" for p in sorted(folder.paths.logs.iterdir()))
        assert time.monotonic() < deadline, f"{sweep_rows(folder.paths.root)}\n{queue}\n{logs}"
        time.sleep(0.2)
    return found


def runs(folder: SweepFolder) -> list[Run]:
    """The trials that have begun."""
    paths = [folder.paths.trial(trial.number) for trial in folder.trials()]
    return [Run(p.root) for p in paths if p.config.is_file()]


def underway(folder: SweepFolder, least: int) -> list[Run]:
    """Trials that have done so many steps, and are far from their end."""
    steps = {run: sum(1 for _ in run.events("step")) for run in runs(folder) if run.state is RunState.STARTED}
    return [run for run, done in steps.items() if least <= done <= 25]


def push_out_two(folder: SweepFolder) -> None:
    """Let a job that needs every core come when two trials are under way."""
    until(folder, lambda: len(underway(folder, 3)) == 2, 240)
    wide = ["sbatch", "--partition=gpu", "--account=acme", "--nodes=2", "--ntasks-per-node=4", "--mem=100", "--time=2"]
    subprocess.run([*wide, "--output=/dev/null", "--wrap=sleep 3"], check=True, capture_output=True)


def finish(folder: SweepFolder, array: str, seconds: float) -> None:
    """Wait for all eight, and check that none was done twice and that two of them were pushed out and went on."""
    until(folder, lambda: all(r["state"] == RunState.SUCCESS for r in sweep_rows(folder.paths.root)), seconds)
    done = runs(folder)
    assert len(done) == 8
    for number, run in enumerate(done):
        assert [s.job_id for s in submissions(run.paths)] == [f"{array}_{number}"]
        assert [e["step"] for e in run.events("step")] == list(range(1, 41)), "each step once"
    starts = [[e["resume_step"] for e in run.events("start")] for run in done]
    pushed = [found for found in starts if found != [0]]
    assert len(pushed) == 2
    assert all(first == 0 and second > 0 for first, second in pushed)
    assert [len(list(run.events("stopped"))) for run in done] == [len(found) - 1 for found in starts]


@pytest.fixture
def cluster(slurm_cluster: Any) -> Any:
    """A cluster of our own, with nobody on it, since its jobs are pushed out."""
    if not hasattr(slurm_cluster, "pid"):
        pytest.skip("this pushes others' jobs out")
    slurm_cluster.wait_idle()
    return slurm_cluster


def stubs(results: Path, trials: int, **resources: Any) -> SweepFolder:
    """A sweep whose trials need no model, some seconds long."""
    asked = {"accelerator": "cpu", "time": "00:05:00", "account": "acme", "cpus_per_task": 1, "mem_gb": 1, **resources}
    job = {"training.max_steps": 40} | {f"resources.{key}": value for key, value in asked.items()}
    folder = sweep_folder(results, trials, job=job, concurrency=2)
    stub_worker(folder)
    return folder


def send(folder: SweepFolder) -> str:
    job = build([yaml_layer(folder.paths.job)]).job
    (array,) = submit_trials(folder, job, PROFILE, [t.number for t in folder.trials()], print).job_ids
    return array


def test_two_of_eight_trials_that_are_pushed_out_go_on_as_the_same_trials(slurm_home: Path, cluster: Any) -> None:
    folder = stubs(slurm_home / "results", 8, partition="low")
    array = send(folder)
    push_out_two(folder)
    finish(folder, array, 240)


def test_a_trial_that_queues_itself_again_takes_no_other_one_with_it(slurm_home: Path, slurm_cluster: Any) -> None:
    folder = stubs(slurm_home / "results", 2)
    array = send(folder)
    # To Slurm the number of an array's last task is that of the whole array.
    until(folder, lambda: len(underway(folder, 3)) == 2, 120)
    subprocess.run(["scancel", "--signal=USR2", f"{array}_1"], check=True)
    until(folder, lambda: all(r["state"] == RunState.SUCCESS for r in sweep_rows(folder.paths.root)), 120)
    first, last = runs(folder)
    assert [e["resume_step"] for e in first.events("start")] == [0]
    assert len(list(last.events("start"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_eight_of_which_two_are_pushed_out_has_eight_results_and_none_twice(
    site: Path, cluster: Any
) -> None:
    words = ["--name", "eight", "--sweep", "lora.r=2,4,8,16", "--seeds", "2", "--concurrency", "2"]
    submitted = hpcft(site, "submit", "job.yaml", *words, "--partition", "low", "--json")
    folder = SweepFolder(site / "results" / "eight")
    (array,) = submitted["arrays"]
    push_out_two(folder)
    finish(folder, array, 900)
    assert len({(r.config["lora"]["r"], r.config["training"]["seed"]) for r in runs(folder)}) == 8
    rows = sweep_rows(folder.paths.root)
    assert all(row["value"] > 0 for row in rows)
    assert hpcft(site, "sweep", "--status", "eight", "--json")["best"]["value"] == min(row["value"] for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_whose_controller_is_killed_goes_on_and_tries_as_many_as_were_asked_for(site: Path) -> None:
    words = ["--count", "6", "--concurrency", "2", "--epochs", "4", "--set", "data.train_samples=16"]
    hpcft(site, "sweep", "search.yaml", *words, "--set", "training.max_steps=null", "--json")
    folder = SweepFolder(site / "results" / "search")
    until(folder, lambda: sum(r["state"] in (RunState.SUCCESS, PRUNED) for r in sweep_rows(folder.paths.root)), 200)
    holder = str(controller_of(folder))
    os.kill(int(holder.partition(" ")[2].partition("-")[0]), signal.SIGKILL)
    until(folder, lambda: controller_of(folder) is None, 10)
    hpcft(site, "sweep", "--continue", "search", "--json")
    until(folder, lambda: controller_of(folder) is None, 400)

    rows = sweep_rows(folder.paths.root)
    assert len(rows) == 6
    assert {row["state"] for row in rows} <= {RunState.SUCCESS, PRUNED}
    assert len({tuple(row["overrides"].items()) for row in rows}) == 6
    assert all(1e-5 <= row["overrides"]["training.learning_rate"] <= 1e-2 for row in rows)
    assert all(len(submissions(run.paths)) == 1 for run in runs(folder)), "none was begun twice"
    assert "all trials of search have ended" in folder.paths.controller_log.read_text()

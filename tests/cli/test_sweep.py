"""`hpcft sweep` and `hpcft submit --sweep`: what is shown, what is submitted, what is refused, what is left to do."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.shell import lint
from support.sweeps import play, stub_worker, sweep_folder

from hpcft.cluster.controller import controller_of, start_controller
from hpcft.runs.events import EventLog
from hpcft.runs.paths import RunPaths
from hpcft.runs.sweep import SweepFolder, parse_numbers

Call = Callable[..., Any]
COMMAND = ["hpcft", "run", "--preset", "quickstart", "${args_no_hyphens}"]
SMALL = ("--preset", "quickstart", "--cluster", "slurm")


@pytest.fixture
def mine(project: Path, small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    return project


def write(folder: Path, **content: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"command": COMMAND, **content}, sort_keys=False))
    return path.name


def trials(answer: Any) -> list[dict[str, Any]]:
    assert answer.code == 0, answer.err
    return [trial["overrides"] for trial in json.loads(answer.out)["overrides"]]


def queued(fake_slurm: Any) -> list[int]:
    """Numbers of all trials that were submitted."""
    found = []
    for job in fake_slurm.jobs():
        script = fake_slurm.job(job["id"])["script"]
        offset = int(script.partition("number=$((")[2].partition(" ")[0])
        found += [offset + task for task in parse_numbers(job["array"])]
    return found


def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


# What is shown


def test_a_dry_run_shows_the_trials_the_resources_and_the_script(hpcft: Call, mine: Path, tmp_path: Path) -> None:
    answer = hpcft("sweep", "rank", "--cluster", "slurm", "--dry-run")
    assert answer.code == 0, answer.err
    rows = [line.split() for line in answer.out.splitlines()]
    assert ["trial", "lora.r", "training.seed"] in rows
    assert ["7", "32", "2"] in rows
    assert ["trials", "8"] in rows
    assert not (mine / "results").exists()
    lint(answer.out[answer.out.index("#!/bin/bash") :], tmp_path)


def test_a_dry_run_as_json_has_every_trial(hpcft: Call, mine: Path) -> None:
    answer = hpcft("sweep", "rank", "--cluster", "slurm", "--dry-run", "--json")
    found = trials(answer)
    assert [(t["lora.r"], t["training.seed"]) for t in found] == [(r, s) for r in (4, 8, 16, 32) for s in (1, 2)]
    assert json.loads(answer.out)["arrays"] == 1


@pytest.mark.parametrize("name", ["rank", "target_groups", "learning_rate", "variants"])
def test_shipped_sweeps_are_jobs_that_can_be_built(hpcft: Call, mine: Path, name: str) -> None:
    answer = hpcft("sweep", name, "--cluster", "local", "--dry-run", "--json")
    assert answer.code == 0, answer.err


def test_the_short_way_is_a_grid_around_the_job_that_was_typed(hpcft: Call, mine: Path) -> None:
    words = ["--sweep", "lora.r=4,8", "--seeds", "2", "--set", "training.seed=7", "--dry-run", "--json"]
    answer = hpcft("submit", *SMALL, *words)
    found = trials(answer)
    assert [(t["lora.r"], t["training.seed"]) for t in found] == [(4, 7), (4, 8), (8, 7), (8, 8)]


def test_what_is_typed_is_stronger_than_the_file(hpcft: Call, mine: Path) -> None:
    answer = hpcft("sweep", "rank", "--cluster", "slurm", "--time", "0:07:00", "--name", "other", "--dry-run", "--json")
    found = json.loads(answer.out)
    assert found["asks"]["time"] == "00:07:00"
    assert found["directory"] == str(mine / "results" / "other")


@pytest.mark.parametrize("page", ["configuration", "sweeps"])
def test_the_files_in_the_documentation_are_sweeps(hpcft: Call, mine: Path, page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text()
    after = text[: text.index("\nmethod:")].rpartition("\nprogram: hpcft")[0]
    body = text[len(after) + 1 :].partition("\nEND")[0].partition("\n```")[0]
    (mine / "page.yaml").write_text(body + "\n")
    assert hpcft("sweep", "page.yaml", "--cluster", "slurm", "--dry-run").code == 0


def test_random_values_are_those_of_their_seed(hpcft: Call, mine: Path) -> None:
    rate = {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2}
    name = write(mine, method="random", parameters={"training.learning_rate": rate})

    def values(seed: str) -> list[dict[str, Any]]:
        words = ["--count", "4", "--sweep-seed", seed, "--cluster", "slurm", "--dry-run", "--json"]
        return trials(hpcft("sweep", name, *words))

    assert values("1") == values("1") != values("2")


# What is refused


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        ({"parameters": {"lora.rank": {"values": [1]}}}, [], ["mine.yaml:", "lora.rank", "did you mean lora.r?"]),
        ({"parameters": {"lora.r": {"values": [1, "x"]}}}, [], ["mine.yaml:", "lora.r", "'x'", "trial 1"]),
        ({"parameters": {"lora.r": {"values": [1, 2]}}}, ["--lora-r", "4"], ["is set, and swept by"]),
        ({"parameters": {"lora.r": {"values": [1, 2]}}}, ["--lora-rank", "4"], ["--lora-r"]),
        ({"parameters": {"lora.r": {"values": [1, 2]}}, "method": "bayes"}, [], ["mine.yaml", "--count N"]),
        ({"parameters": {"lora.r": {"min": 1, "max": 9}}, "method": "random"}, [], ["mine.yaml", "--count N"]),
        ({"parameters": {"variant": {"values": ["lora", "qlorra"]}}}, [], ["mine.yaml:", "did you mean qlora?"]),
        ({"parameters": {"lora.r": {"values": [1]}}, "command": ["python", "train.py"]}, [], ["hpcft run"]),
        ({"parameters": {"lora.r": {"values": [1]}}, "command": [*COMMAND[:2], "--prset", "x"]}, [], ["--prset"]),
        ({"parameters": {"lora.r": {"values": [1]}}, "command": []}, [], ["which job is swept"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else None,
)
def test_what_is_wrong_is_told_before_anything_is_submitted(
    hpcft: Call, mine: Path, fake_slurm: Any, content: dict[str, Any], words: list[str], told: list[str]
) -> None:
    answer = hpcft("sweep", write(mine, **content), *words, "--cluster", "slurm")
    assert answer.code in (2, 65, 78)
    for text in told:
        assert text in answer.err
    assert "Traceback" not in answer.err
    assert fake_slurm.submissions == 0
    assert not (mine / "results").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sweep", "lora.r"], "section.key=a,b,c"),
        (["--sweep", "lora.r="], "section.key=a,b,c"),
        (["--sweep", "=4"], "unknown key"),
        (["--sweep", "lora.rank=4,8"], "did you mean lora.r?"),
        (["--sweep", "lora.r=4,many"], "'many'"),
        (["--sweep", "lora.r=4", "--sweep", "lora.r=8"], "swept twice"),
        (["--sweep", "resources.nodes=1,2"], "the same for all trials"),
        (["--sweep", "lora.r=4,8", "--lora-r", "2"], "is set, and swept"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_a_slip_in_the_short_way_is_told(hpcft: Call, mine: Path, fake_slurm: Any, words: list[str], told: str) -> None:
    answer = hpcft("submit", *SMALL, *words)
    assert answer.code in (2, 65, 78)
    assert told in answer.err
    assert fake_slurm.submissions == 0


def test_a_sweep_that_is_not_there_is_told_with_the_nearest(hpcft: Call, mine: Path) -> None:
    answer = hpcft("sweep", "rnak", "--dry-run")
    assert answer.code == 78
    assert "did you mean 'rank'?" in answer.err
    for what in ("--status", "--continue", "--stop"):
        answer = hpcft("sweep", what, "nope")
        assert answer.code == 2
        assert "no sweep called 'nope'" in answer.err


def test_a_refusal_of_slurm_leaves_nothing_behind(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    fake_slurm.fault(sbatch="refuse_partition")
    answer = hpcft("sweep", "rank", "--cluster", "slurm", "--partition", "nope")
    assert answer.code == 78
    assert "partition" in answer.err
    assert not list((mine / "results").glob("*"))


# What is submitted, and what is left


def test_a_sweep_is_one_array_and_its_status_names_the_best(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    answer = hpcft("sweep", "rank", "--cluster", "slurm", "--concurrency", "3", "--json")
    assert answer.code == 0, answer.err
    facts = json.loads(answer.out)
    assert fake_slurm.submissions == 1
    assert "#SBATCH --array=0-7%3\n" in fake_slurm.job(facts["arrays"][0])["script"]
    folder = SweepFolder(mine / "results" / "rank")
    play(folder, 2, [3.0, 2.0], "done", total=2)
    play(folder, 5, [3.0, 1.5], "done", total=2)
    play(folder, 6, [9.0])
    told = hpcft("sweep", "--status", "rank")
    assert "8 trials: 5 pending, 1 started, 2 success" in told.err
    assert "best: trial 0005 with final/validation_loss 1.5 (lora.r=16, training.seed=2)" in told.err
    rows = json.loads(hpcft("sweep", "--status", "rank", "--json").out)
    assert rows["best"]["number"] == 5
    assert [row["state"] for row in rows["trials"]].count("PENDING") == 5


def test_going_on_submits_what_the_limits_left_and_what_has_no_job(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    fake_slurm.fault(max_submit="5")
    first = hpcft("sweep", "rank", "--cluster", "slurm", "--json")
    assert json.loads(first.out)["left"] == 3
    assert "hpcft sweep --continue rank" in first.err
    folder = SweepFolder(mine / "results" / "rank")
    for number, state in ((0, "done"), (1, "done"), (2, "failed"), (3, "training")):
        play(folder, number, [1.0], state)
    # The fifth is still in the queue; the fourth has lost its job.
    fake_slurm.set_state(1, "PENDING", array="4")
    assert hpcft("sweep", "--continue", "rank").code == 0
    assert queued(fake_slurm) == [4, 3, 5, 6, 7]
    assert hpcft("sweep", "--continue", "rank").err.startswith("no trial is left")
    for job in fake_slurm.jobs():
        fake_slurm.set_state(job["id"], "COMPLETED")
    for number in range(3, 8):
        play(folder, number, [1.0], "done")
    hpcft("sweep", "--continue", "rank", "--failed")
    assert queued(fake_slurm)[-1:] == [2]
    assert fake_slurm.submissions == 3


def test_a_dry_run_of_going_on_or_of_stopping_does_nothing(
    hpcft: Call, mine: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_slurm.fault(max_submit="5")
    hpcft("sweep", "rank", "--cluster", "slurm")
    answer = hpcft("sweep", "--continue", "rank", "--dry-run")
    assert (answer.code, answer.out) == (0, "3 trials would be submitted: 5-7\n")
    assert json.loads(hpcft("sweep", "--continue", "rank", "--dry-run", "--json").out)["trials"] == [5, 6, 7]
    assert fake_slurm.submissions == 1
    monkeypatch.setattr("hpcft.cluster.controller.stop_controller", lambda _: pytest.fail("it was stopped"))
    assert hpcft("sweep", "--stop", "rank", "--dry-run").err == "its controller: none runs\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--continue", "--concurrency", "2"], "--concurrency: means nothing with --continue"),
        (["--continue", "--count", "2"], "--count"),
        (["--continue", "--sweep-seed", "0"], "--sweep-seed"),
        (["--continue", "--lr", "1e-3"], "--lr: means nothing with --continue"),
        (["--continue", "lora.r=4"], "lora.r=4"),
        (["--continue", "--stop"], "exclude each other"),
        (["--status", "--wait"], "--wait"),
        (["--status", "--dry-run"], "--dry-run"),
        (["--stop", "--json"], "--json"),
        (["--failed"], "--failed: means nothing here"),
        (["--agents", "2", "--sweep-id", "a/b/c", "--wait"], "--wait"),
        (["--agents", "2", "--sweep-id", "a/b/c", "--concurrency", "2"], "--concurrency"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    hpcft: Call, mine: Path, fake_slurm: Any, words: list[str], told: str
) -> None:
    hpcft("sweep", "rank", "--cluster", "slurm")
    answer = hpcft("sweep", "rank", *words)
    assert answer.code == 2
    assert told in answer.err
    assert fake_slurm.submissions == 1


def test_a_limit_of_trials_without_a_sweep_is_refused(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    answer = hpcft("submit", *SMALL, "--concurrency", "3")
    assert answer.code == 2
    assert "--concurrency: is of the trials of a sweep" in answer.err
    assert fake_slurm.submissions == 0


def test_a_second_sweep_of_the_same_name_is_another_one(hpcft: Call, mine: Path, fake_slurm: Any) -> None:
    names = [json.loads(hpcft("sweep", "rank", "--cluster", "slurm", "--json").out)["sweep"] for _ in range(2)]
    assert len(set(names)) == 2


def test_where_there_is_no_queue_a_controller_is_started_and_can_be_stopped(
    hpcft: Call, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("hpcft.cluster.controller.start_controller", lambda sweep, _: started.append(sweep.name) or 7)
    answer = hpcft("sweep", "rank", "--cluster", "local", "--json")
    assert json.loads(answer.out)["controller"] == 7
    assert hpcft("sweep", "--stop", "rank").err == "no controller runs\n"
    (mine / "results" / "rank" / "controller.log").write_text("one\nhpcft: the disk is full\n")
    assert "has ended (hpcft: the disk is full); hpcft sweep --continue rank" in hpcft("sweep", "--status", "rank").err
    assert hpcft("sweep", "--continue", "rank").code == 0
    assert started == ["rank", "rank"]


# Agents of W&B


def test_agents_are_an_array_that_calls_wandb(
    hpcft: Call, mine: Path, fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.lan")
    words = ["--agents", "3", "--sweep-id", "lab/study/ab12cd", "--count", "5", "--cluster", "slurm"]
    answer = hpcft("sweep", "rank", *words, "--dry-run")
    assert answer.code == 0, answer.err
    lint(answer.out, tmp_path)
    assert "#SBATCH --array=0-2\n" in answer.out
    assert "-m wandb agent --count 5 lab/study/ab12cd\n" in answer.out
    assert "WANDB_API_KEY" not in answer.out
    assert json.loads(hpcft("sweep", "rank", *words, "--dry-run", "--json").out)["script"] == answer.out
    facts = json.loads(hpcft("sweep", "rank", *words, "--json").out)
    assert fake_slurm.job(facts["job_id"])["array"] == "0-2"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--agents", "2"], "--sweep-id"),
        (["--agents", "2", "--sweep-id", "a/b/c/d"], "--sweep-id"),
        (["--agents", "2", "--sweep-id", "a b"], "--sweep-id"),
        (["--agents", "2", "--sweep-id", "a/b/c"], "reach no server"),
        (["--agents", "2", "--sweep-id", "a/b/c", "--cluster", "local"], "wandb agent a/b/c"),
    ],
)
def test_agents_that_could_not_work_are_refused(
    hpcft: Call, mine: Path, fake_slurm: Any, words: list[str], told: str
) -> None:
    answer = hpcft("sweep", "rank", *([] if "--cluster" in words else ["--cluster", "slurm"]), *words)
    assert answer.code in (2, 78)
    assert told in answer.err
    assert fake_slurm.submissions == 0


# Cancel


def test_a_cancelled_sweep_starts_no_trial_any_more(hpcft: Call, project: Path) -> None:
    job = {"training.max_steps": 200, "resources.accelerator": "cpu"}
    sweep = sweep_folder(project / "results", 3, scheduler="local", job=job)
    stub_worker(sweep)
    start_controller(sweep, project)
    until(sweep.paths.trial(0).status.exists)
    done = hpcft("cancel", "mine")
    assert done.code == 0, done.err
    assert done.out == "mine: its controller has ended\nmine/0000: stops as soon as it has saved\n"
    until(lambda: hpcft("status", "mine/0000").out.startswith("mine/0000: CANCELLED"))
    assert controller_of(sweep) is None
    assert not sweep.paths.trial(1).root.exists()


def test_a_sweep_whose_controller_runs_on_another_machine_is_cancelled_there(
    hpcft: Call, project: Path, fake_slurm: Any
) -> None:
    sweep = sweep_folder(project / "results", 2, scheduler="local")
    sweep.paths.controller_lock.write_text("login7 12-34\n")
    done = hpcft("cancel", "mine")
    assert (done.code, done.out) == (2, "")
    assert "its controller runs on login7" in done.err
    assert "on login7: hpcft cancel mine" in done.err


def test_an_array_that_sbatch_never_confirmed_is_found_and_cancelled(
    hpcft: Call, fake_slurm: Any, project: Path, tmp_path: Path
) -> None:
    script = tmp_path / "array.sh"
    script.write_text("#!/bin/sh\n#SBATCH --array=0-3\n#SBATCH --job-name=sweep.s3f9x2m1qa\n")
    subprocess.run(["sbatch", str(script)], check=True, capture_output=True)
    sweep = RunPaths(project / "results" / "sweep")
    sweep.root.mkdir(parents=True)
    with EventLog(sweep.client) as journal:
        journal.append("intent", submission=1, run_id="s3f9x2m1qa", scheduler="slurm")
        journal.append("sending", submission=1)
    (sweep.root / "manifest.jsonl").touch()
    assert "sweep: cancelled array 1" in hpcft("cancel", "sweep").out
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")

"""A trial's start: its directory is made once, and only one job does the trial."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import PROFILE, sweep_folder

from hpcft.cluster.array import submit_trials
from hpcft.cluster.trial import NOTHING_TO_DO, begin
from hpcft.errors import DataError
from hpcft.runs.files import write_json
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, find_run
from hpcft.runs.submission import Journal, submissions
from hpcft.runs.sweep import SweepFolder
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer


@pytest.fixture
def sweep(fake_slurm: Any, tmp_path: Path) -> SweepFolder:
    folder = sweep_folder(tmp_path / "results", 4)
    job = build([yaml_layer(folder.paths.job)]).job
    submit_trials(folder, job, PROFILE, [0, 1, 2, 3], lambda _: None)
    return folder


def start(sweep: SweepFolder, number: int, job_id: str = "1_2", name: str = "mine.key") -> int:
    return begin(sweep.paths.root, number, job_id, name)


def test_a_trial_is_an_ordinary_run(sweep: SweepFolder, tmp_path: Path) -> None:
    assert start(sweep, 2) == 0
    run = find_run("mine/0002", tmp_path / "results")
    assert run.config["lora"]["r"] == 3
    assert run.config["tracking"]["group"] == "mine"
    assert run.job_id == "1_2"
    assert run.journal()[0]["scheduler"] == "slurm"
    assert run.paths.batch_log.readlink() == Path("..", "logs", "1_2.log")


def test_the_code_of_all_trials_is_the_one_that_was_submitted(sweep: SweepFolder) -> None:
    start(sweep, 0)
    code = sweep.paths.trial(0).code
    words = [sys.executable, "-P", "-c", "import hpcft.worker as w; print(w.__file__)"]
    done = subprocess.run(words, env={"PYTHONPATH": str(code)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{code}/hpcft/worker.py"


def test_a_task_that_was_queued_again_finds_its_trial(sweep: SweepFolder) -> None:
    start(sweep, 2)
    config = sweep.paths.trial(2).config.read_bytes()
    assert start(sweep, 2) == 0
    assert sweep.paths.trial(2).config.read_bytes() == config
    assert len(submissions(sweep.paths.trial(2))) == 1


def test_a_trial_that_was_cut_off_while_it_was_made_is_made_whole(sweep: SweepFolder) -> None:
    paths = sweep.paths.trial(1)
    paths.root.mkdir()
    with Journal(paths) as journal:
        journal.open_submission("k3f9x2m1qa")
        journal.note("intent", run_id="k3f9x2m1qa", job_name="mine.key")
    assert start(sweep, 1, "1_1") == 0
    assert Run(paths.root).id == "k3f9x2m1qa"
    assert Run(paths.root).job_id == "1_1"


def test_a_finished_trial_is_not_done_again(sweep: SweepFolder) -> None:
    start(sweep, 2)
    sweep.paths.trial(2).done.write_text("{}")
    assert start(sweep, 2) == NOTHING_TO_DO


def test_a_trial_that_another_job_has_is_left_to_it(sweep: SweepFolder, fake_slurm: Any) -> None:
    start(sweep, 2, "1_2")
    assert start(sweep, 2, "7_2") == NOTHING_TO_DO
    assert Run(sweep.paths.trial(2).root).job_id == "1_2"
    fake_slurm.set_state(1, "CANCELLED by 0")
    assert start(sweep, 2, "7_2") == 0
    assert Run(sweep.paths.trial(2).root).job_id == "7_2"
    assert [s.number for s in submissions(sweep.paths.trial(2))] == [1, 2]


def test_the_words_of_a_trial_s_earlier_job_are_not_those_of_the_next(sweep: SweepFolder, fake_slurm: Any) -> None:
    start(sweep, 2, "1_2")
    paths = sweep.paths.trial(2)
    paths.attempt(1).mkdir(parents=True)
    write_json(paths.status, {"state": "failed", "attempt": 1, "message": "no such file", "time": time.time()})
    assert read_record(paths.root).heartbeat is not None
    fake_slurm.set_state(1, "CANCELLED by 0")
    start(sweep, 2, "7_2")
    assert read_record(paths.root).heartbeat is None


def test_a_job_of_a_submission_that_was_given_up_does_nothing(sweep: SweepFolder) -> None:
    with Journal(sweep.paths.as_run) as journal:
        key = journal.open_submission(sweep.settings.id)
        journal.note("intent", run_id=sweep.settings.id, offset=0, trials="0-3")
        journal.note("withdrawn")
    assert start(sweep, 2, "9_2", f"mine.{key}") == NOTHING_TO_DO
    assert not sweep.paths.trial(2).root.exists()


def test_a_number_that_the_manifest_has_not_is_told(sweep: SweepFolder) -> None:
    with pytest.raises(DataError, match="no trial 77"):
        start(sweep, 77)


def test_a_trial_s_start_loads_nothing_heavy() -> None:
    code = (
        "import sys, hpcft.cluster.trial; "
        "print([m for m in ('torch', 'transformers', 'optuna', 'wandb', 'submitit') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

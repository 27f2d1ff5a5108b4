"""The run directory: made once, read back."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpcft.errors import DataError, NotAllowedError, UsageError
from hpcft.runs.attempt import holder_of
from hpcft.runs.create import begin_attempt, make_run_directory, new_run_id
from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run, RunState, Status, find_run
from hpcft.runs.sweep import SweepFolder
from hpcft.train.recorder import Recorder


def make(results: Path, name: str, run_id: str = "", job_id: str = "") -> Run:
    paths = make_run_directory(results, name, "stem")
    paths.config.write_text("variant: lora\n")
    with EventLog(paths.client) as journal:
        journal.append("intent", run_id=run_id or new_run_id(), cluster="local")
        if job_id:
            journal.append("submitted", job_id=job_id)
    return Run(paths.root)


def test_c17_a_given_free_name_is_the_directory_and_a_taken_one_gets_the_time(tmp_path: Path) -> None:
    assert make_run_directory(tmp_path, "mine", "stem").root.name == "mine"
    assert make_run_directory(tmp_path, "mine", "stem", now=0.0).root.name.startswith("mine_19")
    assert make_run_directory(tmp_path, None, "stem", now=0.0).root.name.startswith("stem_19")


def test_tc5_runs_made_in_one_second_have_directories_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_run_directory(tmp_path, None, "x", now=0.0).root, range(40)))
    assert len(set(made)) == 40


def test_directories_are_private_to_their_user(tmp_path: Path) -> None:
    paths = make_run_directory(tmp_path / "results", "mine", "stem")
    assert paths.root.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "results").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NotAllowedError, match="permission denied"):
        make_run_directory(tmp_path, "mine", "stem")


def test_a_file_in_the_way_of_the_results_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(NotAllowedError) as caught:
        make_run_directory(tmp_path / "results", "mine", "stem")
    assert "results" in str(caught.value)


def test_attempts_are_numbered_once_each(tmp_path: Path) -> None:
    paths = make_run_directory(tmp_path, "mine", "stem")
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: begin_attempt(paths), range(20)))
    assert sorted(numbers) == list(range(1, 21))


def test_states_follow_the_files(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    assert run.state is RunState.PENDING
    write_json(run.paths.status, {"state": "training", "attempt": 1, "step": 3})
    assert run.state is RunState.STARTED
    write_json(run.paths.status, {"state": "stopped", "attempt": 1})
    assert run.state is RunState.PENDING
    write_json(run.paths.status, {"state": "failed", "attempt": 1, "message": "why"})
    assert run.state is RunState.FAILURE
    write_json(run.paths.done, {"step": 3})
    assert run.state is RunState.SUCCESS


def test_steps_done_again_after_a_stop_appear_once(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    for steps, resumed in (([1, 2, 3, 4], 0), ([3, 4, 5], 2)):
        number = begin_attempt(run.paths)
        with EventLog(run.paths.events(number)) as log:
            log.append("start", resume_step=resumed)
            for step in steps:
                log.append("step", step=step, loss=float(number))
    assert [(e["step"], e["loss"]) for e in run.events("step")] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]


def test_an_attempt_that_was_ended_before_it_trained_takes_no_step_away(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    for steps, resumed in (([1, 2, 3], 0), ([], None), ([3, 4], 2)):
        number = begin_attempt(run.paths)
        with EventLog(run.paths.events(number)) as log:
            if resumed is not None:
                log.append("start", resume_step=resumed)
            for step in steps:
                log.append("step", step=step, loss=float(number))
    assert [(e["step"], e["loss"]) for e in run.events("step")] == [(1, 1), (2, 1), (3, 3), (4, 3)]


def test_runs_are_found_by_name_id_job_and_unique_beginning(tmp_path: Path) -> None:
    make(tmp_path, "alpha", "id1aaaaaaa", "101")
    make(tmp_path, "alpine", "id2bbbbbbb", "102")
    assert find_run("alpha", tmp_path).name == "alpha"
    assert find_run("id2", tmp_path).name == "alpine"
    assert find_run("101", tmp_path).name == "alpha"
    assert find_run(str(tmp_path / "alpine"), Path("elsewhere")).name == "alpine"
    with pytest.raises(UsageError, match="fits 2 runs"):
        find_run("al", tmp_path)
    with pytest.raises(UsageError, match="no run called"):
        find_run("zzz", tmp_path)


@pytest.mark.parametrize("content", [{}, {"state": "failed", "of": "a later version"}])
def test_a_heartbeat_a_holder_or_a_sweep_that_lacks_a_field_is_told_as_damaged(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    run = make(tmp_path, "mine")
    run.paths.attempt(1).mkdir(parents=True)
    for path in (run.paths.status, run.paths.holder(1), run.paths.root / "sweep.json"):
        path.write_text(json.dumps(content))
    for read in (lambda: run.status, lambda: holder_of(run.paths, 1), lambda: SweepFolder(run.paths.root)):
        with pytest.raises(DataError, match="is damaged: it lacks"):
            read()


def test_what_a_later_version_says_besides_is_left_out(tmp_path: Path) -> None:
    run = make(tmp_path, "mine")
    run.paths.status.write_text(json.dumps({"state": "failed", "attempt": 1, "colour": "red"}))
    assert run.status == Status("failed", 1)


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.yaml"):
        Run(tmp_path)
    assert RunPaths(tmp_path).attempt_numbers() == []


def test_the_heartbeat_tells_the_most_gpu_memory_that_was_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    run = make(tmp_path, "mine")
    recorder = Recorder(run.paths, begin_attempt(run.paths), 20)

    def told() -> float | None:
        status = run.status
        assert status is not None
        return status.peak_vram_gb

    recorder.status("starting")
    assert told() is None
    held = 3 * 1024**3
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held)
    monkeypatch.setattr("hpcft.train.recorder._HEARTBEAT_S", 0.0)
    recorder.step(1, 9, {"loss": 1.0})
    assert told() == 3.0
    # Where a measurement begins anew, what was held before still counts.
    held = 1024**3
    recorder.status("validating")
    assert told() == 3.0
    recorder.close()

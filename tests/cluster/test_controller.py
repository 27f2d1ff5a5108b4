"""A sweep's controller: how much it starts, what it tells the search, and what happens when it or Slurm is away."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.sweeps import PROFILE, play, stub_worker, sweep_folder

from hpcft.cluster import array, controller, repair
from hpcft.cluster import submit as submission
from hpcft.cluster.controller import Controller, controller_of, start_controller, stop_controller
from hpcft.errors import HpcftError
from hpcft.runs.events import read_log
from hpcft.runs.run import Run, RunState
from hpcft.runs.submission import submissions
from hpcft.runs.sweep import PRUNED, SweepFolder, best, parse_numbers, sweep_rows
from hpcft.spec.sweep import EarlyEnd, Metric, Parameter, Sweep

RANK = Parameter("lora.r", "t", "int_uniform", numbers=(("min", 1.0), ("max", 64.0)))


class Killed(BaseException):
    """SIGKILL: nothing is caught, and nothing is written."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_LOOKS_S", (0.0, 0.05))
    monkeypatch.setattr(repair, "_AGAIN_S", 0.0)
    monkeypatch.setattr(repair, "_SETTLED_S", 0.0)
    monkeypatch.setattr(controller, "_LOOK_S", {"local": 0.05, "slurm": 0.0})
    for name in ("_QUEUE_S", "_LAST_WORDS_S"):
        monkeypatch.setattr(controller, name, 0.0)


def search_folder(results: Path, trials: int, concurrency: int | None = 2, **others: Any) -> SweepFolder:
    sweep = Sweep("mine", "bayes", (RANK,), Metric("validation/loss"), **others)
    return sweep_folder(results, trials, sweep, concurrency=concurrency)


def begun(fake_slurm: Any) -> list[int]:
    """Numbers of all trials that were submitted, as often as they were."""
    found = []
    for job in fake_slurm.jobs():
        script = fake_slurm.job(job["id"])["script"]
        offset = int(script.partition("number=$((")[2].partition(" ")[0])
        tasks = script.partition("--array=")[2].partition("\n")[0].partition("%")[0]
        found += [offset + task for task in parse_numbers(tasks)]
    return found


def leave_queue(fake_slurm: Any, sweep: SweepFolder, number: int) -> None:
    """Take a trial's task out of the queue, as Slurm does when it has ended."""
    chunk = next(c for c in reversed(sweep.chunks()) if number in c.numbers)
    task, job = str(number - chunk.offset), fake_slurm.job(chunk.submission.job_id)
    left = [n for n in map(str, parse_numbers(job["array"])) if n != task]
    if left:
        fake_slurm.set_state(job["id"], "PENDING", array=",".join(left))
    else:
        fake_slurm.set_state(job["id"], "COMPLETED")


def end(fake_slurm: Any, sweep: SweepFolder, number: int, loss: float) -> None:
    play(sweep, number, [loss], "done", total=1)
    leave_queue(fake_slurm, sweep, number)


def of_trials(sweep: SweepFolder) -> dict[int, str]:
    """What the search was told of each trial."""
    from hpcft.cluster.search import Search

    return {t.number: t.state.name for t in Search(sweep)._study.trials}


def test_no_more_trials_run_than_were_asked_for_and_each_end_makes_room_for_one(
    fake_slurm: Any, tmp_path: Path
) -> None:
    sweep = search_folder(tmp_path, 5)
    own = Controller(sweep, PROFILE)
    done: list[int] = []
    while not own.step():
        going = sorted(set(begun(fake_slurm)) - set(done))
        assert len(going) <= 2
        end(fake_slurm, sweep, going[0], 1.0)
        done.append(going[0])
    assert sorted(begun(fake_slurm)) == [0, 1, 2, 3, 4] == sorted(done)
    assert fake_slurm.submissions == 4, "two at first, then one at each end"
    assert set(of_trials(sweep).values()) == {"COMPLETE"}


def test_what_may_be_wrong_with_a_trial_is_told_only_when_slurm_does_not_try_it_again(
    fake_slurm: Any, tmp_path: Path
) -> None:
    sweep = search_folder(tmp_path, 3)
    own = Controller(sweep, PROFILE)
    own.step()
    play(sweep, 0, [2.0], "failed")
    own.step()
    assert of_trials(sweep)[0] == "RUNNING", "its job is still in the queue"
    leave_queue(fake_slurm, sweep, 0)
    own.step()
    assert of_trials(sweep)[0] == "FAIL"
    assert begun(fake_slurm) == [0, 1, 2], "the next one takes its place, and it is not begun again"


def test_a_trial_whose_job_was_cancelled_counts_as_failed(fake_slurm: Any, tmp_path: Path) -> None:
    sweep = search_folder(tmp_path, 2)
    own = Controller(sweep, PROFILE)
    own.step()
    play(sweep, 1, [2.0])
    leave_queue(fake_slurm, sweep, 0)
    leave_queue(fake_slurm, sweep, 1)
    assert own.step() is True
    assert set(of_trials(sweep).values()) == {"FAIL"}
    assert fake_slurm.submissions == 1


def test_a_controller_that_is_away_for_a_moment_changes_nothing(fake_slurm: Any, tmp_path: Path) -> None:
    sweep = search_folder(tmp_path, 3)
    own = Controller(sweep, PROFILE)
    own.step()
    fake_slurm.fault(controller="down")
    own.step()
    assert set(of_trials(sweep).values()) == {"RUNNING"}
    fake_slurm.fault(controller=None)
    own.step()
    assert begun(fake_slurm) == [0, 1]
    assert set(of_trials(sweep).values()) == {"RUNNING"}


def test_the_worse_trials_end_early_and_keep_what_they_have(fake_slurm: Any, tmp_path: Path) -> None:
    sweep = search_folder(tmp_path, 4, concurrency=4, early_end=EarlyEnd(1, 2))
    own = Controller(sweep, PROFILE)
    own.step()
    for number in range(4):
        play(sweep, number, [1.0 + number])
    own.step()
    told = [n for n in range(4) if sweep.paths.trial(n).end_early.exists()]
    assert 3 in told
    assert 0 not in told
    for number in range(4):
        play(sweep, number, [1.0 + number] * (1 if number in told else 10), "done")
        leave_queue(fake_slurm, sweep, number)
    assert own.step() is True
    rows = sweep_rows(sweep.paths.root)
    assert [row["state"] for row in rows] == [PRUNED if n in told else RunState.SUCCESS for n in range(4)]
    assert [of_trials(sweep)[n] for n in range(4)] == ["PRUNED" if n in told else "COMPLETE" for n in range(4)]
    top = best(rows, "minimize")
    assert top is not None
    assert top["number"] == 0


def test_what_the_limits_leave_no_room_for_waits_outside_the_queue(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.fault(max_submit="1")
    sweep = search_folder(tmp_path, 2)
    own = Controller(sweep, PROFILE)
    own.step()
    assert begun(fake_slurm) == [0]
    own.step()
    assert begun(fake_slurm) == [0]
    end(fake_slurm, sweep, 0, 1.0)
    own.step()
    assert begun(fake_slurm) == [0, 1]


def run(sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch, at_each_pause: Callable[[int], None]) -> None:
    """Run a controller to its end; at each of its pauses the world goes on."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert len(pauses) < 60, "it does not end"
        at_each_pause(len(pauses))

    own = SimpleNamespace(sleep=pause, monotonic=time.monotonic, strftime=time.strftime)
    monkeypatch.setattr(controller, "time", own)
    Controller(sweep, PROFILE).run()


def finish_all(fake_slurm: Any, sweep: SweepFolder) -> None:
    for number in set(begun(fake_slurm)):
        if not sweep.paths.trial(number).done.exists():
            end(fake_slurm, sweep, number, 1.0)


def test_an_sbatch_without_an_answer_is_looked_for_and_not_repeated(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_LOOKS_S", ())
    fake_slurm.fault(sbatch="timeout_after_accept")
    sweep = search_folder(tmp_path, 4)

    def world(pause: int) -> None:
        fake_slurm.fault(sbatch=None)
        if pause > 2:
            finish_all(fake_slurm, sweep)

    run(sweep, monkeypatch, world)
    assert sorted(begun(fake_slurm)) == [0, 1, 2, 3]


def test_while_slurm_is_away_a_controller_waits_and_loses_no_trial(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = search_folder(tmp_path, 3)
    fake_slurm.fault(controller="down")

    def world(pause: int) -> None:
        if pause == 2:
            assert fake_slurm.jobs() == []
            fake_slurm.fault(controller=None)
        elif pause > 2:
            finish_all(fake_slurm, sweep)

    run(sweep, monkeypatch, world)
    assert sorted(begun(fake_slurm)) == [0, 1, 2]
    assert set(of_trials(sweep).values()) == {"COMPLETE"}


def test_a_controller_that_starts_again_goes_on_with_what_is_queued_and_with_what_lost_its_job(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = search_folder(tmp_path, 4)
    Controller(sweep, PROFILE).step()
    play(sweep, 0, [3.0])
    leave_queue(fake_slurm, sweep, 0)

    def world(pause: int) -> None:
        if pause == 1:
            assert begun(fake_slurm) == [0, 1, 0], "the trial whose job is gone goes on; the queued one is left alone"
        finish_all(fake_slurm, sweep)

    run(sweep, monkeypatch, world)
    assert sorted(begun(fake_slurm)) == [0, 0, 1, 2, 3]
    assert set(of_trials(sweep).values()) == {"COMPLETE"}


@pytest.mark.parametrize("moment", ["open_submission", "intent", "sending"])
def test_a_controller_killed_around_sbatch_loses_and_repeats_nothing(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    sweep = search_folder(tmp_path, 2)

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        if moment == "open_submission":
            patch.setattr("hpcft.runs.submission.Journal.note", killed)
        elif moment == "intent":
            patch.setattr(array, "submit_script", killed)
        else:
            patch.setattr("hpcft.cluster.executor.call", killed)
        with pytest.raises(Killed):
            Controller(sweep, PROFILE).step()
    run(sweep, monkeypatch, lambda _: finish_all(fake_slurm, sweep))
    assert sorted(begun(fake_slurm)) == [0, 1]
    assert set(of_trials(sweep).values()) == {"COMPLETE"}


def test_a_second_controller_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = search_folder(tmp_path, 2)
    monkeypatch.setattr(sys, "argv", ["controller", str(sweep.paths.root)])
    with sweep.paths.controller_lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert controller.main() == 75
    assert "another controller" in capsys.readouterr().err


def test_a_controller_that_is_told_to_end_first_does_what_it_is_at(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Controller(search_folder(tmp_path, 2), PROFILE)
    steps: list[str] = []

    def step() -> bool:
        steps.append("began")
        own.end()
        steps.append("did")
        return False

    monkeypatch.setattr(own, "step", step)
    with pytest.raises(SystemExit):
        own.run()
    assert steps == ["began", "did"]


def test_a_trial_that_has_failed_for_good_is_not_asked_about_any_more(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = search_folder(tmp_path, 2)
    own = Controller(sweep, PROFILE)
    own.step()
    play(sweep, 0, [2.0], "failed")
    leave_queue(fake_slurm, sweep, 0)
    own.step()
    assert of_trials(sweep)[0] == "FAIL"
    read: list[int] = []
    state = own._state
    monkeypatch.setattr(own, "_state", lambda number: (read.append(number), state(number))[1])
    monkeypatch.setattr(controller, "_QUEUE_S", 1000.0)
    asked = len(fake_slurm.calls("squeue"))
    for _ in range(4):
        own.step()
    assert len(fake_slurm.calls("squeue")) == asked + 1
    assert set(read) == {1}


def test_a_trial_is_given_up_once(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(controller, "_LAST_WORDS_S", 0.3)
    sweep = search_folder(tmp_path, 2)
    own = Controller(sweep, PROFILE)
    own.step()
    leave_queue(fake_slurm, sweep, 0)
    own.step()
    time.sleep(0.4)
    for _ in range(3):
        own.step()
    assert capsys.readouterr().err.count("trial 0: its job has ended") == 1


def test_a_file_server_that_is_away_for_a_moment_does_not_end_a_controller(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = search_folder(tmp_path, 2)
    chunks, away = sweep.chunks, [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error")]

    def read() -> Any:
        if away:
            raise away.pop()
        return chunks()

    monkeypatch.setattr(sweep, "chunks", read)
    run(sweep, monkeypatch, lambda _: finish_all(fake_slurm, sweep))
    assert sorted(begun(fake_slurm)) == [0, 1]
    assert set(of_trials(sweep).values()) == {"COMPLETE"}


@pytest.mark.parametrize(("holder", "refused"), [("", False), ("login7 12-34\n", True)])
def test_where_files_cannot_be_locked_the_lock_s_words_decide(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    holder: str,
    refused: bool,
) -> None:
    sweep = search_folder(tmp_path, 2)
    sweep.paths.controller_lock.write_text(holder)

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(sys, "argv", ["controller", str(sweep.paths.root)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(Controller, "run", lambda _: None)
    monkeypatch.setattr(controller, "load_profile", lambda *_: PROFILE)
    assert controller.main() == (75 if refused else 0)
    assert ("another controller" in capsys.readouterr().err) is refused


# On this machine, with real processes


def local_grid(results: Path, trials: int, steps: int = 4) -> SweepFolder:
    job = {"training.max_steps": steps, "resources.accelerator": "cpu"}
    sweep = sweep_folder(results, trials, scheduler="local", job=job)
    stub_worker(sweep)
    return sweep


def until(what: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)
    return found


def spans(sweep: SweepFolder) -> list[tuple[float, float]]:
    """Begin and end of each attempt of each trial."""
    runs = [Run(sweep.paths.trial(trial.number).root) for trial in sweep.trials()]
    logs = [read_log(run.paths.events(n)).records for run in runs for n in run.paths.attempt_numbers()]
    return [(float(log[0]["t"]), float(log[-1]["t"])) for log in logs]


def pid_of(sweep: SweepFolder) -> int:
    return int(str(controller_of(sweep)).partition(" ")[2].partition("-")[0])


def test_without_a_queue_trials_run_one_after_the_other(project: Path) -> None:
    sweep = local_grid(project / "results", 3)
    start_controller(sweep, project)
    until(lambda: controller_of(sweep) is None)
    done = spans(sweep)
    assert len(done) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(done))
    assert [row["value"] for row in sweep_rows(sweep.paths.root)] == [1.0, 2.0, 3.0]
    assert [Run(sweep.paths.trial(n).root).journal()[0]["after_attempt"] for n in range(3)] == [0, 0, 0]
    assert "all trials of mine have ended" in sweep.paths.controller_log.read_text()


def test_a_controller_that_is_killed_and_started_again_does_each_trial_once(project: Path) -> None:
    sweep = local_grid(project / "results", 3, steps=20)
    start_controller(sweep, project)
    until(lambda: sweep.paths.trial(0).status.exists())
    os.kill(pid_of(sweep), signal.SIGKILL)
    until(lambda: controller_of(sweep) is None)
    start_controller(sweep, project)
    until(lambda: controller_of(sweep) is None)
    assert len(spans(sweep)) == 3
    assert [row["state"] for row in sweep_rows(sweep.paths.root)] == ["SUCCESS"] * 3
    assert [len(submissions(sweep.paths.trial(n))) for n in range(3)] == [1, 1, 1]


def test_stopping_a_controller_leaves_the_trial_that_runs(project: Path) -> None:
    sweep = local_grid(project / "results", 3, steps=40)
    start_controller(sweep, project)
    until(lambda: sweep.paths.trial(0).status.exists())
    assert "was told to end" in stop_controller(sweep)
    until(lambda: controller_of(sweep) is None)
    assert stop_controller(sweep) == "no controller runs"
    # All that another machine can look at.
    until(lambda: sweep.paths.controller_lock.read_text() == "")
    until(lambda: sweep.paths.trial(0).done.exists())
    assert [row["state"] for row in sweep_rows(sweep.paths.root)] == ["SUCCESS", "PENDING", "PENDING"]


def test_a_controller_that_cannot_start_says_why(project: Path) -> None:
    sweep = local_grid(project / "results", 1)
    sweep.paths.job.write_text("lora: {rank: 3}\n")
    with pytest.raises(HpcftError, match=r"did you mean lora\.r"):
        start_controller(sweep, project)

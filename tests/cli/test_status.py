"""`hpcft status` and `hpcft show`: the state in words, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from hpcft.runs.attempt import Holder
from hpcft.runs.events import encode
from hpcft.runs.files import write_json
from hpcft.runs.run import Run

Call = Callable[..., Any]


def test_the_exit_code_tells_a_script_whether_to_wait_to_go_on_or_to_look(
    hpcft: Call, make_run: Call, fake_slurm: Any
) -> None:
    make_run("done", done=True)
    make_run("going", job_id="1", status={"state": "training", "step": 3, "total_steps": 9, "loss": 0.5})
    make_run("bad", job_id="2", status={"state": "failed", "message": "no such file"})
    assert hpcft("status", "done").code == 0
    assert hpcft("status", "done", "going").code == 75
    result = hpcft("status", "done", "going", "bad")
    assert result.code == 1
    assert result.out.splitlines() == [
        "done: SUCCESS, finished",
        "going: STARTED, step 3/9, loss 0.5000, training",
        "bad: FAILURE, no such file",
    ]


def test_a_waiting_jobs_reason_is_shown(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine")
    fake_slurm.set_state(1, "PENDING", reason="Priority")
    result = hpcft("status", "mine", "--json")
    assert result.code == 75
    shown = json.loads(result.out)[0]
    assert (shown["state"], shown["queue_state"], shown["queue_reason"]) == ("PENDING", "PENDING", "Priority")


def test_r8_the_controllers_silence_is_no_failure(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    make_run("quiet", job_id="1", status={"state": "training", "step": 3, "total_steps": 9, "time": 1.0})
    fake_slurm.fault(controller="down", accounting="down")
    result = hpcft("status", "quiet")
    assert result.code == 75
    assert "UNKNOWN" in result.out
    assert "Unable to contact" in result.out


def test_a_group_is_all_of_its_runs_and_a_job_id_is_a_name(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    make_run("sweep/0000", done=True, job_id="40_0")
    make_run("sweep/0001", done=True, job_id="40_1")
    assert len(hpcft("status", "sweep").out.splitlines()) == 2
    assert hpcft("status", "40_1").out.startswith("sweep/0001:")
    assert hpcft("status", "0000").out.startswith("sweep/0000:")
    assert hpcft("status", "results").code == 2


def test_show_tells_how_each_attempt_went(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    paths = make_run("mine", job_id="1", steps=7, status={"state": "training", "step": 7, "total_steps": 14})
    shown = hpcft("show", "mine").out
    assert "steps 0 to 7, runs" in shown
    assert "2 steps/s, 3 s left" in shown
    data = json.loads(hpcft("show", "mine", "--json").out)
    assert data["attempts"] == [1]
    assert data["attempt_details"][0]["step"] == 7
    assert (data["steps_per_s"], data["tokens_per_s"], data["left_s"]) == (2.0, 200.0, 3.5)
    paths.done.write_text("{}")
    assert "ended without a word" in hpcft("show", "mine").out


def test_the_time_of_an_attempt_that_failed_while_it_loaded_counts_from_its_process_on(
    hpcft: Call, make_run: Call, fake_slurm: Any
) -> None:
    paths = make_run("mine", job_id="1", status={"state": "failed", "attempt": 1, "time": 140.0})
    paths.attempt(1).mkdir(parents=True, exist_ok=True)
    paths.events(1).write_bytes(encode({"seq": 0, "t": 140.0, "kind": "failed", "code": 78, "reason": "no"}))
    write_json(paths.holder(1), asdict(Holder("here", "boot", 7, 100.0, None)))
    assert "for 40 s, failed (no)" in hpcft("show", "mine").out


@pytest.mark.parametrize("verb", ["status", "show", "logs", "cancel", "requeue", "resume", "watch"])
def test_a_name_that_fits_no_run_is_told(hpcft: Call, make_run: Call, verb: str) -> None:
    make_run("mine")
    result = hpcft(verb, "nosuch")
    assert result.code == 2
    assert "no run called 'nosuch'" in result.err


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_whose_loss_is_no_number_is_followed_to_its_end(
    make_run: Call,
    fake_slurm: Any,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hpcft.cli import follow

    status = {"state": "training", "step": 3, "total_steps": 9, "loss": float("nan")}
    paths = make_run("mine", job_id="1", status=status)
    monkeypatch.setattr(follow.sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(follow.time, "sleep", lambda _: paths.done.write_text("{}"))
    assert follow.follow(Run(paths.root)).state == "SUCCESS"
    assert terminal or "step 3 of 9, loss nan" in capsys.readouterr().err


def test_figures_that_are_no_numbers_are_shown_as_words(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    paths = make_run("mine", done=True)
    figures = {
        "final/validation_loss": float("nan"),
        "base/validation_loss": float("inf"),
        "final/validation_bleu": 0.5,
        "base/validation_bleu": float("-inf"),
        "train/steps": 1200,
    }
    write_json(paths.metrics, figures)
    rows = dict(line.strip().split("  ", 1) for line in hpcft("show", "mine").out.splitlines() if "  " in line.strip())
    assert rows["validation loss"].strip() == "nan   before tuning inf"
    assert rows["BLEU"].strip() == "0.5000   before tuning -inf"
    assert rows["optimizer steps"].strip() == "1,200"

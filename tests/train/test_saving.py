"""Saving that fails, checkpoints that are damaged, losses that are no numbers, attempts that gain nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support.forked import ask_to_stop, at_micro_batch, at_the_end, kill, work
from support.worker import Worker

from hpcft.errors import HpcftError, NotAllowedError
from hpcft.runs.events import EventLog
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run, RunState

EACH_STEP: dict[str, dict[str, Any]] = {
    "training": {"save_minutes": 1e-6, "num_train_epochs": 1, "gradient_accumulation_steps": 2},
    "evaluation": {"enabled": False},
    "tracking": {"mode": "disabled"},
}
"""Six steps, with a checkpoint after each."""


@pytest.fixture(scope="module")
def jobs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tiny_model, tmp_path_factory.mktemp("runs"))


def make(jobs: Worker, name: str, variant: str = "lora", **changes: dict[str, Any]) -> Run:
    sections = EACH_STEP.keys() | changes.keys()
    return jobs.make(name, variant, **{s: EACH_STEP.get(s, {}) | changes.get(s, {}) for s in sections})


def log_of(run: Run) -> str:
    return run.paths.batch_log.read_text()[-4000:]


def no_file_above(size: int, from_batch: int) -> Callable[[int], None]:
    """From a micro-batch on, the system refuses each byte of a file beyond a size: a quota, as it were."""

    def refuse() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return at_micro_batch(from_batch, refuse)


def kept(run: Run) -> list[str]:
    return sorted(p.name for p in run.paths.checkpoints.iterdir())


def test_a_save_that_fails_is_a_warning_and_training_goes_on(jobs: Worker) -> None:
    run = make(jobs, "full-disk", "full")
    assert work(run, before=no_file_above(100_000, 5)) != 0  # the model cannot be kept at the end either
    failed = list(run.events("save_failed"))
    assert [e["step"] for e in failed] == [3, 4, 5]
    assert "File too large" in failed[0]["reason"]
    assert {e["left"] for e in failed} == {"checkpoint-2"}
    assert [e["step"] for e in run.events("step")] == [1, 2, 3, 4, 5, 6]
    assert kept(run) == ["checkpoint-1", "checkpoint-2"]
    assert "checkpoint-2 is the last good one" in run.paths.logs.read_text()
    # Space again: the run goes on from there.
    assert work(run) == 0, log_of(run)
    assert [e["resume_step"] for e in run.events("start")] == [0, 2]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_save_that_fails_at_a_stop_is_an_error_that_says_what_remains(jobs: Worker, ranks: int) -> None:
    run = make(jobs, f"full-at-stop-{ranks}", "full", resources={"accelerator": "cpu", "gpus_per_node": ranks})

    def before(rank: int) -> None:
        no_file_above(60_000, 3)(rank)
        at_micro_batch(3, ask_to_stop)(rank)

    assert work(run, ranks, before=before) == 77, log_of(run)
    assert run.state is RunState.FAILURE
    assert run.status is not None
    assert "stopped at step 2, which could not be saved: File too large" in run.status.message
    assert "checkpoint-1 is the last good one" in run.status.message
    assert kept(run) == ["checkpoint-1"]
    assert work(run, ranks) == 0, log_of(run)
    assert [e["resume_step"] for e in run.events("start")] == [0, 1]


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_named_and_the_last_good_checkpoint_stays(jobs: Worker, tmp_path: Path) -> None:
    run = make(jobs, "small-disk", "full", training=EACH_STEP["training"] | {"max_steps": 5, "num_train_epochs": None})
    run.paths.checkpoints.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(run.paths.checkpoints)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    # A mount cannot be removed when the run tidies up; a folder that is not empty stays.
    (run.paths.checkpoints / "mounted").touch()
    try:
        assert work(run) == 0, log_of(run)
        failed = list(run.events("save_failed"))
        assert failed
        assert all("no space left on the file system" in e["reason"] for e in failed)
        assert {e["left"] for e in failed} == {"checkpoint-2"}
    finally:
        subprocess.run(["umount", "-l", str(run.paths.checkpoints)], check=True)


def test_a_disk_without_room_for_the_last_words_is_told_by_the_exit_code(jobs: Worker) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise NotAllowedError("cannot write the log: no space left on the file system")

    def full() -> None:
        patch.object(EventLog, "append", no_room).start()

    assert work(make(jobs, "no-words"), before=at_micro_batch(2, full)) == 77


@pytest.mark.parametrize("name", ["optimizer.pt", "adapter_model.safetensors", "rng_state.pth", "manifest.json"])
def test_r4_a_damaged_checkpoint_is_named_and_the_newest_good_one_is_used(jobs: Worker, name: str) -> None:
    run = make(jobs, f"damaged-{name}")
    assert work(run, before=at_micro_batch(7, kill)) == 137
    assert kept(run) == ["checkpoint-2", "checkpoint-3"]
    file = run.paths.checkpoints / "checkpoint-3" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    assert work(run, before=at_micro_batch(3, kill)) == 137
    assert [e["resume_step"] for e in run.events("start")] == [0, 2]
    (event,) = run.events("damaged_checkpoint")
    assert (event["folder"], event["kept_as"]) == ("checkpoint-3", "damaged-checkpoint-3")
    assert name.partition(".")[0] in event["faults"][0]
    assert "checkpoint-3 is damaged and is not used" in run.paths.logs.read_text()


def test_a_best_checkpoint_that_is_damaged_does_not_become_the_model(jobs: Worker) -> None:
    from hpcft.train import finish
    from hpcft.train.checkpoint import folder_of

    run = make(
        jobs,
        "best",
        evaluation={"enabled": True, "max_new_tokens": 2},
        training=EACH_STEP["training"] | {"num_train_epochs": 2, "save_minutes": 10},
    )
    assert work(run) == 0, log_of(run)
    end = json.loads(run.paths.done.read_text())["step"]
    best = min(run.events("validation"), key=lambda e: e["metrics"]["validation/loss"])["step"]
    assert best == end, "the tiny model still learns"
    assert kept(run) == [f"checkpoint-{end}"]
    weights = folder_of(run.paths, best) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(HpcftError, match="no checkpoint of a validated step is left"):
        finish.keep_best(run.paths, best)


def test_without_space_for_any_validated_step_the_end_says_that_it_was_the_space(tmp_path: Path) -> None:
    from hpcft.train import finish

    paths = RunPaths(tmp_path / "full")
    paths.attempt(1).mkdir(parents=True)
    paths.config.touch()
    with EventLog(paths.events(1)) as events:
        events.append("validation", step=17, metrics={"validation/loss": 2.0})
        events.append("save_failed", step=17, reason="no space left on the file system", left="checkpoint-15")
    with pytest.raises(NotAllowedError, match="checkpoint-17 could not be saved: no space left") as caught:
        finish.keep_best(paths, 17)
    assert "goes on from checkpoint-15: hpcft resume full" in str(caught.value)


def spoil_loss(step_batch: int) -> Callable[[int], None]:
    """From a micro-batch on, the loss is NaN."""

    def before(_: int) -> None:
        from hpcft.train.trainer import FineTuner

        whole, count = FineTuner.compute_loss, 0

        def compute_loss(self: FineTuner, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            loss = whole(self, *args, **kwargs)
            return loss * float("nan") if count >= step_batch else loss

        FineTuner.compute_loss = compute_loss  # type: ignore[method-assign]

    return before


def test_a_loss_that_is_nan_stops_the_run_with_the_step_and_keeps_the_checkpoint_before(jobs: Worker) -> None:
    run = make(jobs, "nan")
    assert work(run, before=spoil_loss(5)) == 78
    assert run.state is RunState.FAILURE
    assert run.status is not None
    assert "the loss is NaN at step 3; checkpoint-2 is the last checkpoint" in run.status.message
    assert "training.learning_rate" in run.status.message
    assert kept(run) == ["checkpoint-1", "checkpoint-2"]
    assert [e["step"] for e in run.events("step")] == [1, 2, 3]


def test_a_nan_loss_can_be_asked_to_pass(jobs: Worker) -> None:
    run = make(jobs, "nan-passes", training=EACH_STEP["training"] | {"stop_on_nan": False})
    assert work(run, before=spoil_loss(5)) == 1  # the weights are NaN, and that is no model
    assert [e["step"] for e in run.events("step")] == [1, 2, 3, 4, 5, 6]


def test_attempts_of_a_job_that_gain_no_step_end_with_the_reason(jobs: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    run = make(jobs, "idle", resources={"accelerator": "cpu", "max_idle_attempts": 2})
    assert work(run, before=at_micro_batch(4, kill)) == 137
    for _ in range(2):
        assert work(run, before=at_micro_batch(1, kill)) == 137
    assert work(run) == 78
    assert run.status is not None
    assert "no step was gained in 2 attempts: each began at step 1" in run.status.message
    (event,) = run.events("failed")
    assert "no step was gained" in event["reason"]
    # Somebody asks for the run again, and looks.
    with EventLog(run.paths.client) as journal:
        journal.append("submitted", job_id="17")
    assert work(run) == 0, log_of(run)
    assert [e["resume_step"] for e in run.events("start")] == [0, 1, 1, 1]


def test_a_kill_while_the_results_are_written_loses_no_training(jobs: Worker) -> None:
    run = make(jobs, "killed-at-the-end")
    assert work(run, before=at_the_end(kill)) == 137
    assert kept(run) == ["checkpoint-4", "checkpoint-5"]
    assert work(run) == 0, log_of(run)
    assert [e["resume_step"] for e in run.events("start")] == [0, 5]
    assert not run.paths.checkpoints.exists()


def test_attempts_that_somebody_started_by_hand_are_not_counted(jobs: Worker) -> None:
    run = make(jobs, "by-hand", resources={"accelerator": "cpu", "max_idle_attempts": 1})
    for _ in range(2):
        assert work(run, before=at_micro_batch(1, kill)) == 137
    assert work(run) == 0, log_of(run)


def test_the_time_limit_is_kept_without_a_signal(jobs: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000000000")
    run = make(jobs, "late", training=EACH_STEP["training"] | {"save_minutes": 10})
    for step in range(1, 4):
        assert work(run) == 75, log_of(run)
        assert [e["step"] for e in run.events("checkpoint")][-1] == step
    assert {e["reason"] for e in run.events("stopped")} == {"time limit"}
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert work(run) == 0, log_of(run)
    assert [e["step"] for e in run.events("step")] == [1, 2, 3, 4, 5, 6]


def test_a_stale_attempt_that_wakes_up_ends_without_a_word_in_the_record(jobs: Worker) -> None:
    run = make(jobs, "stale")

    def newer() -> None:
        run.paths.attempt(2).mkdir(parents=True)

    assert work(run, before=at_micro_batch(4, newer)) == 78
    assert "attempt 1 is not the newest any more" in log_of(run)
    assert run.status is not None
    assert run.status.state != "failed"
    assert kept(run) == ["checkpoint-1"] or kept(run) == [".saving-1", "checkpoint-1"]
    assert not run.paths.done.exists()

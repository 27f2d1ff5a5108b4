"""The tracker with the real wandb client, offline or against a fake server on this machine."""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fakes.wandb_server import FakeWandb
from tracking.job import figures
from tracking.played import Played, end_job, start_job

from hpcft.tracking.offline import find_offline_runs, read_offline
from hpcft.tracking.wandb import Tracker

LOG = logging.getLogger("test")


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """One online job, with a server that works."""
    root, server = tmp_path_factory.mktemp("online"), FakeWandb()
    yield end_job(root, server, start_job(root, server.url, "online"))
    server.close()


def test_e4_e6_e9_e15_e18_an_online_run_arrives_whole(online: Played) -> None:
    (run,) = online.server.runs.values()
    assert online.report["mode"] == "online"
    assert run.fields["displayName"] == "QLoRA_pairs_run_r7"
    assert (run.fields["jobType"], run.fields["project"]) == ("training", "project")
    assert (run.fields["tags"], run.fields["notes"]) == (["night"], "a note")
    assert run.config["model_variant"]["value"] == "QLoRA"
    assert run.points() == [{**figures(step), "step": step} for step in range(1, 41)]
    assert run.summary["final/validation_f1_score"] == 0.5
    assert run.exit_code == 0


def test_e16_te7_te12_the_model_is_an_artifact_with_plain_metadata(online: Played) -> None:
    (artifact,) = online.server.artifacts
    assert (artifact.name, artifact.type, artifact.committed) == ("model-lora-ptq", "model", True)
    assert artifact.metadata == {"model_variant": "LoRA+PTQ"}
    assert artifact.files["adapter_model.safetensors"] == b"weights" * 100
    assert artifact.files["tokenizer/vocab.json"] == b"{}"


def test_no_second_copy_of_the_model_is_made(online: Played) -> None:
    copies = [p for p in online.files() if p.is_file() and b"weightsweights" in p.read_bytes()]
    assert copies == []


def test_te7_a_requeued_job_goes_on_with_the_same_run(play: Callable[..., Played], server: FakeWandb) -> None:
    play(points=30, exit_code=75, model=None)
    second = play(first=21, points=20)
    assert list(server.runs) == ["r7"]
    run = server.runs["r7"]
    assert server.requests.count(("POST", "RunResumeStatus")) == 2
    assert [p["step"] for p in run.points()] == [*range(1, 31), *range(21, 41)]
    assert run.exit_code == 0
    # Two files, one an attempt, and one curve in them.
    assert [p["step"] for p in second.recorded().history] == list(range(1, 41))


def test_the_trial_of_a_wandb_agent_keeps_the_id_and_the_project_that_the_agent_gave_it(
    play: Callable[..., Played], server: FakeWandb, tmp_path: Path
) -> None:
    chosen = tmp_path / "config-trial1.yaml"
    chosen.write_text("wandb_version: 1\ntraining.learning_rate:\n  value: 0.001\n")
    agent = {"WANDB_SWEEP_ID": "s1", "WANDB_SWEEP_PARAM_PATH": str(chosen)}
    agent |= {"WANDB_RUN_ID": "trial1", "WANDB_PROJECT": "sweeps", "WANDB_ENTITY": "lab"}
    played = play(variables=agent, model=None)
    assert (played.report["mode"], played.report["error"]) == ("online", None)
    run = server.runs["trial1"]
    assert (run.fields["project"], run.fields["sweep"]) == ("sweeps", "s1")
    assert run.config["training.learning_rate"]["value"] == 0.001
    assert len(run.points()) == 40


def test_a_requeued_job_offline_is_one_run_as_well(play: Callable[..., Played]) -> None:
    play("offline", points=30, exit_code=75)
    time.sleep(1.0)  # wandb names its folders by the second
    recorded = play("offline", first=21, points=20).recorded()
    assert recorded.run_id == "r7"
    assert recorded.history == [{**figures(step), "step": step} for step in range(1, 41)]
    assert recorded.exit_code == 0


def test_offline_everything_that_was_logged_is_in_the_file(play: Callable[..., Played], server: FakeWandb) -> None:
    played = play("offline")
    recorded = played.recorded()
    assert recorded.history == [{**figures(step), "step": step} for step in range(1, 41)]
    assert (recorded.run_id, recorded.project, recorded.job_type) == ("r7", "project", "training")
    assert recorded.name == "QLoRA_pairs_run_r7"
    assert recorded.config == {"model_variant": "QLoRA", "training.max_steps": 40}
    assert recorded.summary["final/validation_f1_score"] == 0.5
    (artifact,) = recorded.artifacts
    assert (artifact.name, artifact.metadata) == ("model-lora-ptq", {"model_variant": "LoRA+PTQ"})
    assert artifact.files == {"adapter_model.safetensors": 700, "tokenizer/vocab.json": 2}
    assert (recorded.exit_code, recorded.torn) == (0, None)
    assert Path(played.report["folder"]).parent == played.root / "wandb"
    assert {p.name for p in played.root.iterdir()} == {"final_model", "home", "wandb"}
    assert list((played.root / "home").rglob("*")) == []
    assert server.requests == []
    assert played.leaks() == played.exposed() == []


def test_sigkill_loses_at_most_the_last_seconds_points_offline(tmp_path: Path, server: FakeWandb) -> None:
    job = start_job(tmp_path, server.url, "offline", points=10_000, pause=0.02)
    assert job.stdout is not None
    begin, times = 0.0, {}
    while not begin or time.monotonic() - begin < 3.0:
        line = job.stdout.readline().strip()
        if line.isdecimal():
            begin = begin or time.monotonic()
            times[int(line)] = time.monotonic()
    children = psutil.Process(job.pid).children()
    job.kill()
    killed = time.monotonic()
    job.communicate()
    ((path,),) = find_offline_runs(tmp_path).values()
    recorded = read_offline(path)
    steps = [p["step"] for p in recorded.history]
    assert steps == list(range(1, len(steps) + 1))
    assert killed - times[steps[-1]] <= 1.5
    assert recorded.exit_code is None
    # Nothing of wandb goes on after the job.
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_g15_a_call_takes_microseconds(play: Callable[..., Played]) -> None:
    percentiles = statistics.quantiles(play("offline", points=3000, pause=0).result["us"], n=100)
    assert percentiles[49] <= 20
    assert percentiles[98] <= 200


def test_g15_while_wandb_hangs_a_call_takes_as_long_and_what_it_cannot_take_is_counted_and_told_once(
    play: Callable[..., Played],
) -> None:
    played = play("offline", points=25_000, pause=0, freeze=True, timeout_s=5.0)
    percentiles = statistics.quantiles(played.result["us"], n=100)
    assert percentiles[49] <= 20
    assert percentiles[98] <= 200
    assert played.report["dropped"] > 10_000
    assert played.report["sent"] + played.report["dropped"] == 25_002
    assert played.said.count("points are left out") == 1
    assert "was cut off" in played.report["error"]
    assert played.over - (played.result["end"] - played.result["finish_s"]) <= 5.5
    assert "Traceback" not in played.said


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment that a tracker may change."""
    copy = dict(os.environ)
    monkeypatch.setattr(os, "environ", copy)
    return copy


def test_disabled_makes_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    before = dict(environment)
    tracker = Tracker(tmp_path / "wandb", "disabled", {}, LOG)
    tracker.log({"train/loss": 1.0}, 1)
    report = tracker.finish()
    assert (report.mode, report.error, report.dropped) == ("disabled", None, 0)
    assert list(tmp_path.iterdir()) == []
    assert environment == before


def test_without_wandb_training_goes_on(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = Tracker(tmp_path / "wandb", "online", {}, LOG)
    tracker.log({"train/loss": 1.0}, 1)
    report = tracker.finish()
    assert report.error is not None
    assert "wandb cannot be used" in report.error
    assert (report.sent, report.dropped, report.finished) == (0, 1, False)


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "wandb").write_text("a file in the way")
    report = Tracker(tmp_path / "wandb", "offline", {}, LOG).finish()
    assert report.error is not None
    assert "FileExistsError" in report.error


def test_what_the_user_has_set_for_wandb_does_not_override_the_job(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    stray = {"WANDB_MODE": "disabled", "WANDB_X_SKIP_TRANSACTION_LOG": "true", "WANDB_SERVICE": "3-1-unix-/x"}
    kept = {"WANDB_RUN_ID": "trial", "WANDB_SWEEP_ID": "s1", "WANDB_BASE_URL": "http://127.0.0.1:1"}
    environment |= stray | kept | {"WANDB_DIR": "/elsewhere"}
    with caplog.at_level(logging.INFO):
        Tracker(tmp_path / "wandb", "offline", {}, LOG).finish()
    assert not stray.keys() & environment.keys()
    assert kept.items() <= environment.items()
    assert environment["WANDB_DIR"] == str(tmp_path)
    assert environment["WANDB_CACHE_DIR"] == str(tmp_path / "wandb" / "cache")
    assert "WANDB_DIR, WANDB_MODE, WANDB_SERVICE, WANDB_X_SKIP_TRANSACTION_LOG" in caplog.text


def test_what_is_logged_is_what_stood_there_at_the_call(tmp_path: Path, server: FakeWandb) -> None:
    script = """
import logging, sys
from pathlib import Path
from hpcft.tracking.wandb import Tracker
tracker = Tracker(Path(sys.argv[1]), "offline", {"project": "p", "id": "r1"}, logging.getLogger())
point, values = {"train/loss": 1.0}, {"final/x": 1.0}
tracker.log(point, 1); point["train/loss"] = 2.0
tracker.summary(values); values["final/x"] = 2.0
print(tracker.finish().error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "wandb")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"
    ((path,),) = find_offline_runs(tmp_path).values()
    assert read_offline(path).history == [{"train/loss": 1.0, "step": 1}]
    assert read_offline(path).summary["final/x"] == 1.0


def test_importing_tracking_loads_nothing_heavy() -> None:
    heavy = ["wandb", "torch", "transformers", "datasets", "matplotlib"]
    modules = ["wandb", "offline", "names", "credentials", "dashboard"]
    names = ", ".join(f"hpcft.tracking.{module}" for module in modules)
    script = f"import sys, {names}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

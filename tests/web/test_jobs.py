"""Jobs over HTTP: submitted, steered, watched; their data; their comparison."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.failed_runs import FailedRun, said
from support.steering import STOPPED, TRAINING, Call, begin, noted

from hpcft.data.care.versions import record
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.web import submission

V1 = "/api/v1"
CONFIG = {
    "name": "by_rest",
    "preset": "quickstart",
    "model": {"name": "quickstart"},
    "training": {"max_steps": 2},
    "evaluation": {"enabled": False},
    "resources": {"accelerator": "cpu", "cpus_per_task": 2, "time": "01:30:00"},
}


def told(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


# Submitting


def test_a_preview_shows_script_and_needs_and_whether_it_fits_and_makes_nothing(
    client: TestClient, project: Path, small_quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    found = told(client.post(f"{V1}/jobs", json={"config": CONFIG, "preview": True}), 202)
    assert "hpcft.worker" in found["script"]
    assert found["asks"]["time"] == "01:30:00"
    assert found["directory"] == str(project / "results" / "by_rest")
    assert found["fit"]["verdict"] == "fits", found["fit"]
    assert found["fit"]["per_rank"]["low_gb"] > 0
    assert found["cost"] == {"gpu_hours": 0, "cpu_hours": 3}
    assert not (project / "results").exists()


def test_a_preview_whose_fit_cannot_be_told_is_no_error(
    project: Path, small_quickstart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> None:
        raise OSError("no shapes\nin that file")

    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    monkeypatch.setattr("hpcft.cli.fit.answer", broken)
    config = submission.flat(CONFIG | {"resources": {"gpus_per_node": 4, "nodes": 2, "time": "30"}})
    found = submission._submit(config, str(project / "results"), "slurm", True)
    assert found["fit"] == {"verdict": "unknown", "why": "no shapes"}
    assert found["cost"] == {"gpu_hours": 4, "cpu_hours": None}


def test_a_job_is_refused_as_a_task_is(client: TestClient) -> None:
    found = told(client.post(f"{V1}/jobs", json={"config": {"lora": {"rank": 4}}}), 422)
    assert found["error"] == "INVALID_CONFIG"


# Steering


def test_a_job_is_cancelled_and_what_is_over_is_left_alone(
    client: TestClient, submit: Call, make_run: Call, fake_slurm: Any
) -> None:
    paths = submit("group/mine")
    assert told(client.post(f"{V1}/jobs/group/mine/cancel")) == {"done": True, "words": "cancelled job 1"}
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")
    assert noted(paths) == ["submitted", "cancelled"]
    make_run("old", job_id="7", done=True)
    assert told(client.post(f"{V1}/jobs/old/cancel")) == {"done": False, "words": "left alone: finished"}


def test_a_job_is_queued_again_saving_first_or_at_once(client: TestClient, submit: Call, fake_slurm: Any) -> None:
    begin(submit(), fake_slurm)
    found = told(client.post(f"{V1}/jobs/mine/requeue"))
    assert (found["done"], "saves and is queued again" in found["words"]) == (True, True)
    assert fake_slurm.calls("scancel") == [["--signal=USR2", "1"]]
    found = told(client.post(f"{V1}/jobs/mine/requeue", json={"now": True}))
    assert "from its newest checkpoint" in found["words"]
    found = told(client.post(f"{V1}/jobs/mine/requeue"), 422)
    assert (found["error"], "in the queue already" in found["message"]) == ("INVALID_REQUEST", True)


def test_a_stopped_run_goes_on_with_other_resources_and_with_nothing_else_changed(
    client: TestClient, submit: Call, fake_slurm: Any
) -> None:
    paths = submit()
    paths.attempt(1).mkdir(parents=True)
    begin(paths, fake_slurm, **STOPPED)
    fake_slurm.set_state(1, "TIMEOUT")
    found = told(client.post(f"{V1}/jobs/mine/resume", json={"set": {"training.learning_rate": 1}}), 422)
    assert (found["error"], "only resources" in found["message"]) == ("INVALID_CONFIG", True)
    assert fake_slurm.submissions == 1
    found = told(client.post(f"{V1}/jobs/mine/resume", json={"set": {"resources.time": "08:00:00"}}))
    assert (found["done"], found["job_id"]) == (True, "2")
    assert fake_slurm.job(2)["time"] == "08:00:00"
    assert told(client.post(f"{V1}/jobs/mine/resume"), 422)["message"].startswith("mine is waiting")


@pytest.mark.parametrize("verb", ["cancel", "requeue"])
def test_a_controller_that_does_not_answer_is_503_and_nothing_is_done(
    client: TestClient, submit: Call, fake_slurm: Any, verb: str
) -> None:
    paths = submit()
    fake_slurm.fault(controller="down", accounting="down")
    found = told(client.post(f"{V1}/jobs/mine/{verb}"), 503)
    assert found["error"] == "UNAVAILABLE"
    assert noted(paths) == ["submitted"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "cancel"),
        ("POST", "requeue"),
        ("POST", "resume"),
        ("GET", "explain"),
        ("GET", "logs"),
        ("GET", "stream"),
    ],
)
def test_an_unknown_job_is_404(client: TestClient, method: str, path: str) -> None:
    found = told(client.request(method, f"{V1}/jobs/nobody/{path}"), 404)
    assert found["error"] == "EXPERIMENT_NOT_FOUND"


def test_tags_and_notes_are_changed(client: TestClient, make_run: Call) -> None:
    make_run("group/mine", job_id="1", done=True)
    at = f"{V1}/experiments/group/mine"
    told(client.patch(at, json={"add_tags": ["paper", "draft"], "notes": "table 2\nsecond row"}))
    found = told(client.patch(at, json={"remove_tags": ["draft"]}))
    assert found == {"id": "group/mine", "tags": ["paper"], "notes": "table 2\nsecond row"}
    assert [row["id"] for row in told(client.get("/experiments?tag=paper"))] == ["group/mine"]
    assert told(client.patch(at, json={"notes": ""}))["notes"] == ""
    found = told(client.patch(at, json={"add_tags": ["two\nlines"]}), 422)
    assert "is no tag" in found["message"]


# Watching


def test_a_job_s_state_is_told_with_its_attempts_and_its_place_in_the_queue(
    client: TestClient, submit: Call, make_run: Call, fake_slurm: Any
) -> None:
    submit("waits")
    found = told(client.get(f"{V1}/jobs/waits"))
    assert (found["state"], found["queue_state"], found["attempts"]) == ("PENDING", "PENDING", [])
    make_run("goes", job_id="9", steps=4, status=TRAINING)
    found = told(client.get(f"{V1}/jobs/goes"))
    assert (found["state"], found["step"], found["total_steps"]) == ("STARTED", 3, 9)
    assert found["steps_per_s"] == pytest.approx(2)
    assert found["attempt_details"][0]["step"] == 4
    run_id = found["run_id"]
    assert told(client.get(f"{V1}/jobs/{run_id}"))["name"] == "goes"


def test_a_run_whose_name_is_a_word_of_a_route_is_asked_for_by_its_id(client: TestClient, make_run: Call) -> None:
    make_run("group/logs", run_id="k3f9x2m1qa", job_id="1", done=True)
    assert told(client.get(f"{V1}/jobs/k3f9x2m1qa"))["name"] == "group/logs"
    assert told(client.get(f"{V1}/jobs/group/logs/explain"))["verdict"] == "finished"


def test_the_end_of_a_log_is_told_of_the_job_a_rank_or_an_attempt(client: TestClient, make_run: Call) -> None:
    paths = make_run("mine", job_id="1", done=True)
    paths.batch_log.write_text("".join(f"line {i}\n" for i in range(500)) + "bar 1\rbar 2\n\x1b[31m<b>\n")
    for attempt in (1, 2):
        paths.attempt(attempt).mkdir(parents=True)
        paths.rank_log(attempt, 0).write_text(f"attempt {attempt}\n")
    at = f"{V1}/jobs/mine/logs"
    assert told(client.get(f"{at}?lines=3")) == {"lines": ["line 499", "bar 2", "?[31m<b>"], "left_out": True}
    assert len(told(client.get(at))["lines"]) == 100
    assert told(client.get(f"{at}?rank=0"))["lines"] == ["attempt 2"]
    assert told(client.get(f"{at}?attempt=1"))["lines"] == ["attempt 1"]
    for wrong in ("rank=7", "attempt=9"):
        found = told(client.get(f"{at}?{wrong}"), 422)
        assert (found["error"], found["where"]) == ("INVALID_REQUEST", wrong.partition("=")[0])
        assert found["hint"]


def test_a_log_that_is_a_link_out_of_its_run_is_not_shown(client: TestClient, make_run: Call, project: Path) -> None:
    paths = make_run("mine", job_id="1", done=True)
    (project / "secret").write_text("TOPSECRET\n")
    paths.batch_log.symlink_to(project / "secret")
    assert told(client.get(f"{V1}/jobs/mine/logs")) == {"lines": [], "left_out": False}


@pytest.mark.parametrize(
    ("words", "code", "verdict"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "OUT_OF_MEMORY", "gpu_oom"),
        ("slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-21T07:31:06 DUE TO TIME LIMIT ***", "TIMEOUT",
         "time_limit"),
        ("", "TRAINING_ERROR", "unknown"),
    ],
)  # fmt: skip
def test_c13_a_failed_task_has_a_code_and_its_verdict(
    client: TestClient, project: Path, words: str, code: str, verdict: str
) -> None:
    failed = FailedRun(project / "results" / "bad").log(words)
    failed.events({"kind": "start", "attempt": 1}).status("failed", message="it failed", time=time.time() - 600)
    failed.rank_log(0, said("ERROR", words) if words else "")
    found = told(client.get("/task/bad"))
    assert (found["status"], found["code"]) == ("FAILURE", code), found
    found = told(client.get(f"{V1}/jobs/bad/explain"))
    assert (found["run"], found["verdict"]) == ("bad", verdict)


# Data


def test_versions_of_data_and_a_run_s_report(client: TestClient, make_run: Call, project: Path) -> None:
    assert told(client.get(f"{V1}/data")) == []
    report = {"sha256": "ab" * 32, "total_samples": 3, "dataset": "pairs", "recommendations": []}
    version, _ = record(project / "results", report, {"dataset": "pairs.csv"})
    [found] = told(client.get(f"{V1}/data"))
    assert (found["dataset"], found["version"], found["num_samples"]) == ("pairs", version.version, 3)
    for name in (version.version, version.version[:6], version.name):
        assert told(client.get(f"{V1}/data/pairs/{name}"))["report"] == report
    for missing in ("pairs/0000", "others/abab"):
        assert told(client.get(f"{V1}/data/{missing}"), 404)["error"] == "NOT_FOUND"
    paths: RunPaths = make_run("mine", job_id="1", done=True)
    assert told(client.get(f"{V1}/experiments/mine/data")) == []
    write_json(paths.data_report, [report])
    assert told(client.get(f"{V1}/experiments/mine/data")) == [report]


# Comparing


def test_runs_are_compared_by_several_measures_as_the_command_does(
    client: TestClient, make_run: Call, hpcft: Call
) -> None:
    for name, f1, latency in (("slow", 0.9, 9.0), ("quick", 0.7, 3.0), ("bad", 0.6, 8.0)):
        paths = make_run(name, job_id="1", done=True)
        write_json(paths.metrics, {"final/validation_f1_score": f1, "inference/avg_latency_ms_per_sample": latency})
    found = told(client.get(f"{V1}/pareto?mix_hardware=true"))
    assert found == json.loads(hpcft("pareto", "--mix-hardware", "--json").out)
    assert {point["name"]: point["front"] for point in found["points"]} == {"slow": True, "quick": True, "bad": False}
    found = told(client.get(f"{V1}/pareto?reference=f1"), 422)
    assert (found["error"], found["where"]) == ("INVALID_REQUEST", "reference")
    found = told(client.get(f"{V1}/pareto?run=slow&run=bad&baseline=bad"))
    assert [point["name"] for point in found["points"]] == ["slow", "bad"]
    assert found["baseline"] == "bad"
    assert told(client.get(f"{V1}/pareto?run=nobody"), 404)["error"] == "EXPERIMENT_NOT_FOUND"
    assert told(client.get(f"{V1}/pareto?baseline=nobody"), 422)["where"] == "baseline"

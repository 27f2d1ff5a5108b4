"""The REST service: tasks, experiments, statistics, errors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.web import experiments
from hpcft.web.submission import flat

Make = Callable[..., RunPaths]
DAY = 86400.0
KEYS = {
    *("id", "name", "created_at", "config_path", "train_runtime", "eval_accuracy", "log_path", "tokens_per_sec"),
    *("cpu_percent", "memory_gb", "model_name", "dataset_name", "train_samples", "batch_size", "learning_rate"),
    "num_epochs",
}


@pytest.fixture
def runs(made: Make) -> None:
    now = time.time()
    figures = {"train/steps": 12, "train/throughput_tokens_per_sec": 100.0, "system/cpu_percent": 90.0}
    for i, (accuracy, runtime) in enumerate([(0.6, 30.0), (0.9, 10.0), (0.75, 20.0)]):
        about = {"training": {"learning_rate": 0.01 * (i + 1)}}
        more = {"final/validation_accuracy": accuracy, "train/runtime_s": runtime, "system/memory_gb": 1.5}
        made(f"run{i}", now - (3 - i) * DAY, figures | more, **about)
    failed = made("failed", now - 7200, variant="full", model={"name": "org/Big"})
    write_json(failed.status, {"state": "failed", "attempt": 1, "message": "no such file", "time": now - 7000})


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()]


def test_c30_experiments_have_the_known_columns_and_failed_ones_too(client: TestClient, runs: None) -> None:
    rows = client.get("/experiments").json()
    assert [row["id"] for row in rows] == ["failed", "run2", "run1", "run0"]
    assert set(rows[0]) >= KEYS
    best = rows[2]
    assert (best["eval_accuracy"], best["train_runtime"], best["learning_rate"]) == (0.9, 10.0, 0.02)
    # A setting that the job does not say has its default.
    assert (best["batch_size"], best["train_samples"]) == (4, 500)
    assert best["created_at"].endswith("Z")
    assert rows[0]["eval_accuracy"] is None
    assert client.get("/api/v1/experiments").json() == rows


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("min_accuracy=0.7", ["run2", "run1"]),
        ("max_accuracy=0.8", ["run2", "run0"]),
        ("max_runtime=20", ["run2", "run1"]),
        ("name=RUN", ["run2", "run1", "run0"]),
        ("model=big", ["failed"]),
        ("dataset=pairs&variant=lora", ["run2", "run1", "run0"]),
        ("state=success&limit=1", ["run2"]),
        ("start_date=50h", ["failed", "run2", "run1"]),
        ("end_date=50h", ["run0"]),
        ("sort_by=eval_accuracy", ["run1", "run2", "run0", "failed"]),
        ("sort_by=train_runtime&desc=false", ["run1", "run2", "run0", "failed"]),
        ("sort_by=name&desc=false", ["failed", "run0", "run1", "run2"]),
        ("limit=2&offset=1", ["run2", "run1"]),
        ("where=training.learning_rate>0.015&where=accuracy<0.8", ["run2"]),
    ],
)
def test_c31_tc8_filters_and_orders(client: TestClient, runs: None, query: str, expected: list[str]) -> None:
    assert ids(client.get(f"/experiments?{query}")) == expected


@pytest.mark.parametrize(
    "query",
    ["sort_by=luck", "limit=0", "limit=1001", "min_accuracy=2", "max_runtime=0", "where=nonsense", "state=gone",
     "start_date=soon", "unknown=1", "offset=-1"],
)  # fmt: skip
def test_c31_what_means_nothing_is_422_with_its_place(client: TestClient, runs: None, query: str) -> None:
    answer = client.get(f"/experiments?{query}")
    assert answer.status_code == 422
    told = answer.json()
    assert told["error"] == "INVALID_REQUEST"
    assert told["message"]
    assert told["where"]


def test_c30_one_experiment_by_name_or_id_with_all_that_is_known(client: TestClient, runs: None, made: Make) -> None:
    made("sweep/0001", time.time(), {"train/final_loss": 1.5})
    for key in ("run1", "idrun1"):
        told = client.get(f"/experiments/{key}").json()
        assert told["id"] == "run1"
        assert told["config"]["training"]["learning_rate"] == 0.02
        assert told["metrics"]["final/validation_accuracy"] == 0.9
    assert client.get("/experiments/sweep/0001").json()["metrics"] == {"train/final_loss": 1.5}


def test_c30_an_unknown_one_is_404_in_the_reader_s_language(client: TestClient, runs: None) -> None:
    for language, words in (("", "no such experiment"), ("zh-TW,zh;q=0.9", "實驗不存在"), ("zh-CN", "实验不存在")):
        for path in ("/experiments/nobody", "/task/nobody"):
            answer = client.get(path, headers={"accept-language": language})
            assert answer.status_code == 404
            assert answer.json() == {"error": "EXPERIMENT_NOT_FOUND", "message": words}


def test_c30_statistics(client: TestClient, runs: None) -> None:
    told = client.get("/experiments/stats").json()
    assert told["total_experiments"] == 4
    assert told["avg_runtime"] == pytest.approx(20)
    assert (told["best_accuracy"], told["min_runtime"]) == (0.9, 10)
    assert told["avg_accuracy"] == pytest.approx(0.75)
    assert (told["avg_tokens_per_sec"], told["avg_cpu_percent"], told["avg_memory_gb"]) == (100, 90, 1.5)
    assert client.get("/experiments/stats?min_accuracy=0.7").json()["total_experiments"] == 2


def test_tc8_statistics_of_nothing_are_told(client: TestClient) -> None:
    answer = client.get("/experiments/stats")
    assert answer.status_code == 200
    told = answer.json()
    assert told["total_experiments"] == 0
    assert told["avg_runtime"] is told["best_accuracy"] is None
    assert client.get("/experiments").json() == []


def test_c13_a_task_s_states(client: TestClient, runs: None, made: Make) -> None:
    done = client.get("/task/idrun1").json()
    assert done["status"] == "SUCCESS"
    assert done["result"] == {
        "status": "success",
        "train": {"global_step": 12, "runtime": 10.0},
        "eval": {"accuracy": 0.9},
    }
    failed = client.get("/task/idfailed").json()
    assert (failed["status"], failed["error"]) == ("FAILURE", "no such file")
    going = made("going", time.time())
    assert client.get("/task/idgoing").json()["status"] == "PENDING"
    write_json(going.status, {"state": "training", "attempt": 1, "step": 3, "total_steps": 9, "time": time.time()})
    assert client.get("/task/idgoing").json()["status"] == "STARTED"


def test_c15_a_task_that_finishes_while_it_is_asked_for_has_its_result(
    client: TestClient, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = made("quick", time.time())
    look = experiments.read_record

    def finish_first(root: Path) -> Any:
        if not paths.done.exists():
            write_json(paths.metrics, {"train/steps": 5, "train/runtime_s": 2.0})
            write_json(paths.done, {})
        return look(root)

    monkeypatch.setattr(experiments, "read_record", finish_first)
    told = client.get("/task/idquick").json()
    assert (told["status"], told["result"]["train"]) == ("SUCCESS", {"global_step": 5, "runtime": 2.0})


# Submitting.

CONFIG = {
    "experiment_name": "by_rest",
    "preset": "quickstart",
    "model": {"name": "quickstart"},
    "training": {"max_steps": 2, "output_dir": "./elsewhere", "device": "cpu"},
    "evaluation": {"enabled": False},
    "lora": {"r": 2, "bias": "none"},
}


@pytest.fixture
def quick(small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))


def test_c11_c12_c14_c15_c16_a_request_with_the_whole_configuration_becomes_a_run_and_its_result(
    client: TestClient, project: Path, quick: None
) -> None:
    answer = client.post("/train", json={"config": CONFIG})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert told["run"] == "by_rest"
    # Nothing is left of the request but the run's own configuration.
    assert sorted(p.name for p in project.iterdir()) == ["results"]
    seen = set()
    deadline = time.monotonic() + 240
    while True:
        task = client.get(f"/task/{told['task_id']}").json()
        seen.add(task["status"])
        if task["status"] in ("SUCCESS", "FAILURE") or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert task["status"] == "SUCCESS", task
    assert seen <= {"PENDING", "STARTED", "SUCCESS"}
    assert task["result"]["train"]["global_step"] == 2
    found = client.get("/experiments/by_rest").json()
    assert (found["state"], found["config"]["lora"]["r"]) == ("SUCCESS", 2)
    assert found["run_id"] == told["task_id"]


def test_c16_a_preview_shows_the_script_and_makes_nothing(client: TestClient, project: Path, quick: None) -> None:
    answer = client.post("/train", json={"config": CONFIG, "preview": True})
    assert answer.status_code == 202, answer.text
    assert "hpcft.worker" in json.dumps(answer.json())
    assert not (project / "results" / "by_rest").exists()


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"lora": {"rank": 4}}, "INVALID_CONFIG", "lora.r"),
        ({"training": {"learning_rate": "fast"}}, "INVALID_CONFIG", "learning_rate"),
        ({"experiment_name": "a;rm -rf /"}, "INVALID_CONFIG", "name"),
        ({"experiment_name": "a", "name": "b"}, "INVALID_REQUEST", "two values"),
        ({"preset": "nothing"}, "INVALID_CONFIG", "quickstart"),
        ({"preset": 7}, "INVALID_CONFIG", "preset"),
        (
            {"data": {"dataset": "/no/such.csv"}, "model": {"name": "quickstart"}},
            "DATA_INTEGRITY_ERROR",
            "no such file",
        ),
        ({"variant": "ptq", "preset": "quickstart"}, "INVALID_CONFIG", "pipeline"),
    ],
)
def test_a_wrong_configuration_is_refused_with_what_where_and_what_next(
    client: TestClient, project: Path, quick: None, config: dict[str, Any], code: str, said: str
) -> None:
    answer = client.post("/train", json={"config": config})
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert told["error"] == code, told
    assert said in json.dumps(told), told
    assert not list(project.glob("results/*"))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"config": 3}', b'{"config": {}, "more": 1}', b'{"config": {"a": {}}']
)
def test_a_body_that_is_no_request_is_422(client: TestClient, body: bytes) -> None:
    answer = client.post("/train", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"] == "INVALID_REQUEST"


def test_a_restart_forgets_nothing(project: Path, runs: None, client: TestClient) -> None:
    from hpcft.web.app import create_app
    from hpcft.web.guard import Access
    from hpcft.web.settings import Settings

    before = client.get("/task/idrun1").json()
    again = TestClient(create_app(Settings(project / "results"), Access()), base_url="http://localhost")
    assert again.get("/task/idrun1").json() == before


def test_names_of_earlier_programs_are_keys_of_today() -> None:
    rules = {"min_text_length": 5, "max_text_length": 500, "allow_empty": False, "remove_html": True}
    given = {"data": {"dataset_name": "glue", "dataset_config": "sst2", "validation_rules": rules}}
    assert flat(given) == {
        "data.dataset": "glue",
        "data.subset": "sst2",
        "checks.min_text_length": 5,
        "checks.max_text_length": 500,
        "checks.allow_empty": False,
        "checks.remove_html": True,
    }


def test_the_service_s_process_loads_nothing_of_models() -> None:
    program = (
        "import sys; import hpcft.web.app, hpcft.web.door, hpcft.cli.serve; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'wandb', 'matplotlib', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Hostile texts in every field of the API: refused, or harmless; never a server error."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from support.failed_runs import FailedRun
from support.hostile import EXAMPLES, PIECES, few, harmless, hostile
from support.steering import STOPPED, Call, begin

from hpcft.errors import HpcftError
from hpcft.runs.files import write_json
from hpcft.spec.keys import fields
from hpcft.web import submission

V1 = "/api/v1"
JSON = {"content-type": "application/json"}
PLAIN: dict[str, Any] = {"model.name": "org/tiny", "data.dataset": "none.csv"}
many = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))


def rendered(config: dict[str, Any], results: Path) -> str:
    flat = submission.flat(config)
    return str(submission._submit(flat, str(results), "local", True)["script"])


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews without a look at the model and the data, which refuses nearly all before a script is made."""
    monkeypatch.setattr("hpcft.cli.launch.check", lambda _: None)
    monkeypatch.setattr(submission, "_fit", lambda _: {})


@pytest.mark.parametrize("how", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "10000"])
def test_s1_no_text_in_a_configuration_runs_or_adds_a_directive(
    project: Path, stage: Path, unchecked: None, how: Any
) -> None:
    plain, reached = rendered(PLAIN, project / "results"), set()

    @how
    @given(st.sampled_from([*sorted(fields()), "preset", "experiment_name", "training.device"]), hostile)
    def check(key: str, text: str) -> None:
        with contextlib.suppress(HpcftError):
            script = rendered(PLAIN | {key: text}, project / "results")
            reached.add(key)
            if script != plain:
                harmless(script, stage, plain)

    check()
    assert reached
    assert sorted(p.name for p in project.iterdir()) == []


def texts_of(text: str) -> list[tuple[str, str, Any]]:
    """Requests with a text in each field that takes one: method, path, and a query or a body."""
    config = {"model": {"name": text}, "name": text, text: text, "data": {"dataset": [text, {text: text}]}}
    lists = (
        "name",
        "model",
        "dataset",
        "variant",
        "kind",
        "state",
        "tag",
        "where",
        "start_date",
        "end_date",
        "sort_by",
    )
    return [
        ("POST", "/jobs", {"config": config}),
        ("POST", "/train", {"config": {"preset": text}, "preview": True}),
        ("POST", "/train", {"config": {"experiment_name": text}}),
        ("POST", "/jobs/mine/resume", {"set": {"resources.time": text}}),
        ("POST", "/jobs/mine/resume", {"set": {text: text}}),
        ("POST", "/jobs/mine/requeue", {text: text}),
        ("PATCH", "/experiments/mine", {"add_tags": [text]}),
        ("PATCH", "/experiments/mine", {"remove_tags": [text], "notes": text}),
        *(("GET", "/experiments", {name: text}) for name in lists),
        *(("GET", "/pareto", {name: text}) for name in ("measure", "run", "baseline", "reference")),
        ("GET", "/jobs/mine/logs", {"rank": text, "attempt": text}),
    ]


def test_s1_no_text_in_any_field_is_a_server_error_or_runs_anything(
    client: TestClient, project: Path, submit: Call, fake_slurm: Any, previews: Any
) -> None:
    paths = submit()
    paths.attempt(1).mkdir(parents=True)
    begin(paths, fake_slurm, **STOPPED)
    fake_slurm.set_state(1, "TIMEOUT")
    before = sorted(p.name for p in project.iterdir())

    @settings(few, max_examples=max(5, EXAMPLES // 15))
    @given(hostile, st.integers(0, 10_000))
    def check(text: str, which: int) -> None:
        # A few requests for each text, and all of them for all texts together.
        requests = texts_of(text)
        for method, path, given_text in [requests[(which + i) % len(requests)] for i in range(5)]:
            try:
                if method == "GET":
                    answer = client.get(V1 + path, params=given_text)
                else:
                    answer = client.request(method, V1 + path, content=json.dumps(given_text), headers=JSON)
            except UnicodeEncodeError:
                # Half characters cannot be sent in an address.
                continue
            assert answer.status_code < 500, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/json"
            answer.json()

    check()
    assert sorted(p.name for p in project.iterdir()) == before
    assert not any("CANARY" in fake_slurm.job(job["id"])["script"] for job in fake_slurm.jobs())


@pytest.mark.parametrize("text", ["$(touch CANARY)", "x\n#SBATCH --wrap=touch", "{{ 7*7 }}", "\ud800", "a" * 100_000])
def test_s1_a_real_submission_refuses_them_in_words(client: TestClient, project: Path, text: str) -> None:
    body = {"config": {"name": text, "preset": "quickstart"}}
    answer = client.post(f"{V1}/jobs", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert told["error"] == "INVALID_CONFIG"
    assert "name" in told["message"]
    assert len(answer.content) < 2000
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("piece", PIECES)
def test_s1_no_text_in_a_header_is_a_server_error(client: TestClient, piece: str) -> None:
    for name in ("accept-language", "cookie", "accept", "x-forwarded-for", "last-event-id", "if-none-match", "range"):
        value = piece.encode("utf-8", "surrogatepass")
        assert client.get(f"{V1}/experiments/nobody", headers={name: value}).status_code == 404


def test_s1_what_is_nested_without_end_is_refused(client: TestClient, previews: Any) -> None:
    for depth in (50, 500, 900, 100_000):
        for opened, closed in (('{"a":', "}"), ("[", "]")):
            body = '{"config": {"a": ' + opened * depth + "1" + closed * depth + "}}"
            answer = client.post(f"{V1}/jobs", content=body, headers=JSON)
            assert answer.status_code in (400, 422), (depth, answer.status_code)
            assert answer.json()["error"]


def test_s5_what_a_run_says_is_told_as_json_and_never_as_a_page(client: TestClient, project: Path, made: Any) -> None:
    script = "<script>alert(1)</script>"
    paths = made("mine", time.time(), {"final/validation_f1_score": 0.5}, model={"name": script})
    write_json(paths.data_report, [{"text": script}])
    bad = FailedRun(project / "results" / "bad").log(script)
    bad.status("failed", message=script, time=time.time() - 600)
    told = client.patch(f"{V1}/experiments/mine", json={"notes": script, "add_tags": [script]})
    assert told.json()["tags"] == [script]
    for path in ("/experiments", "/experiments/mine", "/experiments/mine/data", "/experiments/mine/files", "/jobs/bad",
                 "/jobs/bad/logs", "/jobs/bad/explain", "/task/bad", "/pareto?measure=f1&measure=bleu",
                 f"/experiments/{script}", f"/pareto?measure={script}"):  # fmt: skip
        answer = client.get(V1 + path, headers={"accept": "text/html"})
        assert answer.headers["content-type"] == "application/json", path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]

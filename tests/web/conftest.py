"""The service in this process, over the runs of a project folder."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from hpcft.runs.events import encode
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.web import submission
from hpcft.web.app import create_app
from hpcft.web.guard import Access
from hpcft.web.settings import Settings


@pytest.fixture
def access() -> Access:
    return Access()


@pytest.fixture
def client(project: Path, access: Access, fake_slurm: Any) -> TestClient:
    app = create_app(Settings(project / "results", "local"), access)
    return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)


@pytest.fixture
def made(project: Path) -> Callable[..., RunPaths]:
    """A run as jobs leave it."""

    def call(name: str, at: float, metrics: dict[str, Any] | None = None, **about: Any) -> RunPaths:
        paths = RunPaths(project / "results" / name)
        paths.root.mkdir(parents=True)
        config = {"variant": "lora", "model": {"name": "org/tiny"}, "data": {"dataset": "pairs.csv"}} | about
        paths.config.write_text(yaml.safe_dump(config))
        intent = {"run_id": f"id{name.replace('/', '')}", "submission": 1, "cluster": "slurm", "scheduler": "slurm"}
        intent |= {"job_name": f"{name}.k", "host": "h", "ranks": 1, "job_kind": "train"}
        intent |= {"variant": config["variant"], "model": config["model"]["name"], "dataset": config["data"]["dataset"]}
        paths.client.write_bytes(encode({"seq": 1, "t": at, "kind": "intent", **intent}))
        if metrics is not None:
            write_json(paths.metrics, metrics)
            write_json(paths.done, {})
        return paths

    return call


@pytest.fixture
def previews(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Submissions are made in this process instead of one each, and only previewed; their answers."""
    answers: list[dict[str, Any]] = []

    def run(command: list[str], *, input: str, **_: Any) -> subprocess.CompletedProcess[str]:
        asked = json.loads(input)
        out = io.StringIO()
        with monkeypatch.context() as patched, contextlib.redirect_stdout(out):
            patched.setattr(sys, "stdin", io.StringIO(json.dumps(asked | {"preview": True})))
            code = submission.main()
        answers.append(json.loads(out.getvalue()))
        told = answers[-1] if code or asked["preview"] else {**answers[-1], "run": "x", "run_id": "x", "job_id": "1"}
        return subprocess.CompletedProcess(command, code, json.dumps(told), "")

    stand_in = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(submission, "subprocess", stand_in)
    monkeypatch.setattr(submission, "_fit", lambda _: {"verdict": "unknown", "why": "a test"})
    return answers

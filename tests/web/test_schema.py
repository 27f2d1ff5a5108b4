"""The whole API, asked for what its OpenAPI document allows and for what it forbids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from support.failed_runs import FailedRun
from support.steering import Call

from hpcft.data.care.versions import record
from hpcft.runs.files import write_json
from hpcft.web.app import create_app
from hpcft.web.guard import Access
from hpcft.web.settings import Settings

# What there is, so that not every answer is that there is nothing.
KNOWN = {
    "experiment_id": ["mine", "group/mine", "bad", "k3f9x2m1qa"],
    "task_id": ["k3f9x2m1qa", "bad"],
    "path": ["config.yaml", "plots/loss.png", "metrics.json", "report.html", "../bad/config.yaml"],
    "dataset": ["pairs"],
    "version": ["abab", "pairs_3"],
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


@pytest.fixture
def app(project: Path, make_run: Call, fake_slurm: Any, previews: Any) -> Any:
    for name, run_id in (("mine", "k3f9x2m1qa"), ("group/mine", "z3f9x2m1qa")):
        paths = make_run(name, run_id=run_id, job_id="1", steps=3, done=True)
        write_json(paths.metrics, {"final/validation_f1_score": 0.5, "inference/avg_latency_ms_per_sample": 2.0})
        (paths.root / "plots").mkdir()
        (paths.root / "plots" / "loss.png").write_bytes(b"\x89PNG")
        (paths.root / "report.html").write_text("<p>")
    failed = FailedRun(project / "results" / "bad").log("no space left on device")
    failed.events({"kind": "start", "attempt": 1}).status("failed", message="it failed", time=1.7e9)
    report = {"sha256": "ab" * 32, "total_samples": 3, "dataset": "pairs", "recommendations": []}
    record(project / "results", report, {"dataset": "pairs.csv"})
    return create_app(Settings(project / "results", "local"), Access(hosts=["testserver"]))


def test_every_answer_is_one_that_the_document_promises_and_no_server_error(app: Any) -> None:
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) >= 20
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        modes = st.sampled_from(GenerationMode).flatmap(operation.as_strategy)

        @seed(7)
        @settings(
            max_examples=24,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(modes, st.data())
        def ask(case: Any, data: st.DataObject) -> None:
            for name in case.path_parameters or {}:
                if data.draw(st.integers(0, 3)):
                    case.path_parameters[name] = data.draw(st.sampled_from(KNOWN[name]))
            answer = case.call_and_validate(checks=CHECKS)
            statuses.setdefault(case.operation.label, set()).add(answer.status_code)

        ask()
    # The document was asked for what it holds, not only for what it refuses.
    told = [label for label, seen in statuses.items() if seen & {200, 202}]
    assert len(told) >= len(operations) - 4, statuses

"""`hpcft explain`, and where else its verdict is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.failed_runs import FailedRun

Call = Callable[..., Any]
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture
def run(project: Path) -> FailedRun:
    return FailedRun(project / "results" / "r", training={"per_device_train_batch_size": 8})


def test_the_verdict_its_evidence_and_the_mend_are_printed(hpcft: Call, run: FailedRun) -> None:
    run.log(OOM)
    result = hpcft("explain", "r")
    assert result.code == 0
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines[0].startswith("r: the GPU's memory ran out: ")
    assert f"evidence: {OOM}" in lines
    assert "job.log:1, rank 0" in lines
    command = (
        "hpcft submit results/r/config.yaml --set training.per_device_train_batch_size=4 "
        "--set training.gradient_accumulation_steps=8"
    )
    assert f"mend:     {command}" in lines


def test_the_mend_can_be_pasted(hpcft: Call, run: FailedRun, project: Path) -> None:
    """What it names are keys that a job has."""
    import shlex

    (project / "pairs.csv").write_text("source,target\n" + "".join(f"row {i},answer {i}\n" for i in range(20)))
    run.log(OOM)
    found = json.loads(hpcft("explain", "r", "--json").out)
    for mend in found["mends"]:
        words = shlex.split(mend["command"])
        assert words[:2] == ["hpcft", "submit"]
        done = hpcft("config", "show", *words[2:], "--json")
        assert done.code == 0, done.err


def test_the_document_has_the_run_and_the_verdict(hpcft: Call, run: FailedRun) -> None:
    run.log(OOM)
    document = json.loads(hpcft("explain", "r", "--json").out)
    assert (document["run"], document["verdict"], document["failed"]) == ("r", "gpu_oom", True)
    assert document["evidence"]["line"] == 1


def test_a_run_that_does_not_exist_is_a_usage_error(hpcft: Call, run: FailedRun) -> None:
    result = hpcft("explain", "nope")
    assert result.code == 2
    assert "no run called 'nope'" in result.err


def test_control_characters_in_a_log_do_not_reach_the_terminal(hpcft: Call, run: FailedRun) -> None:
    run.log("torch.OutOfMemoryError: CUDA out of memory \x1b[31m\x07")
    assert "\x1b" not in hpcft("explain", "r").out


def test_show_has_the_verdict_in_a_line(hpcft: Call, run: FailedRun) -> None:
    run.log(OOM).status("failed", message="OutOfMemoryError: CUDA out of memory")
    assert "verdict    the GPU's memory ran out" in hpcft("show", "r").out


def test_waiting_for_a_job_ends_with_its_verdict(run: FailedRun) -> None:
    from hpcft.cli.follow import failure
    from hpcft.cluster.state import stand
    from hpcft.runs.record import read_record

    run.log(OOM).status("failed", message="OutOfMemoryError: CUDA out of memory")
    text = str(failure(run.run, stand([read_record(run.paths.root)])[0]))
    assert "training.gradient_accumulation_steps=8" in text
    assert "job.log" in text

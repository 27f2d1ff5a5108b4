"""What a job uses, watched while it trains."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forked import work

from hpcft.measure.monitor import Monitor
from hpcft.runs.events import read_log

CPU = torch.device("cpu")


def samples(path: Path) -> list[dict[str, Any]]:
    return [record for record in read_log(path).records if record["kind"] == "sample"]


def test_c32_load_and_memory_are_those_of_the_time_that_is_watched(tmp_path: Path) -> None:
    path = tmp_path / "monitor0.jsonl"
    with Monitor(path, CPU, 0.2) as monitor:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            sum(range(20_000))
    found = monitor.summary()
    # One thread was busy all the time, on a machine that others may use too.
    assert 25 < found["system/cpu_percent"] < 250
    assert 0.01 < found["system/memory_gb"] < 50
    assert 3 <= len(samples(path)) <= 8
    assert {"cpu_percent", "memory_gb"} <= set(samples(path)[0])
    count = len(samples(path))
    time.sleep(0.5)
    assert len(samples(path)) == count


def test_a_watch_of_a_moment_has_one_sample_and_one_that_is_off_has_none(tmp_path: Path) -> None:
    with Monitor(tmp_path / "short.jsonl", CPU, 60) as short:
        pass
    assert len(samples(tmp_path / "short.jsonl")) == 1
    assert "system/memory_gb" in short.summary()
    with Monitor(tmp_path / "off.jsonl", CPU, 0) as off:
        pass
    assert off.summary() == {}
    assert not (tmp_path / "off.jsonl").exists()


def test_what_cannot_be_watched_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Monitor(tmp_path / "nowhere" / "monitor0.jsonl", CPU, 0.05) as monitor:
        time.sleep(0.2)
    assert monitor.summary() == {}
    assert "is not watched any more" in caplog.text


def test_tc1_a_job_is_watched_from_its_first_step_to_its_last_and_counts_real_tokens_of_all_epochs(worker: Any) -> None:
    run = worker.finished("watched", "lora", tracking={"monitor_seconds": 0.1})
    steps, start = list(run.events("step")), next(run.events("start"))
    seen = samples(run.paths.monitor(1, 0))
    assert seen[0]["t"] >= start["t"]
    # The first sample is of the first steps, the last one of the last.
    assert seen[0]["t"] <= steps[len(steps) // 2]["t"]
    assert seen[-1]["t"] >= steps[-1]["t"] - 0.2
    metrics = run.metrics
    assert metrics["system/cpu_percent"] > 10
    assert metrics["system/memory_gb"] == pytest.approx(max(s["memory_gb"] for s in seen), rel=0.01)
    assert 0 <= metrics["train/data_wait_frac"] < 1
    tokens, seconds = sum(s["tokens"] for s in steps), sum(s["seconds"] for s in steps)
    assert metrics["train/throughput_tokens_per_sec"] == pytest.approx(tokens / seconds, rel=0.01)
    assert len({round(s["epoch"] - 1e-6) for s in steps}) >= 2
    epochs = list(run.events("epoch"))
    assert all("system/memory_gb" in e["metrics"] and "train/data_wait_frac" in e["metrics"] for e in epochs[1:])
    assert json.loads(run.paths.metrics.read_text())["system/cpu_percent"] == metrics["system/cpu_percent"]


def test_c32_every_rank_is_watched(worker: Any) -> None:
    resources = {"accelerator": "cpu", "gpus_per_node": 2}
    run = worker.make("watched-two", "lora", tracking={"monitor_seconds": 0.1}, resources=resources)
    assert work(run, 2) == 0, run.paths.batch_log.read_text()[-3000:]
    for rank in (0, 1):
        assert samples(run.paths.monitor(1, rank))
    most = max(s["memory_gb"] for rank in (0, 1) for s in samples(run.paths.monitor(1, rank)))
    assert run.metrics["system/memory_gb"] == pytest.approx(most, rel=0.01)

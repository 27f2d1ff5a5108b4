"""`hpcft efficiency`: what was asked for and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.report.efficiency import advice, efficiency, usage_of
from hpcft.runs.events import EventLog, encode
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run

Call = Callable[..., Any]


def made(
    folder: Path,
    name: str,
    attempts: list[tuple[float, float, int, list[int]]],
    metrics: dict[str, float],
    **asked: Any,
) -> Run:
    """A run whose attempts began and ended at given seconds, resumed at a step, and did steps of 10 s."""
    paths = RunPaths(folder / name)
    paths.root.mkdir(parents=True)
    paths.config.write_text(yaml.safe_dump({"variant": "lora", "resources": asked}))
    records = [{"seq": 1, "t": 1000.0, "kind": "intent", "run_id": "a", "submission": 1}]
    records += [{"seq": 2, "t": 1000.0, "kind": "submitted", "submission": 1, "job_id": "7"}]
    paths.client.write_bytes(b"".join(encode(record) for record in records))
    for number, (begin, end, resumed, steps) in enumerate(attempts, 1):
        paths.attempt(number).mkdir(parents=True)
        lines = [{"t": begin, "kind": "start", "resume_step": resumed}]
        lines += [{"t": begin + 1 + i, "kind": "step", "step": s, "seconds": 10.0} for i, s in enumerate(steps)]
        lines.append({"t": end, "kind": "end" if number == len(attempts) else "stopped", "step": steps[-1]})
        content = b"".join(encode({"seq": i, **line}) for i, line in enumerate(lines, 1))
        paths.events(number).write_bytes(content)
    write_json(paths.metrics, metrics)
    return Run(paths.root)


ASKED = {"nodes": 2, "gpus_per_node": 4, "cpus_per_task": 8, "mem_gb": 100, "time": "04:00:00", "accelerator": "cuda"}


def test_hours_are_of_all_attempts_and_the_queue_is_before_and_between_them(tmp_path: Path) -> None:
    run = made(tmp_path, "run", [(1600, 1700, 0, [1, 2, 3]), (2000, 2300, 2, [3, 4])], {}, **ASKED)
    usage = usage_of(run)
    assert usage is not None
    assert (usage.gpus, usage.cpus, usage.attempts) == (8, 64, 2)
    assert usage.ran_s == 400
    assert usage.waited_s == 600 + 300
    assert usage.gpu_hours == pytest.approx(8 * 400 / 3600)
    assert usage.asked_gpu_hours == 32
    # Step 3 was done twice.
    assert (usage.trained_s, usage.redone_s) == (40, 10)
    assert usage.trained == pytest.approx(0.1)


def test_advice_goes_by_the_run_that_needed_most(tmp_path: Path) -> None:
    load = {
        "system/memory_gb": 5.0,
        "system/cpu_percent": 130.0,
        "system/gpu_percent": 20.0,
        "train/data_wait_frac": 0.3,
    }
    more = load | {"system/memory_gb": 8.0, "system/cpu_percent": 220.0, "system/gpu_percent": 90.0}
    runs = [made(tmp_path, n, [(1600, 2200, 0, [1])], m, **ASKED) for n, m in (("a", load), ("b", more))]
    told = {line.partition(": ")[0]: line for line in efficiency(runs).advice}
    assert "resources.time=13" in told["time"]
    assert "resources.mem_gb=42" in told["memory"]
    assert "32 of 100 GB" in told["memory"]
    assert "resources.cpus_per_task=3" in told["processor"]
    assert "30 %" in told["data"]
    assert "busy 20 % of the time in a" in told["GPU"]


def test_what_was_used_well_needs_no_advice(tmp_path: Path) -> None:
    load = {
        "system/memory_gb": 20.0,
        "system/cpu_percent": 790.0,
        "system/gpu_percent": 95.0,
        "train/data_wait_frac": 0.01,
    }
    usage = usage_of(made(tmp_path, "a", [(1600, 1600 + 3 * 3600, 0, [1])], load, **ASKED))
    assert usage is not None
    assert advice([usage]) == []
    assert advice([]) == []


def test_of_a_run_that_goes_on_the_last_epochs_figures_are_told(tmp_path: Path) -> None:
    run = made(tmp_path, "run", [(1600, 1700, 0, [1])], {}, **ASKED)
    run.paths.metrics.unlink()
    with EventLog(run.paths.events(1)) as log:
        log.append("epoch", step=1, metrics={"system/memory_gb": 3.5, "train/data_wait_frac": 0.25})
    usage = usage_of(Run(run.paths.root))
    assert usage is not None
    assert (usage.memory_gb, usage.data_wait) == (3.5, 0.25)


def test_c10_runs_and_sweeps_are_shown_and_told_as_json(hpcft: Call, project: Path) -> None:
    folder = project / "results"
    made(folder, "alone", [(1600, 1700, 0, [1, 2])], {"system/memory_gb": 2.0}, **ASKED)
    for name in ("0000", "0001"):
        made(folder / "sweep", name, [(1600, 1700, 0, [1])], {}, **ASKED)
    (folder / "sweep" / "0002").mkdir()
    (folder / "sweep" / "0002" / "config.yaml").write_text("variant: lora\n")
    answer = hpcft("efficiency", "alone", "sweep")
    assert answer.code == 0, answer.err
    assert "GPU-hours" in answer.out.splitlines()[0]
    assert "next time" in answer.out
    told = json.loads(hpcft("efficiency", "sweep", "--json").out)
    assert [row["name"] for row in told["runs"]] == ["0000", "0001"]
    assert told["totals"]["gpu_hours"] == pytest.approx(2 * 8 * 100 / 3600)


def test_a_run_that_has_not_started_is_told(hpcft: Call, make_run: Call) -> None:
    make_run("young", age_s=0)
    answer = hpcft("efficiency", "young")
    assert answer.code == 0
    assert "none of these runs has started" in answer.err

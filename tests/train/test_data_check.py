"""The check that a job makes of its data before it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcft.data.care.versions import version_of, versions
from hpcft.data.e2e import make_rows

SHORT = {"num_train_epochs": None, "max_steps": 2, "gradient_accumulation_steps": 1}


def rows_of(path: Path, count: int, seed: int = 3, more: tuple[dict[str, str], ...] = ()) -> str:
    rows = [{"mr": row.mr, "ref": row.ref} for row in make_rows(count, seed)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
    return str(path)


def test_c3_c43_every_job_checks_its_data_and_records_its_version(worker: Any, tmp_path: Path) -> None:
    path = rows_of(tmp_path / "venues.jsonl", 30, more=({"mr": "name[A]", "ref": "<b>A</b> [is"},))
    run = worker.finished("checked", "lora", data={"dataset": path, "eval_samples": 2}, training=SHORT)
    (report,) = json.loads(run.paths.data_report.read_text())
    assert report["issues"]["html_content"]["count"] == report["issues"]["cut_answers"]["count"] == 1
    assert report["version"] == version_of(report["sha256"])
    start = next(run.events("start"))
    assert start["data"]["versions"] == {path: report["version"]}
    assert "have what looks like HTML tags" in run.paths.logs.read_text()
    assert run.paths.config.is_file()
    known = {v.version: v for v in versions(run.paths.root.parent, "venues")}
    assert known[report["version"]].source["path"] == path


def test_tc2_a_second_run_on_changed_data_records_a_new_version(worker: Any, tmp_path: Path) -> None:
    names = []
    for number, count in enumerate((20, 21, 20)):
        path = rows_of(tmp_path / "changing.jsonl", count)
        run = worker.finished(f"changing-{number}", "lora", data={"dataset": path, "eval_samples": 2}, training=SHORT)
        names.append(json.loads(run.paths.data_report.read_text())[0]["version"])
    assert names[0] == names[2] != names[1]
    found = versions(worker.folder, "changing")
    assert {v.version for v in found} == set(names)
    assert max(found, key=lambda v: v.used_at).version == names[2]


def test_te10_a_strict_job_refuses_a_broken_set_and_says_why(worker: Any, tmp_path: Path) -> None:
    rows = [{"mr": f"name[{row.mr}]", "ref": "[Local" if i else "[Global"} for i, row in enumerate(make_rows(30, 3))]
    path = tmp_path / "broken.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset": str(path), "eval_samples": 2}
    run = worker.make("strict", "lora", data=data, training=SHORT, checks={"strict": True})
    assert worker.run(run) == 65
    status = run.status
    assert status is not None
    assert "open a bracket that is never closed" in status.message
    assert "checks.strict=false" in run.paths.batch_log.read_text()
    assert worker.finished("lenient", "lora", data=data, training=SHORT).paths.data_report.is_file()


def test_a_stream_is_checked_as_far_as_it_was_looked_at_and_its_version_is_its_files(
    worker: Any, tmp_path: Path
) -> None:
    path = rows_of(tmp_path / "stream.jsonl", 30)
    held = rows_of(tmp_path / "held.jsonl", 4, seed=9)
    data = {"dataset": path, "validation": held, "streaming": True, "train_samples": 0}
    run = worker.finished("streamed", "lora", data=data, training=SHORT)
    trained, validation = json.loads(run.paths.data_report.read_text())
    assert (trained["role"], validation["role"]) == ("train", "validation")
    assert validation["overlap"]["count"] == 0

"""The index of runs: it says what the run directories say, whatever happened to them or to it."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.errors import UsageError
from hpcft.runs.events import EventLog, encode
from hpcft.runs.files import write_json
from hpcft.runs.index.query import Index, Query, condition, grouped
from hpcft.runs.index.scan import refresh
from hpcft.runs.index.store import place
from hpcft.runs.marks import mark
from hpcft.runs.paths import RunPaths

Make = Callable[..., RunPaths]


@pytest.fixture
def results(project: Path) -> Path:
    return project / "results"


@pytest.fixture
def make(results: Path) -> Make:
    def call(name: str, *, told: bool = True, at: float | None = None, **changes: Any) -> RunPaths:
        """A run directory. `told`: its journal has its settings, as runs of today; else only its config.yaml."""
        paths = RunPaths(results / name)
        paths.root.mkdir(parents=True)
        config = {"variant": "lora"} | {k: v for k, v in changes.items() if k != "metrics"}
        tree: dict[str, Any] = {}
        for key, value in config.items():
            section, _, inner = key.partition(".")
            if inner:
                tree.setdefault(section, {})[inner] = value
            else:
                tree[key] = value
        paths.config.write_text(yaml.safe_dump(tree))
        intent = {"run_id": f"id{name[-4:]}", "submission": 1, "cluster": "slurm", "scheduler": "slurm", "ranks": 1}
        intent |= {"job_name": f"{name}.k", "host": "h", "job_kind": "train", "variant": config["variant"]}
        intent |= {"model": config.get("model.name", "org/tiny"), "dataset": "pairs.csv"}
        record = {"seq": 1, "t": at or time.time(), "kind": "intent", **intent, **({"config": config} if told else {})}
        paths.client.write_bytes(encode(record))
        if "metrics" in changes:
            finish(paths, changes["metrics"])
        return paths

    return call


def finish(paths: RunPaths, metrics: dict[str, Any]) -> None:
    write_json(paths.metrics, metrics)
    write_json(paths.done, {})


def names(results: Path, *where: str, sort: str = "run", descending: bool = False, **more: Any) -> list[str]:
    with Index(results) as index:
        query = Query(tuple(condition(text) for text in where), sort, descending, **more)
        return [row["run"] for row in index.find(query).rows]


def test_tc4_a_run_is_in_the_index_from_its_first_second_and_when_it_failed(results: Path, make: Make) -> None:
    paths = make("young")
    assert names(results) == ["young"]
    paths.status.write_text(json.dumps({"state": "failed", "attempt": 1, "step": 7, "total_steps": 9, "loss": 2.5}))
    with Index(results) as index:
        (row,) = index.find(Query()).rows
    assert (row["step"], row["total_steps"], row["loss"], row["state"]) == (7, 9, 2.5, "")
    finish(paths, {"train/runtime_s": 4.0})
    assert names(results, "state=success", "runtime<5") == ["young"]


def test_g25_what_has_not_changed_is_not_opened(results: Path, make: Make) -> None:
    for i in range(5):
        make(f"run{i}", metrics={"m": i})
    going = make("going")
    assert (refresh(results).read, refresh(results).read) == (6, 0)
    going.status.write_text("{}")
    assert refresh(results).read == 1
    mark(RunPaths(results / "run3"), added=["paper"])
    assert refresh(results).read == 1
    assert names(results, "tags=paper") == ["run3"]


def test_c22_the_index_may_be_thrown_away_or_be_damaged(results: Path, make: Make) -> None:
    make("one", metrics={"m": 1})
    assert names(results) == ["one"]
    index = place(results)
    index.unlink()
    assert names(results) == ["one"]
    index.write_bytes(b"no database" * 1000)
    assert names(results) == ["one"]
    with sqlite3.connect(index) as store:
        store.execute("PRAGMA user_version = 99")
    assert names(results, "m=1") == ["one"]
    assert index.stat().st_mode & 0o077 == 0


def test_runs_that_are_gone_and_groups_that_came(results: Path, make: Make) -> None:
    make("one", metrics={"m": 1})
    make("sweep/0000", metrics={"m": 2})
    assert names(results) == ["one", "sweep/0000"]
    assert names(results, "group=sweep") == ["sweep/0000"]
    subprocess.run(["rm", "-r", str(results / "one")], check=True)
    make("sweep/0001")
    assert names(results) == ["sweep/0000", "sweep/0001"]
    assert refresh(results).runs == 2


def test_a_run_that_goes_on_has_its_newest_figures_read_on_from_where_they_were_read_to(
    results: Path, make: Make
) -> None:
    paths = make("going")
    paths.attempt(1).mkdir(parents=True)
    with EventLog(paths.events(1)) as log:
        log.append("step", step=1, loss=3.0)
        log.append("validation", step=1, metrics={"validation/loss": 2.0, "validation/word": "x"})
        paths.status.write_text("{}")
        assert names(results, "train/loss=3", "validation/loss=2") == ["going"]
        log.append("step", step=2, loss=2.5)
        paths.status.write_text('{"state": "training", "attempt": 1}')
        assert names(results, "train/loss=2.5", "validation/loss=2") == ["going"]
    paths.attempt(2).mkdir()
    with EventLog(paths.events(2)) as log:
        log.append("step", step=2, loss=2.25)
    paths.status.write_text('{"state": "training", "attempt": 2, "step": 2}')
    assert names(results, "train/loss=2.25", "validation/loss=2") == ["going"]


@pytest.mark.parametrize("told", [True, False], ids=["settings in the journal", "settings in config.yaml"])
def test_any_setting_and_metric_is_a_filter(results: Path, make: Make, told: bool) -> None:
    make("a", told=told, **{"lora.r": 4, "training.bf16": True}, metrics={"final/validation_accuracy": 0.5})
    make("b", told=told, **{"lora.r": 16, "variant": "qlora"}, metrics={"final/validation_accuracy": 0.75})
    # The default: 8.
    make("c", told=told, metrics={"train/runtime_s": 99, "final/validation_accuracy": "nan"})
    assert names(results, "lora.r>=8") == ["b", "c"]
    assert names(results, "r=8") == ["c"]
    assert names(results, "r!=8", "variant=qlora") == ["b"]
    assert names(results, "eval_accuracy>0.4") == ["a", "b"]
    assert names(results, "accuracy<=0.5") == ["a"]
    assert names(results, "train_runtime<100") == ["c"]
    assert names(results, "name~B") == ["b"]
    assert names(results, "data.dataset!~nothing") == ["a", "b", "c"]
    # Those without the figure, and the one whose figure is no number, come last either way.
    assert names(results, sort="eval_accuracy", descending=True) == ["b", "a", "c"]
    assert names(results, sort="eval_accuracy") == ["a", "b", "c"]
    assert names(results, sort="lora.r", descending=True, limit=2) == ["b", "c"]
    assert names(results, sort="lora.r", limit=2, offset=1) == ["c", "b"]


def test_a_switch_is_compared_as_it_is_written(results: Path, make: Make) -> None:
    make("on", **{"training.gradient_checkpointing": True})
    make("off")
    assert names(results, "training.gradient_checkpointing=true") == ["on"]
    assert names(results, "training.gradient_checkpointing=false") == ["off"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora.rank>=8", "did you mean lora.r"),
        ("nothing at all", "is no condition"),
        ("variant>", ""),
        ("lora.r>big", "is no number"),
        ("a'; DROP TABLE runs; --=1", "is no condition"),
        ('x"y=1', "is no condition"),
        ("variant='; DROP TABLE runs; --", ""),
        ("no/such.metric=1", "no run has anything called"),
    ],
)
def test_what_means_nothing_is_told(results: Path, make: Make, text: str, said: str) -> None:
    make("one", **{"lora.r": 4})
    with pytest.raises(UsageError, match=re.escape(said)) if said else nullcontext():
        names(results, text)
    assert names(results) == ["one"]


def test_figures_are_grouped_with_their_spread(results: Path, make: Make) -> None:
    for seed, value in enumerate((0.5, 0.7, 0.9)):
        make(f"lora{seed}", **{"training.seed": seed}, metrics={"final/validation_f1_score": value})
    make("full", variant="full", metrics={"final/validation_f1_score": 0.4})
    make("none", variant="ia3")
    with Index(results) as index:
        rows = index.find(Query(sort="run", descending=False, show=("f1",))).rows
    found = {row["variant"]: row for row in grouped(rows, ["variant"], ["f1"])}
    assert found["lora"]["runs"] == 3
    assert found["lora"]["f1"] == pytest.approx({"mean": 0.7, "std": 0.2, "min": 0.5, "max": 0.9, "n": 3})
    assert found["full"]["f1"]["std"] == 0
    assert found["ia3"]["f1"] is None


def test_damaged_files_hide_no_run(results: Path, make: Make) -> None:
    for i, (file, content) in enumerate(
        [
            ("status.json", b"{half"),
            ("metrics.json", b'{"m": 1'),
            ("client.jsonl", b'{"kind": "intent"}\n\xff\xfe'),
            ("config.yaml", b"a: [b\xff"),
        ]
    ):
        paths = make(f"run{i}", metrics={"m": 2})
        (paths.root / file).write_bytes(content)
    with Index(results) as index:
        found = index.find(Query(show=("m",), sort="run", descending=False)).rows
    assert [(row["run"], row["m"]) for row in found] == [("run0", 2), ("run1", None), ("run2", 2), ("run3", 2)]


def test_many_processes_at_once_make_one_whole_index(results: Path, make: Make) -> None:
    for i in range(300):
        make(f"run{i:03d}", metrics={"m": i})
    program = "from pathlib import Path; from hpcft.runs.index.query import *; "
    program += "print(Index(Path('results')).find(Query((condition('m>=0'),))).total)"
    jobs = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(6)]
    assert [job.communicate(timeout=60)[0] for job in jobs] == [b"300\n"] * 6


def test_the_index_says_what_the_directories_say_after_whatever_happened(results: Path, make: Make) -> None:
    rng = random.Random(5)
    live: dict[str, float | None] = {}
    for number in range(60):
        choice = rng.random()
        if choice < 0.5 or not live:
            live[f"r{number:03d}"] = None
            make(f"r{number:03d}")
        elif choice < 0.8:
            name = rng.choice(list(live))
            live[name] = rng.random()
            finish(RunPaths(results / name), {"m": live[name]})
        else:
            name = rng.choice(list(live))
            del live[name]
            subprocess.run(["rm", "-r", str(results / name)], check=True)
        if rng.random() < 0.3:
            with Index(results) as index:
                rows = index.find(Query(show=("m",) if any(v is not None for v in live.values()) else ())).rows
            assert {row["run"]: row.get("m") for row in rows} == live
        # A file system may count time in steps of milliseconds.
        time.sleep(0.002)
    assert os.path.isfile(place(results))  # noqa: PTH113

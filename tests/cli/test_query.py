"""`hpcft query`, `export`, `stats`, `tag`, and the filters that they share with `hpcft ls`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.runs.files import write_json
from hpcft.runs.run import Run

Call = Callable[..., Any]


@pytest.fixture
def runs(make_run: Call, fake_slurm: Any) -> None:
    """Three seeds of LoRA, one full run, one that failed."""
    for seed, (f1, accuracy, runtime) in enumerate([(0.5, 0.6, 10.0), (0.7, 0.7, 20.0), (0.9, 0.8, 30.0)]):
        add(make_run, f"lora-{seed}", 900 - seed, {"training": {"seed": seed}}, f1, accuracy, runtime)
    add(make_run, "whole", 86400 * 9, {"lora": {"r": 16}}, 0.4, 0.95, 400.0, variant="full", model="org/Big")
    make_run("bad", job_id="11", status={"state": "failed", "message": "no such file", "time": 1.0})


def add(
    make_run: Call,
    name: str,
    age_s: float,
    config: dict[str, Any],
    f1: float,
    accuracy: float,
    runtime: float,
    **about: str,
) -> None:
    paths = make_run(name, age_s=age_s, done=True, steps=3, **about)
    known = yaml.safe_load(paths.config.read_text())
    paths.config.write_text(yaml.safe_dump({**known, **config}))
    metrics = {"final/validation_f1_score": f1, "final/validation_accuracy": accuracy, "train/runtime_s": runtime}
    write_json(paths.metrics, metrics | {"train/throughput_tokens_per_sec": 100.0})


def rows(result: Any) -> Any:
    assert result.code == 0, result.err
    return json.loads(result.out)


def names(result: Any) -> list[str]:
    return [row.get("run", row.get("name")) for row in rows(result)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--min-accuracy", "0.65"), ["lora-2", "lora-1", "whole"]),
        (("--max-accuracy", "0.7"), ["lora-1", "lora-0"]),
        (("--max-runtime", "25"), ["lora-1", "lora-0"]),
        (("--name", "LORA"), ["lora-2", "lora-1", "lora-0"]),
        (("--name", "*-1"), ["lora-1"]),
        (("--start-date", "1d", "--state", "success"), ["lora-2", "lora-1", "lora-0"]),
        (("--end-date", "2d"), ["whole"]),
        (("--sort-by", "train_runtime", "--asc", "--state", "success"), ["lora-0", "lora-1", "lora-2", "whole"]),
        (("--sort-by", "eval_accuracy", "--limit", "2"), ["whole", "lora-2"]),
        (("--sort-by", "created_at", "--desc", "--limit", "1", "--state", "success"), ["lora-2"]),
        (("--where", "seed>=1", "--where", "seed<9", "--sort-by", "name"), ["lora-1", "lora-2"]),
        (("--where", "lora.r=8", "--where", "f1>0.6"), ["lora-2", "lora-1"]),
    ],
)
def test_filters_and_orders(hpcft: Call, runs: None, words: tuple[str, ...], expected: list[str]) -> None:
    assert names(hpcft("ls", "--json", *words)) == expected
    if "--sort-by" not in words or "name" not in words:
        assert names(hpcft("query", "--json", *words)) == expected


def test_a_column_more_is_shown(hpcft: Call, runs: None) -> None:
    answer = hpcft("ls", "--show", "f1", "--show", "lora.r", "--sort", "f1")
    head, first = answer.out.splitlines()[:2]
    assert head.split()[-3:] == ["f1", "lora.r", "what"]
    assert first.split()[0] == "lora-2"
    assert "0.9" in first.split()
    assert rows(hpcft("ls", "--json", "--show", "f1", "--name", "whole"))[0]["figures"] == {"f1": 0.4}


def test_seeds_are_one_line_with_mean_and_spread(hpcft: Call, runs: None) -> None:
    told = rows(hpcft("query", "--by", "variant", "--show", "f1", "--state", "success", "--sort", "f1", "--json"))
    assert [(row["variant"], row["runs"]) for row in told] == [("lora", 3), ("full", 1)]
    assert told[0]["f1"]["mean"] == pytest.approx(0.7)
    assert told[0]["f1"]["std"] == pytest.approx(0.2)
    shown = hpcft("query", "--by", "variant", "--show", "f1").out
    assert "0.7 ± 0.2 (n 3)" in shown


def test_c33_models_and_data_sets_are_compared(hpcft: Call, runs: None) -> None:
    keys = ("--show", "train_runtime", "--show", "tokens_per_sec", "--show", "eval_accuracy")
    for by in ("model_name", "dataset_name"):
        told = rows(hpcft("query", "--by", by, *keys, "--state", "success", "--sort-by", "eval_accuracy", "--json"))
        if by == "model_name":
            assert [(row[by], row["runs"]) for row in told] == [("org/Big", 1), ("org/tiny", 3)]
            assert told[1]["eval_accuracy"]["mean"] == pytest.approx(0.7)
            assert told[1]["train_runtime"]["mean"] == pytest.approx(20)
        else:
            assert [(row[by], row["runs"]) for row in told] == [("pairs.csv", 4)]


def test_all_keys_are_listed(hpcft: Call, runs: None) -> None:
    told = hpcft("query", "--keys").out.splitlines()
    assert {"run", "variant", "final/validation_f1_score", "lora.r", "training.seed"} <= set(told)


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet"])
def test_everything_is_exported(hpcft: Call, runs: None, ending: str) -> None:
    file = f"runs{ending}"
    answer = hpcft("export", "--out", file)
    assert answer.code == 0, answer.err
    assert Path(file).stat().st_mode & 0o077 == 0
    if ending == ".csv":
        with Path(file).open(newline="") as text:
            found: list[dict[str, Any]] = list(csv.DictReader(text))
    elif ending == ".json":
        found = json.loads(Path(file).read_text())
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(file).to_pylist()
    by_name = {row["run"]: row for row in found}
    assert {row["state"] for row in found} == {"SUCCESS", "FAILURE"}
    assert float(by_name["lora-2"]["final/validation_f1_score"]) == 0.9
    assert float(by_name["whole"]["lora.r"]) == 16
    assert by_name["whole"]["model"] == "org/Big"


def test_statistics(hpcft: Call, runs: None) -> None:
    told = rows(hpcft("stats", "--json"))
    assert told["total_experiments"] == 5
    assert told["states"] == {"SUCCESS": 4, "FAILURE": 1}
    assert told["avg_runtime"] == pytest.approx(115)
    assert told["min_runtime"] == 10
    assert told["avg_accuracy"] == pytest.approx(0.7625)
    assert told["best_accuracy"] == 0.95
    assert told["avg_tokens_per_sec"] == 100
    assert told["avg_cpu_percent"] is told["avg_memory_gb"] is None
    assert rows(hpcft("stats", "--json", "--variant", "full"))["total_experiments"] == 1


def test_statistics_of_nothing_are_told_and_no_error(hpcft: Call) -> None:
    told = rows(hpcft("stats", "--json"))
    assert told["total_experiments"] == 0
    assert told["avg_runtime"] is told["best_accuracy"] is None
    answer = hpcft("stats")
    assert answer.code == 0
    assert "runs    0" in answer.out
    assert hpcft("ls").code == hpcft("query").code == 0


def test_tags_and_notes_are_kept_in_the_run_directory(hpcft: Call, runs: None) -> None:
    answer = hpcft("tag", "lora-0", "lora-1", "--add", "paper", "--add", "表二", "--note", "the one of table 2")
    assert answer.code == 0, answer.err
    assert names(hpcft("ls", "--json", "--tag", "paper", "--tag", "表二")) == ["lora-1", "lora-0"]
    hpcft("tag", "lora-0", "--remove", "paper")
    assert names(hpcft("ls", "--json", "--tag", "paper")) == ["lora-1"]
    assert rows(hpcft("tag", "lora-0", "--json")) == [
        {"name": "lora-0", "tags": ["表二"], "notes": "the one of table 2"}
    ]
    marks = [record for record in Run(Path("results/lora-0")).journal() if record["kind"] == "marked"]
    assert len(marks) == 2
    # The run's own story is as it was.
    assert rows(hpcft("status", "lora-0", "--json"))[0]["state"] == "SUCCESS"
    assert names(hpcft("query", "--json", "--where", "notes~table 2")) == ["lora-1", "lora-0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("query", "--show", "f11"), "did you mean f1"),
        (("query", "--where", "lora.r"), "is no condition"),
        (("query", "--out", "x.xlsx"), ".parquet"),
        (("tag", "nobody", "--add", "x"), "no run called"),
        (("tag", "lora-0", "--add", ""), "is no tag"),
        (("ls", "--end-date", "tomorrow"), "--until"),
        (("ls", "--min-accuracy", "7"), "--min-accuracy"),
        (("ls", "--sort-by", "nothing"), "cannot sort by"),
    ],
)
def test_mistakes_are_named(hpcft: Call, runs: None, words: tuple[str, ...], said: str) -> None:
    answer = hpcft(*words)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err

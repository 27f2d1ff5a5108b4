"""The points of a comparison are the same out of the index as out of the runs' files."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.report.pareto import Point
from hpcft.report.points import indexed_points, read_points
from hpcft.runs.events import encode
from hpcft.runs.index.query import Index
from hpcft.runs.run import list_runs

KEYS = ["final/validation_f1_score", "inference/avg_latency_ms_per_sample", "train/runtime_s"]
KINDS = ["train", "train", "evaluate", "bench", "bench", "merge", "quantize", "report"]


def make(results: Path, name: str, rng: random.Random, before: list[str]) -> None:
    """A run of any kind, about another one or none, with files that are whole, damaged or not there."""
    root = results / name
    root.mkdir(parents=True)
    # Another folder than the one it stands in: the results were copied since.
    home = rng.choice([results, Path("/elsewhere/results")])
    of = rng.choice([*before, "gone", name]) if rng.random() < 0.6 else None
    kind = rng.choice(KINDS)
    job = {
        "kind": kind,
        "variant": rng.choice(["lora", "qlora", "mine"]),
        "results": str(home),
        "data.dataset": "a.csv",
    }
    job |= {"training.seed": rng.randrange(3)} | ({"of": str(home / of)} if of else {})
    tree: dict[str, Any] = {}
    for key, value in job.items():
        section, _, inner = key.partition(".")
        if inner:
            tree.setdefault(section, {})[inner] = value
        else:
            tree[key] = value
    broken = rng.random() < 0.1
    (root / "config.yaml").write_text("{" if broken else yaml.safe_dump(tree))
    if rng.random() < 0.7:
        intent = {"run_id": name, "submission": 1, "job_name": f"{name}.x", "job_kind": kind, "variant": job["variant"]}
        told = {"config": job} if rng.random() < 0.8 else {}
        (root / "client.jsonl").write_bytes(encode({"seq": 1, "t": 1.0, "kind": "intent", **intent, **told}))
    values = [rng.random(), rng.random(), 10**30, -0.0, "nan", "-inf", "word", True, None]
    metrics: dict[str, Any] = {key: rng.choice(values) for key in KEYS if rng.random() < 0.7}
    metrics |= {"model_variant": "Mine"}
    text = rng.choice([json.dumps(metrics)] * 5 + [json.dumps({**metrics, "x": [math.nan]}), "{", "[1]", "{}"])
    if rng.random() < 0.9:
        (root / "metrics.json").write_text(text)
    machine = {"fingerprint": {"id": rng.choice(["one", "two"])}, "data": {"sha256": rng.choice("ab") * 64}}
    if kind == "bench" or rng.random() < 0.1:
        (root / "benchmark.json").write_text(rng.choice([json.dumps(machine)] * 5 + ["[", "[1]"]))
    if kind in ("train", "evaluate"):
        (root / "evaluation_results.json").write_text(rng.choice([json.dumps(machine)] * 5 + ["nothing"]))
    if rng.random() < 0.8:
        (root / "done.json").write_text("{}")


def told(found: tuple[list[Point], dict[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """In words, so that one NaN is as good as another; of the figures those of the keys."""
    shown = {}
    for point in found[0]:
        values = {key: point.values[key] for key in KEYS if key in point.values}
        shown[point.name] = repr((point.group, values, point.dataset, point.hardware, point.seed))
    return shown, found[1]


@pytest.mark.parametrize("seed", range(6))
def test_c22_points_out_of_the_index_are_those_of_the_files(project: Path, seed: int) -> None:
    rng, results = random.Random(seed), project / "results"
    names = [f"r{number:02d}" for number in range(40)]
    for number, name in enumerate(names):
        make(results, name, rng, names[:number])
    # A pipeline's run, on which one beside it may work, is read from its files.
    make(results, "group/inner", rng, names)
    make(results, "on_inner", rng, ["group/inner"])
    read = told(read_points(list_runs(results)))
    assert len(read[0]) > 5
    assert len(read[1]) > 2
    for _ in ("read first", "kept"):
        with Index(results) as index:
            assert told(indexed_points(index, KEYS)) == read


def test_c22_a_point_is_read_again_when_its_run_has_changed(project: Path) -> None:
    rng, results = random.Random(1), project / "results"
    make(results, "one", rng, [])
    for name in ("done.json", "benchmark.json", "evaluation_results.json"):
        (results / "one" / name).unlink(missing_ok=True)
    for value in (0.25, 0.5):
        (results / "one" / "new.json").write_text(json.dumps({KEYS[0]: value}))
        (results / "one" / "new.json").replace(results / "one" / "metrics.json")
        with Index(results) as index:
            (point,), _ = indexed_points(index, KEYS)
            assert point.values == {KEYS[0]: value}

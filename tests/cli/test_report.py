"""`hpcft report`: where it writes, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Call = Callable[..., Any]
F1, LATENCY = "final/validation_f1_score", "inference/avg_latency_ms_per_sample"


@pytest.fixture
def runs(project: Path) -> None:
    for name, variant, f1, latency in (("base", "full", 0.5, 100.0), ("small", "qlora", 0.4, 50.0)):
        folder = Path("results") / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump({"kind": "train", "variant": variant}))
        (folder / "metrics.json").write_text(json.dumps({F1: f1, LATENCY: latency}))
        (folder / "done.json").write_text("{}")


@pytest.mark.usefixtures("runs")
def test_all_runs_are_reported_in_their_folder(hpcft: Call) -> None:
    result = hpcft("report")
    assert (result.code, result.out) == (0, "")
    page = Path("results/report.html")
    assert str(page) in result.err
    assert page.stat().st_mode & 0o777 == 0o600
    text = page.read_text()
    assert "<title>results</title>" in text
    assert "On the front of F1 score and Latency (ms a sample): base, small." in text


@pytest.mark.usefixtures("runs")
def test_one_run_is_reported_in_its_own_directory(hpcft: Call) -> None:
    assert hpcft("report", "small").code == 0
    assert "<title>small</title>" in Path("results/small/report.html").read_text()


@pytest.mark.usefixtures("runs")
def test_file_title_baseline_and_pictures_are_chosen(hpcft: Call) -> None:
    result = hpcft(
        "report", "base", "small", "--out", "new/x.html", "--title", "結果", "--baseline", "full", "--png", "--json"
    )
    assert result.code == 0, result.err
    assert "<title>結果</title>" in Path("new/x.html").read_text()
    assert Path("new/x-pareto.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(result.out)
    assert found["baseline"] == "base"
    assert found["models"][1]["ratio_to_baseline"] == {F1: pytest.approx(0.8), LATENCY: 2.0}


@pytest.mark.usefixtures("runs")
def test_mistakes_are_told(hpcft: Call) -> None:
    assert hpcft("report", "nobody").code == 2
    assert hpcft("report", "--results", "empty").code == 2
    assert "none of the rows" in hpcft("report", "--baseline", "lora").err
    assert "is a folder" in hpcft("report", "--out", "results").err

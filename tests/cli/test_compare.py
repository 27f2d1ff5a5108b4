"""`hpcft compare`: what is printed, written and refused."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
SIZE = "inference/model_size_gb"


def write_run(name: str, right: list[float], digest: str = "d1", **metrics: float) -> Path:
    """A finished run with answers to questions."""
    folder = Path("results") / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("variant: lora\n")
    (folder / "done.json").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({SIZE: 0.5} | metrics))
    results = {"em": sum(right) / len(right), "accuracy": sum(right) / len(right), "num_samples": len(right)}
    (folder / "evaluation_results.json").write_text(json.dumps(results | {"data": {"sha256": digest}}))
    lines = [
        {"input": f"who [b] is {i}?", "references": ["he"], "prediction": f"{name}\nsays {i}", "scores": {"em": em}}
        for i, em in enumerate(right)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(project: Path) -> None:
    write_run("first", [1, 0, 1, 0, 0, 0])
    write_run("second", [1, 1, 1, 1, 1, 1])
    write_run("third", [1, 0, 0, 0, 0, 0])


@pytest.mark.usefixtures("runs")
def test_scores_side_by_side_with_their_differences(hpcft: Call) -> None:
    result = hpcft("compare", "first", "second")
    assert result.code == 0
    table, _, differences = result.out.partition("\n\n")
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert lines["6 inputs"].split()[2:] == ["first", "second"]
    assert lines["em"].split()[1:] == ["0.3333", "[0.0000,", "0.6667]", "1.0000", "[1.0000,", "1.0000]"]
    assert lines[SIZE].split()[1:] == ["0.5", "0.5"]
    assert lines["words an answer"].split()[3:] == ["3.0", "3.0"]
    # Four of four differing answers are better: 2 of the 16 sign patterns are as large.
    assert differences.splitlines()[1].split() == ["em", "second", "+0.6667", "0.1250"]
    assert "accuracy" not in result.out


@pytest.mark.usefixtures("runs")
def test_the_baseline_can_be_chosen_and_several_comparisons_are_corrected(hpcft: Call) -> None:
    document = json.loads(hpcft("compare", "first", "second", "third", "--baseline", "second", "--json").out)
    assert document["runs"] == ["second", "first", "third"]
    figures = document["scores"]["em"]
    assert figures["first"]["difference"] == pytest.approx(-2 / 3)
    assert figures["first"]["p"] == pytest.approx(2 / 16)
    assert figures["third"]["p"] == pytest.approx(2 / 32)
    assert figures["third"]["p_holm"] == figures["first"]["p_holm"] == pytest.approx(2 / 16)
    beside = json.loads(hpcft("compare", "first", "third", "--baseline", "second", "--json").out)
    assert beside["runs"] == ["second", "first", "third"]


@pytest.mark.usefixtures("runs")
def test_right_and_wrong_answers_of_the_baseline_beside_the_others(hpcft: Call) -> None:
    out = hpcft("compare", "first", "second", "--answers", "1").out
    right, _, wrong = out.partition("first is right: 1")[2].partition("first is wrong: 1")
    assert "who [b] is 0?" in right
    assert "second      second says 0" in right
    assert "who [b] is 1?" in wrong


@pytest.mark.usefixtures("runs")
def test_brackets_in_an_answer_are_shown_on_a_terminal(hpcft: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal's tables take them for marks of their own."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = hpcft("compare", "first", "second", "--answers", "1").out
    assert "who [b] is 1?" in out


@pytest.mark.usefixtures("runs")
def test_the_comparison_is_written(hpcft: Call) -> None:
    result = hpcft("compare", "first", "second", "--out", "out/first")
    assert result.code == 0
    folder = Path("out/first")
    assert "written: out/first/comparison.json, out/first/comparison.csv, out/first/answers.md" in result.err
    assert all(file.stat().st_mode & 0o077 == 0 for file in [folder, *folder.iterdir()])
    document = json.loads((folder / "comparison.json").read_text())
    assert (len(document["answers"]), document["judged_by"]) == (6, "em")
    with (folder / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["measure"], r["run"]) for r in rows[:2]] == [("em", "first"), ("em", "second")]
    assert float(rows[1]["p"]) == pytest.approx(0.125)
    assert (
        "| who \\[b\\] is 1? | he | 0.000 | first<br>says 1 | second<br>says 1 |" in (folder / "answers.md").read_text()
    )


@pytest.mark.usefixtures("runs")
def test_what_cannot_be_compared_is_refused_and_says_what_to_do(hpcft: Call) -> None:
    write_run("fewer", [1, 0, 1], digest="d2")
    result = hpcft("compare", "first", "fewer")
    assert result.code == 2
    assert "3 are shared" in result.err
    assert "--shared-inputs" in result.err
    shared = hpcft("compare", "first", "fewer", "--shared-inputs")
    assert shared.code == 0
    assert shared.out.startswith("3 inputs")
    assert "the 3 inputs that all runs answered" in shared.err
    for words in (["first"], ["first", "results/first"], ["first", "nothing"], []):
        assert hpcft("compare", *words).code == 2, words


@pytest.mark.usefixtures("runs")
def test_answers_are_held_against_a_format(hpcft: Call) -> None:
    result = hpcft("compare", "first", "second", "--answer-format", r"first\s+says \d")
    assert "1.0000 [1.0000, 1.0000]  0.0000 [0.0000, 0.0000]" in next(
        line for line in result.out.splitlines() if line.startswith("format")
    )
    wrong = hpcft("compare", "first", "second", "--answer-format", "[")
    assert wrong.code == 2
    assert "--answer-format" in wrong.err

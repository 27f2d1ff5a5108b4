"""`hpcft data`: what is said of data sets, and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"sentence": f"film number {i}", "label": "good" if i % 2 else "bad"} for i in range(20)]


def write(path: str, rows: list[dict[str, Any]]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_c37_validate_says_nothing_of_a_good_set_and_names_the_faults_of_a_bad_one(hpcft: Callable[..., Any]) -> None:
    answer = hpcft("data", "validate", write("set.jsonl", ROWS))
    assert answer.code == 0
    assert "nothing found" in answer.out
    bad = [*ROWS, {"sentence": "", "label": "good"}, {"sentence": "a <i>b</i>", "label": "good"}]
    answer = hpcft("data", "validate", write("bad.jsonl", bad))
    assert answer.code == 65
    assert "bad.jsonl:21" in answer.out
    assert "1 row(s) (4.5 %) lack a text" in answer.out
    assert "HTML tags" in answer.out


def test_c37_validate_gives_the_report_as_json_as_a_file_and_as_a_page(hpcft: Callable[..., Any]) -> None:
    write("set.jsonl", [*ROWS, {"sentence": "<script>alert(1)</script>", "label": "good"}])
    answer = hpcft("data", "validate", "set.jsonl", "--json", "--out", "report.json", "--report", "report.html")
    told = json.loads(answer.out)
    assert told == json.loads(Path("report.json").read_text())
    assert told["issues"]["html_content"]["count"] == 1
    assert told["distribution"]["num_classes"] == 2
    page = Path("report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert os.stat("report.html").st_mode & 0o077 == 0  # noqa: PTH116


def test_c37_rules_are_keys_of_the_job(hpcft: Callable[..., Any]) -> None:
    write("set.jsonl", ROWS)
    answer = hpcft("data", "validate", "set.jsonl", "checks.min_text_length=14", "--json")
    assert json.loads(answer.out)["issues"]["length_violations"]["count"] == 10
    answer = hpcft("data", "validate", "set.jsonl", "--set", "checks.min_text_lenght=15")
    assert answer.code == 78
    assert "did you mean checks.min_text_length?" in answer.err


def test_c37_a_validation_set_is_checked_against_the_training_set(hpcft: Callable[..., Any]) -> None:
    write("train.jsonl", ROWS)
    write("held.jsonl", [*ROWS[:4], {"sentence": "another one", "label": "good"}])
    answer = hpcft("data", "validate", "train.jsonl", "--validation", "held.jsonl")
    assert answer.code == 65
    assert "4 of the 5 validation rows (80.0 %) ask what stands in the training rows" in answer.out


def test_c37_analyze_gives_the_distribution_at_its_top_and_compares_sets(hpcft: Callable[..., Any]) -> None:
    write("one.jsonl", ROWS)
    write("two.jsonl", ROWS[:3])
    told = json.loads(hpcft("data", "analyze", "one.jsonl", "--json").out)
    assert (told["total_samples"], told["label_counts"]) == (20, {"bad": 10, "good": 10})
    assert (told["imbalance_ratio"], told["is_balanced"]) == (1.0, True)
    answer = hpcft("data", "analyze", "one.jsonl", "two.jsonl", "--out", "datasets_comparison.json")
    assert [d["total_samples"] for d in json.loads(Path("datasets_comparison.json").read_text())] == [20, 3]
    assert "one.jsonl" in answer.out
    assert "two.jsonl" in answer.out


def test_c37_analyze_counts_tokens_and_what_max_length_costs(hpcft: Callable[..., Any], small_quickstart: Path) -> None:
    model = next(small_quickstart.rglob("tokenizer.json")).parent
    rows = [{"source": "word " * n, "target": "yes"} for n in (1, 2, 60)]
    answer = hpcft("data", "analyze", write("set.jsonl", rows), "--model", str(model), "--max-length", "64", "--json")
    told = json.loads(answer.out)["tokens"]
    assert (told["looked"], told["truncated"], told["dropped"], told["max_length"]) == (3, 1, 0, 64)
    assert told["quantiles"]["p50"] < 64 < told["quantiles"]["p99"]


def test_c37_clean_writes_a_set_that_validate_finds_nothing_in_and_records_it(hpcft: Callable[..., Any]) -> None:
    write("set.jsonl", [*ROWS, ROWS[0], {"sentence": " ", "label": "good"}, {"sentence": "<b>x</b>", "label": "bad"}])
    answer = hpcft("data", "clean", "set.jsonl")
    assert answer.code == 0, answer.err
    assert "removed: rows that stand further up already" in answer.out
    assert hpcft("data", "validate", "set_clean.jsonl").code == 0
    assert hpcft("data", "clean", "set.jsonl").code == 2
    told = json.loads(hpcft("data", "versions", "--json").out)
    assert [(v["dataset"], v["num_samples"], v["cleaning"]["removed"]) for v in told] == [
        ("set_clean", 21, {"duplicate_entries": 1, "empty_values": 1})
    ]


def test_tc3_clean_hands_nothing_back_where_nothing_is_left(hpcft: Callable[..., Any]) -> None:
    answer = hpcft("data", "clean", write("set.jsonl", ROWS), "checks.max_text_length=3", "--out", "out.jsonl")
    assert answer.code == 65
    assert "nothing would be left: length_violations 20" in answer.err
    assert not Path("out.jsonl").exists()
    assert not Path("results").exists()


def test_c36_versions_are_recorded_listed_and_compared(hpcft: Callable[..., Any]) -> None:
    write("set.jsonl", ROWS)
    first = hpcft("data", "version", "set.jsonl", "--name", "raw", "--description", "as it came", "--keep").out.strip()
    assert "known already" in hpcft("data", "version", "set.jsonl").err
    write("set.jsonl", [*ROWS[1:], {"sentence": "film number 3", "label": "bad"}])
    second = hpcft("data", "version", "set.jsonl").out.strip()
    assert first != second
    told = json.loads(hpcft("data", "versions", "set", "--json").out)
    assert [(f"set@{v['version']}", v["is_current"]) for v in told] == [(first, False), (second, True)]
    assert "as it came" in hpcft("data", "versions").out
    answer = hpcft("data", "diff", "set@raw", "set.jsonl", "--json")
    found = json.loads(answer.out)
    assert answer.code == 1
    assert (found["rows"], found["added"]["count"], found["removed"]["count"]) == ([20, 20], 1, 1)
    assert found["added"]["examples"] == [{"where": "set.jsonl:20", "input": "film number 3", "answer": "bad"}]
    assert hpcft("data", "diff", second, "set.jsonl").code == 0
    # The second one's rows were not kept, and its file holds others now.
    write("set.jsonl", ROWS[:5])
    answer = hpcft("data", "diff", "set@raw", second)
    assert answer.code == 65
    assert "its rows are not there any more" in answer.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("validate", "sett.jsonl"), 65, "did you mean set.jsonl?"),
        (("validate", "set.jsonl", "--rows", "0"), 2, "--rows"),
        (("clean", "set.jsonl", "two.jsonl"), 2, "one set at a time"),
        (("clean", "set.jsonl", "--out", "x.txt"), 2, "ends in '.txt'"),
        (("versions", "nobody"), 2, "no version of 'nobody'"),
        (("diff", "set.jsonl"), 2, "two are compared"),
        (("version", "quickstart", "--keep"), 2, "only a file's rows"),
        (("version", "set.jsonl", "--name", "a b"), 2, "--name"),
        (("validate", "set.jsonl", "data.input_column=nope"), 65, "has no column 'nope'"),
    ],
)
def test_c37_mistakes_are_named(hpcft: Callable[..., Any], words: tuple[str, ...], code: int, said: str) -> None:
    write("set.jsonl", ROWS)
    answer = hpcft("data", *words)
    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_looking_at_data_loads_no_model_library(project: Path) -> None:
    write("set.jsonl", ROWS)
    program = (
        "import sys; from hpcft.cli.app import app; "
        "app(['data', 'validate', 'set.jsonl'], standalone_mode=False); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'wandb', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")

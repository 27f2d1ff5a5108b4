"""Checks of data: what they find, where, and what they say to do."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.data.care import hashes
from hpcft.data.care.check import check, reader
from hpcft.data.care.near import grams, near_between, near_pairs
from hpcft.data.care.rules import faults, is_cut, mended
from hpcft.data.care.survey import survey
from hpcft.errors import DataError
from hpcft.spec.job import ChecksSection, DataSection

RULES = ChecksSection()


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def checked(dataset: str, rules: ChecksSection = RULES, **data: Any) -> dict[str, Any]:
    return check(DataSection(dataset=dataset, **data), rules)[0]


def issues(report: dict[str, Any]) -> dict[str, int]:
    return {kind: of["count"] for kind, of in report["issues"].items() if of["count"]}


def test_c34_a_check_names_every_fault_with_its_place(tmp_path: Path) -> None:
    rows = [
        {"sentence": "a warm film", "label": "good"},
        {"sentence": "  ", "label": "bad"},
        {"sentence": "caf� noir", "label": "good"},
        {"sentence": "a <b>bold</b> film", "label": "good"},
        {"sentence": "a warm film ", "label": "good"},
        {"sentence": "too short", "label": "bad"},
        {"sentence": "a cold and very long film", "label": "bad"},
        {"sentence": "the plot \x97 none", "label": None},
        {"sentence": "a bold film", "label": "bad"},
        {"sentence": "a bold film", "label": "good"},
    ]
    report = checked(
        jsonl(tmp_path / "set.jsonl", rows),
        ChecksSection(min_text_length=10, max_text_length=20),
        task="classification",
    )
    assert issues(report) == {
        "empty_values": 2,
        "encoding_issues": 1,
        "contradicting_labels": 2,
        "length_violations": 3,
        "wrong_code_page": 1,
        "html_content": 1,
        "duplicate_entries": 1,
    }
    first = {
        kind: of["examples"][0]["where"].rpartition(":")[2] for kind, of in report["issues"].items() if of["count"]
    }
    assert first == {
        "empty_values": "2",
        "encoding_issues": "3",
        "contradicting_labels": "9",
        "length_violations": "3",
        "wrong_code_page": "8",
        "html_content": "4",
        "duplicate_entries": "5",
    }
    assert [r["priority"] for r in report["recommendations"]] == ["high"] * 3 + ["medium"] * 4
    assert not report["is_clean"]


@pytest.mark.parametrize("lang", ["en", "zh-TW", "zh-CN", "ko"])
def test_c34_recommendations_speak_the_asked_language(tmp_path: Path, lang: str) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"source": "a", "target": ""}, {"source": "a", "target": "b"}])
    said = check(DataSection(dataset=path), RULES, lang=lang)[0]["recommendations"][0]
    assert said["priority"] == "high"
    words = {"en": "lack a text", "zh-TW": "缺少文字", "zh-CN": "缺少文本", "ko": "텍스트가 없습니다"}
    assert words[lang] in said["text"]
    assert "1" in said["text"]
    assert "50.0 %" in said["text"]


def test_c38_the_distribution_is_told_in_the_known_form(tmp_path: Path) -> None:
    rows = [{"sentence": f"film {i}", "label": int(i % 49 >= 24)} for i in range(500)]
    of = checked(jsonl(tmp_path / "set.jsonl", rows))["distribution"]
    counts = Counter(str(row["label"]) for row in rows)
    assert of["total_samples"] == 500
    assert of["label_counts"] == dict(counts)
    assert of["imbalance_ratio"] == round(max(counts.values()) / min(counts.values()), 2)
    assert of["is_balanced"] is True


def test_c35_an_unbalanced_set_is_named(tmp_path: Path) -> None:
    rows = [{"sentence": f"film {i}", "label": "rare" if i % 10 == 0 else "often"} for i in range(200)]
    report = checked(jsonl(tmp_path / "set.jsonl", rows))
    of = report["distribution"]
    assert (of["num_classes"], of["imbalance_ratio"], of["is_balanced"]) == (2, 9.0, False)
    assert of["label_percentages"] == {"often": 90.0, "rare": 10.0}
    assert [(r["issue"], r["priority"]) for r in report["recommendations"] if r["issue"] == "imbalance"] == [
        ("imbalance", "medium")
    ]


def test_te10_answers_that_were_cut_behind_a_bracket_and_are_nearly_all_the_same_are_two_faults(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Analyse.", "input": f"question {i}", "output": "[Global" if i % 589 == 0 else "[Local"}
        for i in range(10_000)
    ]
    report = checked(jsonl(tmp_path / "step.jsonl", rows), ChecksSection(near_rows=0))
    found = {r["issue"]: r for r in report["recommendations"]}
    assert issues(report) == {"cut_answers": 10_000}
    assert found["cut_answers"]["priority"] == found["nearly_one_answer"]["priority"] == "high"
    assert "9,983 of 10,000" in found["nearly_one_answer"]["text"]
    assert "[Local" in found["nearly_one_answer"]["text"]


def test_answers_that_all_end_at_one_length_in_mid_sentence_are_named(tmp_path: Path) -> None:
    rows = [{"source": f"q {i}", "target": ("word " * (14 + i % 9))[: 80 if i % 3 else 70 - i % 7]} for i in range(90)]
    rows = [{**row, "target": row["target"].strip().ljust(60, "x")} for row in rows]
    longest = max(len(row["target"]) for row in rows)
    report = checked(jsonl(tmp_path / "set.jsonl", rows), ChecksSection(near_rows=0))
    assert issues(report)["cut_at_length"] == sum(len(row["target"]) == longest for row in rows)


def test_smileys_and_lists_are_no_high_fault(tmp_path: Path) -> None:
    rows = [{"source": f"q {i}", "target": "fine :(" if i == 3 else f"answer {i}."} for i in range(100)]
    report = checked(jsonl(tmp_path / "set.jsonl", rows), ChecksSection(near_rows=0))
    assert report["is_clean"]
    assert [r["priority"] for r in report["recommendations"]] == ["low"]


def test_a_context_that_is_absent_is_no_fault(tmp_path: Path) -> None:
    rows = [{"instruction": f"say {i}", "input": "", "output": f"word {i}"} for i in range(20)]
    assert issues(checked(jsonl(tmp_path / "set.jsonl", rows))) == {}


def test_columns_of_any_name_are_checked(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "odd.jsonl", [{"a": "x", "b": ""}, {"a": "y", "b": "z"}])
    report = checked(path)
    assert report["task"] is None
    assert report["columns"] == {"inputs": ["a", "b"], "target": None}
    assert issues(report) == {"empty_values": 1}
    named = checked(path, input_column="a", target_column="b")
    assert (named["task"], named["columns"]) == ("generation", {"inputs": ["a"], "target": "b"})


def test_chats_and_questions_are_checked(tmp_path: Path) -> None:
    chat = [
        {"messages": [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": "[cut"}]}
        for i in range(9)
    ]
    assert issues(checked(jsonl(tmp_path / "chat.jsonl", chat)))["cut_answers"] == 9
    asked = [{"question": f"who {i}?", "answer": ["a", "b"] if i else []} for i in range(9)]
    assert issues(checked(jsonl(tmp_path / "qa.jsonl", asked))) == {"empty_values": 1}


def test_leakage_between_training_and_validation_rows_is_counted_and_shown(tmp_path: Path) -> None:
    train = jsonl(
        tmp_path / "train.jsonl", [{"source": f"the question of number {i}", "target": f"{i}"} for i in range(50)]
    )
    held = [{"source": f"the question of number {i}", "target": f"{i}"} for i in range(40, 60)]
    held.append({"source": "the question of number 1?", "target": "1"})
    trained, validation = check(DataSection(dataset=train, validation=jsonl(tmp_path / "held.jsonl", held)), RULES)
    assert trained["overlap"] is None
    assert validation["overlap"]["count"] == 10
    assert "number 40" in validation["overlap"]["examples"][0]
    assert validation["near_overlap"]["count"] >= 1
    assert next(r for r in validation["recommendations"] if r["issue"] == "overlap")["priority"] == "high"


def test_near_rows_with_other_labels_hint_at_noise(tmp_path: Path) -> None:
    words = "the acting is warm and the story is told with care from its beginning to the end"
    rows = [{"sentence": f"{words} {i}", "label": "good" if i else "bad"} for i in range(2)]
    rows += [{"sentence": f"something else entirely, number {i * 7919}", "label": "bad"} for i in range(9)]
    report = checked(jsonl(tmp_path / "set.jsonl", rows))
    assert report["near_duplicates"]["other_label"] == 1
    assert "label_noise" in {r["issue"] for r in report["recommendations"]}


def test_one_instruction_for_all_rows_does_not_make_them_alike(tmp_path: Path) -> None:
    long = "You are an assistant that performs step-by-step analysis of what a user asks. " * 3
    rows = [{"instruction": long, "input": f"{i * 7919} {chr(97 + i) * 9}", "output": f"o{i}"} for i in range(20)]
    assert checked(jsonl(tmp_path / "set.jsonl", rows))["near_duplicates"]["count"] == 0


def test_c34_an_empty_file_and_a_broken_line_are_errors_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no row"):
        checked(str(tmp_path / "none.jsonl"))
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"bad\.csv:3"):
        checked(str(tmp_path / "bad.csv"))


# The parts.


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=40))
def test_numbers_of_rows_find_what_comparing_them_finds(rows: list[tuple[int, int]]) -> None:
    asked, told = hashes.numbers(), hashes.numbers()
    asked.extend(hashes.digest(f"q{a}") for a, _ in rows)
    told.extend(hashes.digest(f"a{b}") for _, b in rows)
    assert list(hashes.repeated(asked)) == [i for i, (a, _) in enumerate(rows) if a in [x for x, _ in rows[:i]]]
    mixed = [i for i, (a, b) in enumerate(rows) if any(x == a and y != b for x, y in rows)]
    assert list(hashes.contradicted(asked, told)) == mixed


@given(st.lists(st.integers(0, 60), max_size=300))
def test_numbers_that_were_met_before_are_known_beyond_the_newest(numbers: list[int]) -> None:
    seen, known = hashes.Seen(newest=8), set()
    for number in numbers:
        assert seen.add(number) is (number not in known)
        known.add(number)


@given(st.text(max_size=60))
def test_mending_twice_is_mending_once_and_leaves_no_fault_that_it_can_take_out(text: str) -> None:
    rules = ChecksSection(remove_special_chars=False)
    once = mended(text, rules)
    assert mended(once, rules) == once
    assert not {"html_content", "wrong_code_page"} & set(faults(once, rules))


def test_mended_texts_lose_tags_entities_and_windows_controls() -> None:
    assert mended(" a <b>bold</b>\n&amp; fine\x85 film ", RULES) == "a bold & fine… film"
    assert mended("1 < 2 and 3 &lt; 4", RULES) == "1 < 2 and 3 &lt; 4"
    assert mended("so ☃ *good* §", ChecksSection(remove_special_chars=True)) == "so *good*"


@pytest.mark.parametrize(("answer", "cut"), [("[Local", True), ("f(x) = {1, 2", True), ("[a](b)", False), ("", False)])
def test_te10_a_bracket_left_open_is_seen(answer: str, cut: bool) -> None:
    assert is_cut(answer) is cut


def _similar(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def test_near_pairs_are_those_that_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(3)
    words = [f"{w}{n}" for w in ("river", "market", "garden", "harbour", "kitchen") for n in range(8)]
    texts = [" ".join(rng.choice(words, 14)) for _ in range(120)]
    for i in range(0, 60, 2):
        own = texts[i].split()
        own[int(rng.integers(len(own)))] = "changed"
        texts[60 + i // 2] = " ".join(own)
    found = {pair.second: pair.similarity for pair in near_pairs(texts, 0.7)}
    true = {
        j: max(s for i in range(j) if (s := _similar(texts[i], texts[j])) or True)
        for j in range(1, len(texts))
        if any(_similar(texts[i], texts[j]) >= 0.7 and texts[i] != texts[j] for i in range(j))
    }
    # Nothing is told that is not near; a sketch may miss a pair that just is.
    assert set(found) <= set(true)
    assert len(found) >= 0.9 * len(true) > 20
    assert all(found[j] == pytest.approx(true[j]) for j in found)
    between = {p.second: p.similarity for p in near_between(texts[:60], texts[60:], 0.7)}
    assert len(between) >= 0.9 * sum(any(_similar(a, b) >= 0.7 and a != b for a in texts[:60]) for b in texts[60:])


def test_a_pass_holds_no_rows(tmp_path: Path) -> None:
    """Streams: the places of repeated rows are found by reading again, and a limit ends the pass."""
    path = tmp_path / "many.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("source", "target"))
        writer.writerows((f"source {i % 900}", f"target {i % 900}") for i in range(1_000))
    data, reads = DataSection(dataset=str(path)), 0

    def read() -> Any:
        nonlocal reads
        reads += 1
        return reader(str(path), data)()

    found = survey(read, str(path), data, RULES)
    assert (found.rows, found.partial, reads) == (1_000, False, 2)
    assert found.issues["duplicate_entries"].count == 100
    assert found.issues["duplicate_entries"].examples[0][0].endswith(":902")
    part = survey(read, str(path), data, RULES, limit=50)
    assert (part.rows, part.partial) == (50, True)

"""Cleaning, versions, and what differs between two contents."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcft.data.care.check import check, reader
from hpcft.data.care.clean import clean
from hpcft.data.care.diff import Side, diff
from hpcft.data.care.survey import survey
from hpcft.data.care.versions import current, find_version, kept_rows, record, versions
from hpcft.data.sources import read_rows
from hpcft.errors import DataError, UsageError
from hpcft.spec.job import ChecksSection, DataSection

RULES = ChecksSection(near_rows=0)
# What cleaning takes out or puts right.
CLEANABLE = {
    "empty_values",
    "encoding_issues",
    "length_violations",
    "wrong_code_page",
    "html_content",
    "duplicate_entries",
}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def cleaned(path: str, target: Path, rules: ChecksSection = RULES) -> dict[str, Any]:
    data = DataSection(dataset=path)
    return clean(reader(path, data), path, data, rules, target).facts


def report_of(path: str, rules: ChecksSection = RULES) -> dict[str, Any]:
    return check(DataSection(dataset=path), rules)[0]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(str(path))]


messy = st.text(st.sampled_from("ab <>/&;\x85\x97�é\n"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(messy, messy), min_size=1, max_size=12), st.integers(0, 3), st.sampled_from([None, 6]))
def test_c34_a_check_of_a_cleaned_set_finds_nothing_that_cleaning_promised(
    rows: list[tuple[str, str]], least: int, most: int | None
) -> None:
    rules = ChecksSection(near_rows=0, min_text_length=least, max_text_length=most)
    with TemporaryDirectory() as folder:
        path = jsonl(Path(folder) / "set.jsonl", [{"source": a, "target": b} for a, b in rows])
        target = Path(folder) / "clean.jsonl"
        try:
            done = cleaned(path, target, rules)
        except DataError:
            # Only where nothing would be left.
            assert not target.exists()
            return
        report = report_of(str(target), rules)
        assert not [kind for kind in CLEANABLE if report["issues"][kind]["count"]]
        assert done["kept"] == report["total_samples"] == done["rows"] - sum(done["removed"].values())


def test_c34_cleaning_keeps_other_columns_and_says_what_it_removed(tmp_path: Path) -> None:
    rows = [
        {"sentence": "a <b>warm</b>   film", "label": "good", "id": 1},
        {"sentence": " ", "label": "bad", "id": 2},
        {"sentence": "a warm film", "label": "good", "id": 3},
        {"sentence": "caf�", "label": "good", "id": 4},
        {"sentence": "cold", "label": "", "id": 5},
        {"sentence": "cold", "label": "bad", "id": 6},
    ]
    done = cleaned(jsonl(tmp_path / "set.jsonl", rows), tmp_path / "clean.jsonl")
    assert rows_of(tmp_path / "clean.jsonl") == [
        {"sentence": "a warm film", "label": "good", "id": 1},
        {"sentence": "cold", "label": "bad", "id": 6},
    ]
    assert done["removed"] == {"empty_values": 2, "duplicate_entries": 1, "encoding_issues": 1}
    assert (done["rows"], done["kept"], done["changed"]) == (6, 2, 1)
    assert done["examples"]["duplicate_entries"][0]["where"].endswith("set.jsonl:3")


def test_tc3_lengths_are_cleaned_and_the_dirty_set_is_never_handed_back(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"source": "a" * n, "target": "ok"} for n in (1, 5, 9)])
    assert cleaned(path, tmp_path / "some.jsonl", ChecksSection(min_text_length=2, max_text_length=6))["kept"] == 1
    with pytest.raises(DataError, match="nothing would be left: length_violations 3"):
        cleaned(path, tmp_path / "none.jsonl", ChecksSection(min_text_length=50))
    assert not (tmp_path / "none.jsonl").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.jsonl", "some.jsonl"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json"])
def test_c34_every_format_is_written_as_it_is_read(tmp_path: Path, ending: str) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"source": 'a "b", c\td', "target": "e\nf"}, {"source": "x", "target": "y"}])
    target = tmp_path / f"clean{ending}"
    cleaned(path, target)
    assert rows_of(target) == [{"source": 'a "b", c d', "target": "e f"}, {"source": "x", "target": "y"}]
    assert target.stat().st_mode & 0o077 == 0


def test_what_a_table_cannot_hold_and_a_file_that_is_there_are_refused(tmp_path: Path) -> None:
    chat = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    path = jsonl(tmp_path / "chat.jsonl", chat)
    with pytest.raises(DataError, match=r"write a \.jsonl file"):
        cleaned(path, tmp_path / "clean.csv")
    with pytest.raises(UsageError, match="is there already"):
        cleaned(path, tmp_path / "chat.jsonl")
    with pytest.raises(UsageError, match=r"one of \.csv"):
        cleaned(path, tmp_path / "clean.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chat.jsonl"]


# Versions.


def recorded(results: Path, path: str, **more: Any) -> tuple[Any, bool]:
    return record(results, report_of(path), {"dataset": path, "path": path}, **more)


def test_tc2_changed_data_is_a_new_version_and_the_same_data_is_the_same_one(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"source": "a", "target": "b"}])
    first, new = recorded(tmp_path, path)
    again, known = recorded(tmp_path, path)
    assert (new, known) == (True, False)
    assert first.version == again.version
    jsonl(tmp_path / "set.jsonl", [{"source": "a", "target": "c"}])
    second, new = recorded(tmp_path, path)
    assert new
    assert second.version != first.version
    assert [v.version for v in versions(tmp_path, "set")] == [first.version, second.version]


def test_c36_the_same_rows_are_one_version_whatever_file_they_are_in(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]
    jsonl(tmp_path / "set.jsonl", rows)
    (tmp_path / "set.csv").write_text("target,source\nb,a\nd,c\n")
    assert report_of(str(tmp_path / "set.jsonl"))["sha256"] == report_of(str(tmp_path / "set.csv"))["sha256"]


def test_c36_a_version_says_where_it_is_from_what_was_cleaned_and_which_is_current(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"sentence": f"f {i}", "label": i % 2} for i in range(8)])
    first, _ = recorded(tmp_path, path, name="raw", description="as it came", keep=Path(path))
    jsonl(tmp_path / "set.jsonl", [{"sentence": "f", "label": 1}])
    second, _ = recorded(tmp_path, path, cleaning={"kept": 1})
    found = versions(tmp_path)
    assert [(v.name, v.description, v.num_samples) for v in found] == [("raw", "as it came", 8), ("set_1", "", 1)]
    assert found[0].report["distribution"]["label_counts"] == {"0": 4, "1": 4}
    assert found[1].cleaning == {"kept": 1}
    assert current(found) == found[1]
    kept = kept_rows(found[0], tmp_path)
    assert kept is not None
    assert len(rows_of(kept)) == 8
    assert kept.stat().st_mode & 0o077 == 0
    # The same rows again: the version is the current one again.
    jsonl(tmp_path / "set.jsonl", [{"sentence": f"f {i}", "label": i % 2} for i in range(8)])
    recorded(tmp_path, path)
    assert getattr(current(versions(tmp_path)), "version", "") == first.version
    for text in ("raw", "set@raw", first.version[:6], f"set@{first.version}"):
        assert getattr(find_version(text, tmp_path), "version", "") == first.version
    assert find_version("nobody", tmp_path) is None
    with pytest.raises(UsageError, match="is called 'raw'"):
        recorded(tmp_path, jsonl(tmp_path / "set.jsonl", [{"sentence": "g", "label": 0}]), name="raw")
    assert second.version in {v.version for v in versions(tmp_path)}


# Differences.

pair_lists = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), min_size=1, max_size=20)


@settings(deadline=None)
@given(pair_lists, pair_lists)
def test_c36_a_diff_counts_the_rows_that_came_and_went(one: list[tuple[str, str]], two: list[tuple[str, str]]) -> None:
    def side(pairs: list[tuple[str, str]]) -> Side:
        rows = [(f"row {i}", {"source": a, "target": b}) for i, (a, b) in enumerate(pairs, 1)]
        return Side("s", survey(lambda: rows, "s", DataSection(dataset="s"), RULES), lambda: rows)

    found = diff(side(one), side(two))
    removed, added = Counter(one) - Counter(two), Counter(two) - Counter(one)
    assert found["removed"]["count"] == removed.total()
    assert found["added"]["count"] == added.total()
    assert found["changed"]["count"] == len({a for a, _ in removed} & {a for a, _ in added})
    assert found["same_rows"] is (Counter(one) == Counter(two))
    assert found["same"] is (one == two)
    told = Counter((e["input"], e["answer"]) for e in found["added"]["examples"])
    assert not told - added

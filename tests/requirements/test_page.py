"""The table of requirements: whole, true, and the page in the docs made from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from requirements.page import ROWS, TESTS, Case, Table, faults, held_by, page, read_table, read_tests, rows_in, without

KNOWN = ["A1", "A2", "A3", "B1", "TE1"]


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table()


@pytest.fixture(scope="module")
def tests() -> list[Case]:
    return read_tests()


def test_every_row_has_a_test_or_a_reason_and_no_test_names_an_unknown_one(table: Table, tests: list[Case]) -> None:
    wrong = faults(table, tests)
    assert wrong == [], "\n".join(wrong)


def test_the_page_in_the_docs_is_the_newest(table: Table, tests: list[Case]) -> None:
    assert (TESTS.parent / "docs" / "requirements.md").read_text() == page(table, tests), "run: make requirements"


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("a1_pictures_of_b1", ["A1"]),
        ("a1_b1_te1_several", ["A1", "B1", "TE1"]),
        ("a1_to_a3_te1_a_range", ["A1", "A2", "A3", "TE1"]),
        ("e2e_is_no_row", []),
        ("to_a3_is_no_range", []),
    ],
)
def test_a_name_begins_with_its_rows(name: str, rows: list[str]) -> None:
    assert rows_in(name.split("_"), KNOWN) == rows


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a9_x", "no row A9"),
        ("a1_to_x", "from A1 on"),
        ("a3_to_a1_x", "A3 to A1"),
        ("a3_to_b1_x", "A3 to B1"),
    ],
)
def test_a_row_or_a_range_that_there_is_not_is_told(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rows_in(name.split("_"), KNOWN)


def test_a_row_that_loses_its_test_is_told(table: Table, tests: list[Case]) -> None:
    left = [test for test in tests if not test.name.startswith("test_a25_")]
    assert len(left) < len(tests)
    assert any(line.startswith("A25 ") and "has no test" in line for line in faults(table, left))


def test_a_note_that_is_not_true_any_more_is_told(table: Table, tests: list[Case]) -> None:
    row = next(iter(table.not_yet))
    more = [*tests, Case(f"test_{row.lower()}_it_is_there", Path("test_new.py"), False)]
    assert [line for line in faults(table, more) if line.startswith(f"{row} has a test now")]


def test_a_row_that_has_a_test_by_now_is_taken_from_those_that_have_none(table: Table) -> None:
    text, known = ROWS.read_text(), list(table.rows)
    assert without(text, [], known) == text
    small = "parts:\n\nnot_yet:\n  later: A1 to A3 B1 TE1\n  soon: B1\n\nlacking: {}\n"
    assert without(small, ["A2", "B1"], KNOWN) == "parts:\n\nnot_yet:\n  later: A1 A3 TE1\n\nlacking: {}\n"
    assert without(small, ["B1"], KNOWN) == "parts:\n\nnot_yet:\n  later: A1 to A3 TE1\n\nlacking: {}\n"


def test_tests_are_read_with_their_marks(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(
        "import pytest\n\n\n@pytest.mark.slow\ndef test_a1_drill():\n    pass\n\n\n"
        "class TestIt:\n    def test_a2_inside(self):\n        pass\n\n\ndef helper():\n    pass\n"
    )
    (tmp_path / "test_two.py").write_text("import pytest\n\npytestmark = [pytest.mark.slow]\n\n\ndef test_x(): ...\n")
    (tmp_path / "page.py").write_text("def test_a3_not_in_a_file_of_tests(): ...\n")
    found = {(test.name, test.slow) for test in read_tests(tmp_path)}
    assert found == {("test_a1_drill", True), ("test_a2_inside", False), ("test_x", True)}


def test_a_range_holds_each_of_its_rows(table: Table) -> None:
    held, wrong = held_by([Case("test_a20_to_a22_x", Path("test_x.py"), False)], table)
    assert (list(held), wrong) == (["A20", "A21", "A22"], [])

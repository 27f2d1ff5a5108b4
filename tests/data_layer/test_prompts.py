"""The texts around a source."""

from __future__ import annotations

import pytest

from hpcft.data.kinds import Columns
from hpcft.data.prompts import PROMPTS, prompt_for


def test_the_e2e_prompt_word_for_word() -> None:
    assert PROMPTS["e2e"].text("name[X]") == (
        "### Instruction: Generate a natural language description from the following structured data.\n\n"
        "### Input:\nname[X]\n\n### Output:\n"
    )


def test_the_summarize_prompt_word_for_word() -> None:
    assert PROMPTS["summarize"].text("A: hi") == (
        "### Instruction: Summarize the following dialogue.\n\n### Dialogue:\nA: hi\n\n### Summary:\n"
    )


def test_the_plain_prompt_is_the_source_and_a_line_end() -> None:
    assert PROMPTS["plain"].text("x") == "x\n"


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("mr", "e2e"),
        ("meaning_representation", "e2e"),
        ("dialogue", "summarize"),
        ("instruction", "instruction"),
        ("anything", "plain"),
    ],
)
def test_auto_goes_by_the_column(column: str, name: str) -> None:
    assert prompt_for("auto", Columns("generation", column, None, "x")).name == name


def test_a_named_prompt_beats_the_column() -> None:
    assert prompt_for("plain", Columns("generation", "dialogue", None, "x")).name == "plain"
    assert prompt_for("summarize", Columns("generation", "mr", None, "x")).name == "summarize"


def test_a_source_with_braces_is_taken_as_it_is() -> None:
    assert "{mr} {0} %s" in PROMPTS["e2e"].text("{mr} {0} %s")

"""The corpus of mistakes: nearly all are caught before sbatch with place, matter and way out, and none tracebacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mistakes.grade import Grade, corpus, make, page


@pytest.fixture(scope="module")
def grades() -> list[Grade]:
    return [make(mistake) for mistake in corpus() if mistake.fault is None]


def test_u3_of_more_than_200_mistakes_at_least_195_in_200_are_as_they_should_be(grades: list[Grade]) -> None:
    assert len(grades) >= 200
    made = {(m.typed, str(m.files), str(m.environment)) for m in corpus() if m.fault is None}
    assert len(made) == len(grades), "no mistake stands twice"
    right = sum(not g.faults for g in grades)
    assert right / len(grades) >= 195 / 200, page(grades)


def test_u3_no_mistake_ends_in_a_traceback(grades: list[Grade]) -> None:
    assert [g.mistake.name for g in grades if "Traceback" in g.said] == []


def test_u3_no_mistake_leaves_a_run_behind(grades: list[Grade]) -> None:
    assert [g.mistake.name for g in grades if g.submitted] == []


@pytest.mark.parametrize("mistake", [m for m in corpus() if m.fault], ids=lambda m: m.fault)
def test_u3_what_slurm_refuses_is_told_with_the_key_to_change(fake_slurm: Any, mistake: Any, project: Path) -> None:
    grade = make(mistake, fake_slurm)
    assert grade.faults == [], grade.said


def test_the_page_in_the_docs_counts_this_corpus(grades: list[Grade]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "mistakes.md").read_text()
    assert f"| all | {len(grades)} | {sum(not g.faults for g in grades)} | 0 |" in text, "run: make mistakes"

"""Scores of answers to questions and of classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.measure.scores import classification_scores, qa_scores


@pytest.mark.parametrize(
    ("found", "accepted", "em", "f1"),
    [
        ("The Beatles!", ["beatles"], 1, 1),
        ("Paris", ["London", "Paris, France"], 0, 2 / 3),
        ("14 December 1972", ["December 1972", "14 December 1972 UTC"], 0, 6 / 7),
        ("", ["x"], 0, 0),
        ("the", ["a"], 1, 1),
        ("東京都", ["東京"], 0, 0.8),
        ("Ünïted", ["ünïted"], 1, 1),
    ],
)
def test_the_best_accepted_answer_counts(found: str, accepted: list[str], em: float, f1: float) -> None:
    scores = qa_scores([found], [accepted]).scores
    assert scores["em"] == em
    assert scores["f1"] == pytest.approx(f1)


def test_te5_scores_are_means_over_the_questions() -> None:
    scores = qa_scores(["a b", "c"], [["a b"], ["d"]]).scores
    assert scores == {"em": 0.5, "f1": 0.5, "num_samples": 2}


def test_a_question_without_an_accepted_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="accepted answer"):
        qa_scores(["a"], [[]])


@given(st.lists(st.tuples(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3)), min_size=1))
def test_scores_lie_between_zero_and_one_and_a_match_is_a_full_overlap(rows: list[tuple[str, list[str]]]) -> None:
    scores = qa_scores([r[0] for r in rows], [r[1] for r in rows]).scores
    assert 0 <= scores["em"] <= scores["f1"] + 1e-12 <= 1 + 1e-9


def test_accuracy_and_macro_f1_by_hand() -> None:
    # a: 2 hits of 3 said and 2 there; b: 1 of 1 and 2; c: 0 of 1 and 1
    found, right = list("aaabc"), list("aabbx")
    result = classification_scores(found, right, list("abcx"))
    assert result.scores["accuracy"] == 3 / 5
    f1 = [2 * 2 / (3 + 2), 2 * 1 / (1 + 2), 0.0, 0.0]
    assert result.scores["f1_macro"] == pytest.approx(sum(f1) / 4)
    assert result.provenance["labels"]["a"]["support"] == 2

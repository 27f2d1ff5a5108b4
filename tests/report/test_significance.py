"""Paired tests against their definitions, counted out or worked by hand."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.significance import PairedTest
from scipy.stats import norm

from hpcft.report.significance import bleu_p, holm, paired_p

WORDS = ["the", "a", "pub", "serves", "food", "cheap", "river", "near", "good", "bad", "place", "city", "old", "new"]


def counted_out(first: list[float], second: list[float]) -> float:
    """Share of all sign patterns whose mean difference is at least as large as the measured one."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    measured = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(total >= measured - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_a_paired_p_value_of_few_inputs_is_exact(n: int) -> None:
    rng = random.Random(n)
    first, second = [rng.random() for _ in range(n)], [rng.random() for _ in range(n)]
    assert paired_p(first, second) == pytest.approx(counted_out(first, second))


def test_six_wins_of_six_by_hand() -> None:
    assert paired_p([1] * 6, [0] * 6) == pytest.approx(2 / 2**6)
    assert paired_p([0] * 6, [1] * 6) == pytest.approx(2 / 2**6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_identical_values_do_not_differ(values: list[float]) -> None:
    assert paired_p(values, values) == 1.0


def test_many_inputs_give_the_p_value_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(5)
    first, noise = rng.random(400), rng.normal(0.02, 0.2, 400)
    # Under random signs the sum of the differences has the variance of the sum of their squares.
    expected = 2 * norm.sf(abs(noise.sum()) / np.sqrt((noise**2).sum()))
    assert paired_p((first + noise).tolist(), first.tolist()) == pytest.approx(expected, abs=0.015)


def test_under_the_null_hypothesis_one_in_twenty_is_below_five_percent() -> None:
    rng = np.random.default_rng(7)
    p = [paired_p(*rng.random((2, 10)).tolist()) for _ in range(400)]
    below = sum(value <= 0.05 for value in p) / len(p)
    assert 0.02 <= below <= 0.08


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def by_sacrebleu(first: list[str], second: list[str], right: list[str]) -> float:
    systems: list[tuple[str, Sequence[str]]] = [("first", first), ("second", second)]
    test = PairedTest(systems, {"BLEU": sacrebleu.BLEU()}, [right], "ar", n_samples=10_000)
    return float(test()[1]["BLEU"][1].p_value)


def test_bleu_is_tested_by_sacrebleus_own_paired_randomisation() -> None:
    first, second, right = sentences(30, 1), sentences(30, 2), sentences(30, 3)
    assert bleu_p(first, second, [[r] for r in right]) == by_sacrebleu(first, second, right)


def test_bleu_of_the_same_answers_does_not_differ() -> None:
    """sacrebleu counts only trials with a larger difference than the measured one, and there is none."""
    said, right = sentences(40, 1), sentences(40, 2)
    assert by_sacrebleu(said, said, right) < 0.001
    assert bleu_p(said, said, [[r] for r in right]) == 1.0


def test_bleu_has_no_p_value_where_too_few_answers_differ() -> None:
    """Of one answer that differs, every sign pattern gives the measured difference: p is 1."""
    said, right = sentences(40, 1), sentences(40, 2)
    changed = [right[0], *said[1:]]
    assert by_sacrebleu(said, changed, right) < 0.001
    assert bleu_p(said, changed, [[r] for r in right]) is None
    p = bleu_p(said, [*right[:15], *said[15:]], [[r] for r in right])
    assert p is not None
    assert p < 0.01


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.02}) == {"a": 0.02}
    assert holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: dict[str, float]) -> None:
    adjusted = holm(p)
    assert all(p[name] <= adjusted[name] <= 1 for name in p)
    ranked = sorted(p, key=lambda name: p[name])
    assert [adjusted[name] for name in ranked] == sorted(adjusted.values())


def test_importing_the_module_is_cheap() -> None:
    code = (
        "import sys, hpcft.report.significance, hpcft.report.compare, hpcft.report.compare_files\n"
        "print([m for m in ('scipy', 'sacrebleu', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Intervals against closed forms, and against how often they hold the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import sacrebleu
from scipy.stats import binom

from hpcft.measure.scores import classification_scores
from hpcft.measure.uncertainty import bleu_interval, mean_interval, score_interval


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = mean_interval(values.tolist(), 5000, 0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    """A resample of k ones among n draws a binomial number of them."""
    low, high = mean_interval([1.0] * 30 + [0.0] * 70, 20_000, 0)
    assert (low, high) == pytest.approx([q / 100 for q in binom.ppf([0.025, 0.975], 100, 0.3)], abs=0.0101)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    held = [low <= 0.5 <= high for low, high in (mean_interval(rng.random(60).tolist(), 400, i) for i in range(400))]
    assert 0.91 <= sum(held) / len(held) <= 0.98


@pytest.mark.parametrize("values", [[0.25], [1.0, 1.0, 1.0]])
def test_values_that_do_not_vary_have_an_interval_of_no_width(values: list[float]) -> None:
    assert mean_interval(values, 100, 0) == (values[0], values[0])


def test_an_interval_is_the_same_each_time() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    assert mean_interval(values, 500, 4) == mean_interval(values, 500, 4)


def test_the_interval_of_any_score_is_that_of_the_mean_where_it_is_the_mean() -> None:
    values = np.random.default_rng(1).random(200)
    by_score = score_interval(200, lambda chosen: float(values[chosen].mean()), 4000, 0)
    assert by_score == pytest.approx(mean_interval(values.tolist(), 4000, 0), abs=0.004)


def test_the_interval_of_macro_f1_holds_it() -> None:
    right = ["a", "b"] * 50
    said = [r if i % 3 else "a" for i, r in enumerate(right)]

    def macro(chosen: Sequence[int]) -> float:
        found = classification_scores([said[i] for i in chosen], [right[i] for i in chosen], ["a", "b"])
        return found.scores["f1_macro"]

    low, high = score_interval(100, macro, 500, 0)
    assert 0 <= low < macro(range(100)) < high <= 1


def test_bleus_interval_is_sacrebleus_with_several_references() -> None:
    said = ["The Ivy Mill is a cheap pub by the riverside.", "Visit The Oak Barn for food.", "A quiet place it is."] * 5
    right = [
        ["The Ivy Mill is a pub by the riverside.", "A cheap pub."],
        ["For food visit The Oak Barn."],
        ["It is."],
    ] * 5
    streams = [[r[k] if k < len(r) else None for r in right] for k in range(2)]
    metric = sacrebleu.BLEU()
    by_hand = metric.corpus_score(said, streams, n_bootstrap=300)
    low, high = bleu_interval(said, right, 300)
    assert (low + high) / 2 == pytest.approx(by_hand._mean / 100, abs=1e-4)
    assert (high - low) / 2 == pytest.approx(by_hand._ci / 100, abs=1e-4)
    assert low < by_hand.score / 100 < high

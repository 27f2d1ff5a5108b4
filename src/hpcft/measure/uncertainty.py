"""How sure a score is: bootstrap intervals of means, of corpus BLEU and of any other score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcft.report.significance import CONFIDENCE, bleu_interval, mean_interval

__all__ = ["CONFIDENCE", "bleu_interval", "mean_interval", "score_interval"]


def score_interval(
    count: int, score: Callable[[Sequence[int]], float], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a score of all samples together, such as macro F1.

    Args:
        count: samples. score: of a choice of samples, by their numbers.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = [score(rng.integers(0, count, count).tolist()) for _ in range(resamples)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)

"""How sure a score is: bootstrap intervals, and a paired test of two models on the same inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float], resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979) of a mean.

    Args:
        values: one a sample. resamples: draws of as many values, with replacement.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if len(values) < 2 or min(values) == max(values):
        # Nothing that could vary; a bootstrap says the same with a warning.
        return float(values[0]), float(values[0])
    found = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
        batch=100,
    ).confidence_interval
    return float(found.low), float(found.high)


def score_interval(
    count: int, score: Callable[[Sequence[int]], float], resamples: int, seed: int
) -> tuple[float, float]:
    """The same for a score of all samples together, such as macro F1.

    Args:
        count: samples. score: of a choice of samples, by their numbers.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = [score(rng.integers(0, count, count).tolist()) for _ in range(resamples)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def bleu_interval(
    predictions: Sequence[str], references: Sequence[Sequence[str]], resamples: int
) -> tuple[float, float]:
    """95 % interval of corpus BLEU by sacrebleu's own bootstrap (Koehn 2004), on 0 to 1."""
    from sacrebleu.metrics import BLEU

    from hpcft.measure.scores import reference_streams

    metric = BLEU()
    score = metric.corpus_score(list(predictions), reference_streams(references), n_bootstrap=resamples)
    told = json.loads(score.format(is_json=True, signature=metric.get_signature().format()))
    middle, half = told["confidence_mean"] / 100, told["confidence_var"] / 100
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_p(first: Sequence[float], second: Sequence[float], resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the difference of two means over the same inputs, by changing signs at random
    (Fisher's permutation test; exact when there are fewer sign patterns than `resamples`).

    Args:
        first, second: n values each, of the same inputs in the same order.
    """
    import numpy as np
    from scipy.stats import permutation_test

    differences = [a - b for a, b in zip(first, second, strict=True)]
    if not any(differences):
        return 1.0
    return float(
        permutation_test(
            (np.asarray(first, dtype=float), np.asarray(second, dtype=float)),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=resamples,
            rng=np.random.default_rng(seed),
        ).pvalue
    )

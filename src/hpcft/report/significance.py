"""Whether a score is sure, and whether two models' scores differ: bootstrap intervals and paired tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

CONFIDENCE = 0.95

# So many inputs must tell two models' BLEU apart before sacrebleu's test is asked. It does not count a trial that
# gives just the measured difference, as 2 of 2ⁿ sign patterns do; with 15 inputs that is less than one in 10,000.
_BLEU_LEAST = 15


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


def reference_streams(references: Sequence[Sequence[str]]) -> Any:
    """References as sacrebleu takes them: the k-th of every input together, None where an input has fewer."""
    most = max(len(r) for r in references)
    return [[r[k] if k < len(r) else None for r in references] for k in range(most)]


def bleu_interval(
    predictions: Sequence[str], references: Sequence[Sequence[str]], resamples: int
) -> tuple[float, float]:
    """95 % interval of corpus BLEU by sacrebleu's own bootstrap (Koehn 2004), on 0 to 1."""
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(list(predictions), reference_streams(references), n_bootstrap=resamples)
    told = json.loads(score.format(is_json=True, signature=metric.get_signature().format()))
    # sacrebleu leaves both out where every resampling scores 0.
    middle, half = told.get("confidence_mean", 0.0) / 100, told.get("confidence_var", 0.0) / 100
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_p(first: Sequence[float], second: Sequence[float], resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the difference of two means over the same inputs, by changing signs at random
    (Fisher's permutation test; exact when there are fewer sign patterns than `resamples`).

    Args:
        first, second: n values each, of the same inputs in the same order.
    """
    import numpy as np
    from scipy.stats import permutation_test

    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if not differences.any():
        return 1.0
    return float(
        permutation_test(
            (differences,),
            np.mean,
            # Of one sample the signs are changed.
            permutation_type="samples",
            vectorized=True,
            n_resamples=resamples,
            # Some 30 MB at once.
            batch=max(1, 4_000_000 // len(differences)),
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def bleu_p(
    first: Sequence[str], second: Sequence[str], references: Sequence[Sequence[str]], resamples: int = 10_000
) -> float | None:
    """Two-sided p-value of the difference of two corpus BLEUs by sacrebleu's paired approximate randomisation
    (Riezler and Maxwell 2005).

    Args:
        first, second: n predictions each, of the same inputs in the same order.

    Returns:
        The p-value; 1 where no input tells the two apart; None where fewer than 15 do, too few for that test.
    """
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    metric = BLEU(effective_order=True)

    def counted(text: str, right: Sequence[str]) -> tuple[Any, ...]:
        found = metric.sentence_score(text, list(right))
        return (*found.counts, *found.totals, found.sys_len, found.ref_len)

    apart = sum(a != b and counted(a, r) != counted(b, r) for a, b, r in zip(first, second, references, strict=True))
    if apart == 0:
        return 1.0
    if apart < _BLEU_LEAST:
        return None
    systems: list[tuple[str, Sequence[str]]] = [("first", first), ("second", second)]
    test = PairedTest(systems, {"BLEU": BLEU()}, reference_streams(references), "ar", n_samples=resamples)
    _, scores = test()
    result: Any = scores["BLEU"][1]
    return float(result.p_value)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several comparisons, raised so that the chance of even one false alarm among them stays as it is
    for one (Holm 1979).

    Args:
        p_values: name of a comparison → its own p-value.
    """
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}

"""Scores of generated texts, on 0 to 1, by the field's own libraries and without a network."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

log = logging.getLogger(__name__)

_ROUGE_WORD = re.compile("[a-zA-Z0-9]")


@dataclass(frozen=True)
class GenerationScores:
    """Scores and how they were made.

    Attributes:
        scores: `bleu, rouge1, rouge2, rougeL, meteor, num_samples`.
        provenance: signatures, versions, numbers of references, METEOR's kind of matching.
    """

    scores: dict[str, float]
    provenance: dict[str, Any]


def generation_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> GenerationScores:
    """Score predictions against one or more references each.

    BLEU (Papineni et al. 2002) is sacrebleu's over the whole corpus with all references of each input; inputs may
    have different numbers of them. ROUGE-1/2/L are F1, METEOR (Banerjee and Lavie 2005) is nltk's; for both the
    best reference of each input counts, and the mean over inputs is given.

    Args:
        predictions: n texts; an empty one scores 0.
        references: n sequences of at least one text.

    Raises:
        ValueError: the lengths differ, or an input has no reference.
    """
    if len(predictions) != len(references) or not all(references):
        raise ValueError("each prediction needs at least one reference")
    if not predictions:
        return GenerationScores({"num_samples": 0}, {})
    bleu, signature = _bleu(predictions, references)
    meteor, matching = _meteor(predictions, references)
    counts = [len(r) for r in references]
    return GenerationScores(
        scores={
            "bleu": bleu,
            **_rouge(predictions, references),
            "meteor": meteor,
            "num_samples": len(predictions),
        },
        provenance={
            "bleu_signature": signature,
            "rouge": "F1, stemmed, best reference",
            "rouge_tokens": "words of a-z and 0-9, lower case",
            "meteor": "best reference",
            "meteor_tokens": "13a, lower case",
            "meteor_matching": matching,
            "references_min": min(counts),
            "references_max": max(counts),
            "versions": {name: version(name) for name in ("sacrebleu", "rouge-score", "nltk")},
        },
    )


def _bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    most = max(len(r) for r in references)
    # One stream for the k-th reference of every input; None where an input has fewer.
    streams: Any = [[r[k] if k < len(r) else None for r in references] for k in range(most)]
    metric = BLEU()
    score = metric.corpus_score(list(predictions), streams)
    # The geometric mean of a perfect score is a rounding error above 100.
    return min(score.score / 100, 1.0), str(metric.get_signature())


def _rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    blind = sum(not any(_ROUGE_WORD.search(text) for text in texts) for texts in references)
    if blind:
        log.warning(
            "ROUGE knows only words of a-z and 0-9: %d of %d inputs have no such reference and score 0",
            blind,
            len(references),
        )
    best = [scorer.score_multi(list(r), p) for p, r in zip(predictions, references, strict=True)]
    return {kind: sum(b[kind].fmeasure for b in best) / len(best) for kind in kinds}


class _NoSynonyms:
    """Stands for WordNet where it is not installed: METEOR then matches exact words and stems."""

    def synsets(self, word: str) -> list[Any]:
        return []


@functools.cache
def _wordnet() -> tuple[Any, str]:
    from nltk.corpus import wordnet
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return _NoSynonyms(), "exact+stem"
    except (OSError, ValueError, WordNetError) as error:
        # Installed in part: some packages leave out files that nltk reads.
        log.warning("WordNet is installed and cannot be read, METEOR goes without synonyms: %s", error)
        return _NoSynonyms(), "exact+stem"
    return wordnet, "exact+stem+synonym"


def _meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    from nltk.translate.meteor_score import meteor_score
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    # BLEU's tokeniser, which needs no data files.
    words = Tokenizer13a()
    wordnet, matching = _wordnet()
    total = 0.0
    for prediction, texts in zip(predictions, references, strict=True):
        if prediction.strip():
            split = [words(text).split() for text in texts]
            total += float(meteor_score(split, words(prediction).split(), wordnet=wordnet))
    return total / len(predictions), matching

"""Scores of answers by the rules of their task, on 0 to 1, by the field's own libraries and without a network."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from hpcft.report.significance import reference_streams

log = logging.getLogger(__name__)

_ROUGE_WORD = re.compile("[a-zA-Z0-9]")


@dataclass(frozen=True)
class Scores:
    """Scores and how they were made.

    Attributes:
        scores: generation `bleu, rouge1, rouge2, rougeL, meteor`, questions `em, f1`, classes `accuracy, f1_macro`;
            always `num_samples`.
        provenance: signatures, versions, numbers of references, METEOR's kind of matching.
        each: of the scores that are means over inputs, each input's own value, in their order.
    """

    scores: dict[str, float]
    provenance: dict[str, Any]
    each: dict[str, list[float]] = field(default_factory=dict)


def generation_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
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
        return Scores({"num_samples": 0}, {})
    bleu, signature = _bleu(predictions, references)
    each = _rouge(predictions, references)
    each["meteor"], matching = _meteor(predictions, references)
    counts = [len(r) for r in references]
    return Scores(
        scores={"bleu": bleu, **_means(each), "num_samples": len(predictions)},
        each=each,
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


def qa_scores(predictions: Sequence[str], accepted: Sequence[Sequence[str]]) -> Scores:
    """Exact match and token F1 of answers (Rajpurkar et al. 2016): the best accepted answer of each question counts.

    Both sides are lower-cased, without punctuation, English articles and extra blanks; scripts that are written
    without blanks between words are compared by characters.

    Args:
        predictions: n answers. accepted: n sequences of at least one answer.

    Raises:
        ValueError: the lengths differ, or a question has no accepted answer.
    """
    if len(predictions) != len(accepted) or not all(accepted):
        raise ValueError("each prediction needs at least one accepted answer")
    if not predictions:
        return Scores({"num_samples": 0}, {})
    each: dict[str, list[float]] = {"em": [], "f1": []}
    for prediction, answers in zip(predictions, accepted, strict=True):
        found = _answer_tokens(prediction)
        right = [_answer_tokens(answer) for answer in answers]
        each["em"].append(float(found in right))
        each["f1"].append(max(_token_f1(found, tokens) for tokens in right))
    counts = [len(answers) for answers in accepted]
    return Scores(
        scores={**_means(each), "num_samples": len(predictions)},
        each=each,
        provenance={
            "qa_tokens": "lower case, no punctuation, no a/an/the; Han, kana, Thai by characters",
            "references_min": min(counts),
            "references_max": max(counts),
        },
    )


def classification_scores(predictions: Sequence[str], references: Sequence[str], labels: Sequence[str]) -> Scores:
    """Accuracy and the mean of the labels' F1, each label with the same weight.

    Args:
        predictions, references: n labels each.
        labels: all of them; one that occurs on neither side is left out of the mean, as scikit-learn does.

    Raises:
        ValueError: the lengths differ.
    """
    pairs = list(zip(predictions, references, strict=True))
    if not pairs:
        return Scores({"num_samples": 0}, {})
    per_label: dict[str, dict[str, float]] = {}
    for label in labels:
        hits = sum(p == r == label for p, r in pairs)
        said, there = sum(p == label for p, _ in pairs), sum(r == label for _, r in pairs)
        if said or there:
            per_label[label] = {
                "precision": hits / said if said else 0.0,
                "recall": hits / there if there else 0.0,
                "f1": 2 * hits / (said + there),
                "support": there,
            }
    macro = sum(figures["f1"] for figures in per_label.values()) / len(per_label)
    each = {"accuracy": [float(p == r) for p, r in pairs]}
    return Scores(
        scores={**_means(each), "f1_macro": macro, "num_samples": len(pairs)},
        provenance={"labels": per_label},
        each=each,
    )


def _means(each: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) / len(values) for name, values in each.items()}


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# Scripts without blanks between words: Thai, Lao, kana, Han; each character is a token.
_UNSPACED = re.compile("([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")


def _answer_tokens(text: str) -> list[str]:
    plain = "".join(c for c in text.lower() if unicodedata.category(c)[0] not in "PS")
    return _UNSPACED.sub(r" \1 ", _ARTICLES.sub(" ", plain)).split()


def _token_f1(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    shared = sum((Counter(found) & Counter(right)).values())
    return 2 * shared / (len(found) + len(right))


def _bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(list(predictions), reference_streams(references))
    # The geometric mean of a perfect score is a rounding error above 100.
    return min(score.score / 100, 1.0), str(metric.get_signature())


def _rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, list[float]]:
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
    return {kind: [float(b[kind].fmeasure) for b in best] for kind in kinds}


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


def _meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[float], str]:
    from nltk.translate.meteor_score import meteor_score
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    # BLEU's tokeniser, which needs no data files.
    words = Tokenizer13a()
    wordnet, matching = _wordnet()
    each: list[float] = []
    for prediction, texts in zip(predictions, references, strict=True):
        split = [words(text).split() for text in texts]
        said = words(prediction).split()
        each.append(float(meteor_score(split, said, wordnet=wordnet)) if said else 0.0)
    return each, matching

"""Scores are those of the field's libraries called by hand."""

from __future__ import annotations

import pytest
import sacrebleu
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from hpcft.measure.scores import generation_scores

PREDICTIONS = ["The Ivy Mill is a cheap pub by the riverside.", "Visit The Oak Barn for food.", "A quiet place."]
REFERENCES = [
    ["The Ivy Mill is a pub by the riverside. It is cheap.", "By the riverside there is a cheap pub, The Ivy Mill."],
    ["For food visit The Oak Barn."],
    ["It is a quiet place.", "A quiet, small place.", "A place that is quiet."],
]


def test_b28_keys_and_scale() -> None:
    scores = generation_scores(PREDICTIONS, REFERENCES).scores
    assert list(scores) == ["bleu", "rouge1", "rouge2", "rougeL", "meteor", "num_samples"]
    assert all(0 <= scores[k] <= 1 for k in scores if k != "num_samples")
    assert scores["num_samples"] == 3


def test_bleu_is_sacrebleus_with_all_references() -> None:
    streams = [[r[k] if k < len(r) else None for r in REFERENCES] for k in range(3)]
    by_hand = sacrebleu.corpus_bleu(PREDICTIONS, streams).score / 100
    assert generation_scores(PREDICTIONS, REFERENCES).scores["bleu"] == pytest.approx(by_hand)


def test_rouge_is_the_best_reference_of_each_input() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    best = [
        max(scorer.score(r, p)["rougeL"].fmeasure for r in rs) for p, rs in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    assert generation_scores(PREDICTIONS, REFERENCES).scores["rougeL"] == pytest.approx(sum(best) / 3)


def test_meteor_is_nltks_and_says_how_it_matched() -> None:
    result = generation_scores(["a quiet place"], [["a quiet place", "nothing"]])

    class NoSynonyms:
        def synsets(self, word: str) -> list[str]:
            return []

    by_hand = meteor_score([["a", "quiet", "place"], ["nothing"]], ["a", "quiet", "place"], wordnet=NoSynonyms())
    assert result.scores["meteor"] == pytest.approx(by_hand)
    assert result.provenance["meteor_matching"] in ("exact+stem", "exact+stem+synonym")


def test_tb6_several_references_score_higher_than_the_first_alone() -> None:
    several = generation_scores(PREDICTIONS, REFERENCES).scores
    first = generation_scores(PREDICTIONS, [r[:1] for r in REFERENCES]).scores
    assert several["bleu"] > first["bleu"]
    assert several["rougeL"] >= first["rougeL"]


def test_an_empty_prediction_scores_nothing_and_breaks_nothing() -> None:
    scores = generation_scores(["", "   "], [["a b c"], ["d"]]).scores
    assert scores["rougeL"] == scores["meteor"] == scores["bleu"] == 0


def test_an_input_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        generation_scores(["a"], [[]])

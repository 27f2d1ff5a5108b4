"""Scores are those of the field's libraries called by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from hpcft.measure.scores import generation_scores

KEYS = ["bleu", "rouge1", "rouge2", "rougeL", "meteor", "num_samples"]
PREDICTIONS = ["The Ivy Mill is a cheap pub by the riverside.", "Visit The Oak Barn for food.", "A quiet place."]
REFERENCES = [
    ["The Ivy Mill is a pub by the riverside. It is cheap.", "By the riverside there is a cheap pub, The Ivy Mill."],
    ["For food visit The Oak Barn."],
    ["It is a quiet place.", "A quiet, small place.", "A place that is quiet."],
]


class NoSynonyms:
    def synsets(self, word: str) -> list[str]:
        return []


@pytest.fixture
def tiny_wordnet(tmp_path: Path) -> Path:
    """A WordNet of one set of synonyms, in the layout of the real one; returns the folder for NLTK_DATA."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for pos in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{pos}", f"index.{pos}", f"{pos}.exc"):
            (folder / name).write_text("")
    # nltk looks synonyms up by the stems that its step before left, so words that are their own stems.
    words = ("auto", "car")
    (folder / "lexnames").write_text("00\tnoun.artifact\t1\n")
    (folder / "data.noun").write_text("00000000 00 n 02 car 0 auto 0 000 | a vehicle\n")
    (folder / "index.noun").write_text("".join(f"{word} n 1 0 1 0 00000000\n" for word in words))
    (folder / "index.sense").write_text("".join(f"{word}%1:00:00:: 00000000 1 0\n" for word in words))
    return tmp_path


def meteor_with(nltk_data: Path) -> list[str]:
    """METEOR of a synonym, how it matched, and what was logged, in a process of its own: nltk loads WordNet once."""
    code = (
        "from hpcft.measure.scores import generation_scores\n"
        "result = generation_scores(['the car is red'], [['the auto is red']])\n"
        "print(result.scores['meteor'], result.provenance['meteor_matching'])"
    )
    environment = {**os.environ, "NLTK_DATA": str(nltk_data)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return [*done.stdout.split(), done.stderr]


def test_b28_keys_and_scale() -> None:
    scores = generation_scores(PREDICTIONS, REFERENCES).scores
    assert list(scores) == KEYS
    assert all(0 <= scores[k] <= 1 for k in scores if k != "num_samples")
    assert scores["num_samples"] == 3


def test_a_perfect_answer_scores_one_and_no_rounding_error_more() -> None:
    scores = generation_scores(["a cheap pub by the riverside"], [["a cheap pub by the riverside"]]).scores
    assert scores["bleu"] == scores["rougeL"] == 1
    assert scores["meteor"] > 0.99


def test_bleu_is_sacrebleus_with_all_references() -> None:
    streams = [[r[k] if k < len(r) else None for r in REFERENCES] for k in range(3)]
    by_hand = sacrebleu.corpus_bleu(PREDICTIONS, streams).score / 100
    assert generation_scores(PREDICTIONS, REFERENCES).scores["bleu"] == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_best_reference_of_each_input(kind: str) -> None:
    scorer = RougeScorer([kind], use_stemmer=True)
    best = [max(scorer.score(r, p)[kind].fmeasure for r in rs) for p, rs in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert generation_scores(PREDICTIONS, REFERENCES).scores[kind] == pytest.approx(sum(best) / 3)


def test_meteor_is_nltks_best_reference_and_says_how_it_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcft.measure.scores._wordnet", lambda: (NoSynonyms(), "exact+stem"))
    words = Tokenizer13a()
    by_hand = [
        max(meteor_score([words(r).split()], words(p).split(), wordnet=NoSynonyms()) for r in rs)
        for p, rs in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    result = generation_scores(PREDICTIONS, REFERENCES)
    assert result.scores["meteor"] == pytest.approx(sum(by_hand) / 3)
    assert result.provenance["meteor_matching"] == "exact+stem"


def test_meteor_matches_synonyms_when_wordnet_is_installed(tiny_wordnet: Path) -> None:
    score, matching, _ = meteor_with(tiny_wordnet)
    assert matching == "exact+stem+synonym"
    assert float(score) > 0.99


def test_a_wordnet_with_a_file_missing_is_told_and_done_without(tiny_wordnet: Path) -> None:
    (tiny_wordnet / "corpora" / "wordnet" / "index.sense").unlink()
    score, matching, said = meteor_with(tiny_wordnet)
    assert matching == "exact+stem"
    assert float(score) < 0.9
    assert "METEOR goes without synonyms" in said


def test_tb6_several_references_score_higher_than_the_first_alone() -> None:
    several = generation_scores(PREDICTIONS, REFERENCES).scores
    first = generation_scores(PREDICTIONS, [r[:1] for r in REFERENCES]).scores
    assert several["bleu"] > first["bleu"]
    assert several["rougeL"] > first["rougeL"]
    assert several["meteor"] > first["meteor"]


def test_the_provenance_says_what_another_needs_to_get_the_same_figures() -> None:
    provenance = generation_scores(PREDICTIONS, REFERENCES).provenance
    assert provenance["bleu_signature"].startswith("nrefs:var|")
    assert f"version:{sacrebleu.__version__}" in provenance["bleu_signature"]
    assert (provenance["references_min"], provenance["references_max"]) == (1, 3)
    assert set(provenance["versions"]) == {"sacrebleu", "rouge-score", "nltk"}
    assert {"rouge", "rouge_tokens", "meteor", "meteor_tokens"} <= set(provenance)


def test_an_empty_prediction_scores_nothing_and_breaks_nothing() -> None:
    scores = generation_scores(["", "   "], [["a b c"], ["d"]]).scores
    assert scores["rougeL"] == scores["meteor"] == scores["bleu"] == 0


def test_without_predictions_there_are_no_scores() -> None:
    assert generation_scores([], []).scores == {"num_samples": 0}


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3)), min_size=1, max_size=5
    )
)
def test_any_texts_give_scores_between_nothing_and_one(rows: list[tuple[str, list[str]]]) -> None:
    scores = generation_scores([p for p, _ in rows], [r for _, r in rows]).scores
    assert list(scores) == KEYS
    assert all(0 <= scores[k] <= 1 for k in KEYS[:-1])


def test_texts_that_rouge_cannot_see_are_told(caplog: pytest.LogCaptureFixture) -> None:
    generation_scores(["這是一個句子。", "a pub"], [["這是一個句子。"], ["a pub"]])
    assert "1 of 2 inputs have no such reference" in caplog.text


@pytest.mark.parametrize(("predictions", "references"), [(["a"], [[]]), (["a", "b"], [["a"]])])
def test_an_input_without_a_reference_is_refused(predictions: list[str], references: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        generation_scores(predictions, references)


def test_importing_the_module_is_cheap() -> None:
    code = (
        "import sys, hpcft.measure.scores\n"
        "print([m for m in ('nltk', 'sacrebleu', 'rouge_score', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("count", [1, 3])
def test_scores_are_the_libraries_own_with_one_reference_and_with_several(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("hpcft.measure.scores._wordnet", lambda: (NoSynonyms(), "exact+stem"))
    references = [r[:count] for r in REFERENCES]
    streams = [[r[k] if k < len(r) else None for r in references] for k in range(max(map(len, references)))]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    words = Tokenizer13a()
    rouge = [scorer.score_multi(rs, p) for p, rs in zip(PREDICTIONS, references, strict=True)]
    meteor = [
        meteor_score([words(r).split() for r in rs], words(p).split(), wordnet=NoSynonyms())
        for p, rs in zip(PREDICTIONS, references, strict=True)
    ]
    by_hand = {
        "bleu": sacrebleu.corpus_bleu(PREDICTIONS, streams).score / 100,
        **{kind: sum(s[kind].fmeasure for s in rouge) / 3 for kind in ("rouge1", "rouge2", "rougeL")},
        "meteor": sum(meteor) / 3,
        "num_samples": 3,
    }
    result = generation_scores(PREDICTIONS, references)
    assert result.scores == pytest.approx(by_hand, abs=1e-12)
    assert result.each["rougeL"] == [s["rougeL"].fmeasure for s in rouge]
    assert result.each["meteor"] == meteor

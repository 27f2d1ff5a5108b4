"""Runs side by side: which inputs, which figures, which answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from hpcft.errors import DataError, UsageError
from hpcft.report.compare import compare
from hpcft.report.compare_files import answers_markdown, csv_text, document
from hpcft.report.significance import holm, mean_interval, paired_p
from hpcft.runs.run import Run

Make = Callable[..., Run]
TEXTS = [f"The {name} is a pub by the river." for name in ("Ivy", "Oak", "Mill", "Quill", "Barn", "Anchor")]


def row(number: int, scores: dict[str, float], prediction: str = "a pub", **more: Any) -> dict[str, Any]:
    return {
        "input": f"name[{number}]",
        "references": [TEXTS[number % 6]],
        "prediction": prediction,
        "scores": scores,
        **more,
    }


@pytest.fixture
def evaluated(make_run: Make) -> Make:
    """A finished run with answers; its scores are those of its rows."""

    def make(name: str, rows: list[dict[str, Any]], digest: str | None = "d1", **more: Any) -> Run:
        results = {k: sum(r["scores"][k] for r in rows) / len(rows) for k in rows[0]["scores"]} | {
            "num_samples": len(rows)
        }
        if digest is not None:
            results["data"] = {"sha256": digest}
        metrics = more.pop("metrics", {})
        run = make_run(name, {"variant": "lora"}, done={}, metrics=metrics, evaluation_results=results | more)
        run.paths.predictions.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return run

    return make


def of(name: str, values: list[float], evaluated: Make, score: str = "f1", **more: Any) -> Run:
    return evaluated(name, [row(i, {score: v}) for i, v in enumerate(values)], **more)


BASE, BETTER, WORSE = [0.2, 0.5, 0.4, 0.9, 0.1, 0.6], [0.4, 0.6, 0.6, 0.9, 0.5, 0.7], [0.1, 0.5, 0.3, 0.8, 0.1, 0.2]


def test_a_score_has_its_value_interval_difference_and_paired_p(evaluated: Make) -> None:
    found = compare([of("base", BASE, evaluated), of("better", BETTER, evaluated)])
    base, better = found.scores["f1"]["base"], found.scores["f1"]["better"]
    assert (found.names, found.baseline, found.inputs) == (["base", "better"], "base", 6)
    assert base.value == pytest.approx(sum(BASE) / 6)
    assert (base.difference, base.p) == (None, None)
    assert better.interval == pytest.approx(mean_interval(BETTER, 1000, 0))
    assert better.difference == pytest.approx(sum(BETTER) / 6 - sum(BASE) / 6)
    assert better.p == pytest.approx(paired_p(BETTER, BASE))
    assert better.p_holm is None


def test_several_comparisons_are_corrected_by_holm(evaluated: Make) -> None:
    runs = [of(n, v, evaluated) for n, v in (("base", BASE), ("better", BETTER), ("worse", WORSE))]
    figures = compare(runs).scores["f1"]
    own = {name: paired_p(values, BASE) for name, values in (("better", BETTER), ("worse", WORSE))}
    assert {name: figures[name].p for name in own} == pytest.approx(own)
    assert {name: figures[name].p_holm for name in own} == pytest.approx(holm(own))


def test_rows_are_lined_up_by_input_and_context_whatever_their_order(evaluated: Make) -> None:
    rows = [row(1, {"f1": v}, context=c) for c, v in (("first", 0.1), ("second", 0.9), ("third", 0.4))]
    base, turned = evaluated("base", rows), evaluated("turned", rows[::-1])
    found = compare([base, turned])
    assert found.scores["f1"]["turned"].p == 1.0
    assert [r.context for r in found.rows["turned"]] == ["first", "second", "third"]


def test_a_run_s_own_interval_stands_as_in_its_file(evaluated: Make) -> None:
    own = of("base", BASE, evaluated, intervals={"f1": [0.25, 0.75]})
    assert compare([own, of("other", BETTER, evaluated)]).scores["f1"]["base"].interval == (0.25, 0.75)


def test_different_inputs_are_refused_with_the_digests_and_the_number_shared(evaluated: Make) -> None:
    base = of("base", BASE, evaluated, digest="aaaaaaaaaaaaaaaa")
    fewer = of("fewer", BASE[:4], evaluated, digest="bbbbbbbbbbbbbbbb")
    with pytest.raises(UsageError) as caught:
        compare([base, fewer])
    said = str(caught.value)
    assert "base 6 inputs, digest aaaaaaaaaaaa; fewer 4 inputs, digest bbbbbbbbbbbb; 4 are shared" in said
    assert "--shared-inputs" in said


def test_the_same_inputs_with_other_references_are_not_the_same(evaluated: Make) -> None:
    base = of("base", BASE[:2], evaluated)
    other = evaluated("other", [row(i, {"f1": 0.5}) | {"references": ["another"]} for i in range(2)], digest="d2")
    for shared in (False, True):
        with pytest.raises(UsageError, match="0 are shared"):
            compare([base, other], shared_inputs=shared)


def test_shared_inputs_are_compared_with_scores_taken_over_these(evaluated: Make) -> None:
    base = of("base", BASE, evaluated, digest="d1", perplexity=2.0)
    other = of("other", BETTER[:4], evaluated, digest="d2", perplexity=3.0)
    found = compare([base, other], shared_inputs=True)
    assert found.inputs == 4
    assert found.scores["f1"]["base"].value == pytest.approx(sum(BASE[:4]) / 4)
    assert found.scores["f1"]["other"].p == pytest.approx(paired_p(BETTER[:4], BASE[:4]))
    assert list(found.scores) == ["f1"]
    assert any("over the shared inputs alone: perplexity" in note for note in found.notes)


def test_a_run_without_a_digest_is_compared_by_its_inputs(evaluated: Make) -> None:
    found = compare([of("base", BASE, evaluated, digest=None), of("other", BETTER, evaluated)])
    assert found.inputs == 6


def test_bleu_is_the_corpus_s_and_has_no_p_value_of_six_answers(evaluated: Make) -> None:
    rows = [[row(i, {"rougeL": 0.5}, text) for i, text in enumerate(said)] for said in (TEXTS, TEXTS[::-1])]
    first, second = (
        evaluated(name, own, bleu=sacrebleu.corpus_bleu([r["prediction"] for r in own], [TEXTS]).score / 100)
        for name, own in zip(("first", "second"), rows, strict=True)
    )
    found = compare([first, second])
    assert found.scores["bleu"]["first"].value == pytest.approx(1)
    assert found.scores["bleu"]["second"].p is None
    assert any("no p-value of bleu for second" in note for note in found.notes)


def test_a_score_that_is_no_mean_has_no_p_value_and_that_is_said(evaluated: Make) -> None:
    runs = [of(n, v, evaluated, perplexity=p) for n, v, p in (("base", BASE, 2.0), ("other", BETTER, 1.5))]
    found = compare(runs)
    assert vars(found.scores["perplexity"]["other"]) == {
        "value": 1.5,
        "interval": None,
        "difference": -0.5,
        "p": None,
        "p_holm": None,
    }
    assert any(note.startswith("no p-value of perplexity") for note in found.notes)


def test_costs_are_those_that_all_runs_have(evaluated: Make) -> None:
    latency, size = "inference/avg_latency_ms_per_sample", "inference/model_size_gb"
    base = of("base", BASE, evaluated, metrics={latency: 20.0, size: 1.5})
    other = of("other", BETTER, evaluated, metrics={latency: 10.0})
    assert compare([base, other]).costs == {latency: {"base": 20.0, "other": 10.0}}


def test_scores_that_were_not_made_alike_are_told(evaluated: Make) -> None:
    ways: list[dict[str, Any]] = [{"meteor_matching": m, "step": s} for m, s in (("exact+stem", 1), ("synonym", 2))]
    runs = [of(f"run{i}", BASE, evaluated, provenance=way) for i, way in enumerate(ways)]
    assert "the runs were not scored alike: meteor_matching differ" in compare(runs).notes


def test_the_right_and_the_wrong_answers_of_the_baseline(evaluated: Make) -> None:
    right = [1.0, 0.0, 1.0, 1.0, 0.0]
    base = evaluated("base", [row(i, {"em": v, "f1": 0.5}, f"b{i}") for i, v in enumerate(right)])
    other = evaluated("other", [row(i, {"em": 1.0, "f1": 0.5}, f"o{i} is longer") for i in range(5)])
    found = compare([base, other])
    chosen = [(a.right, a.predictions) for a in found.answers(2)]
    assert chosen == [
        (True, {"base": "b0", "other": "o0 is longer"}),
        (True, {"base": "b2", "other": "o2 is longer"}),
        (False, {"base": "b1", "other": "o1 is longer"}),
        (False, {"base": "b4", "other": "o4 is longer"}),
    ]
    assert found.words == {"base": 1.0, "other": 3.0}


def test_format_compliance_is_a_score_with_interval_and_paired_p(evaluated: Make) -> None:
    said = {"base": ["[Local", " [Local]\n", "[Local", "x [Global]", "[Local", "[Local"], "cut": ["[Local]"] * 6}
    runs = [evaluated(n, [row(i, {"em": 0.0}, text) for i, text in enumerate(own)]) for n, own in said.items()]
    found = compare(runs, answer_format=re.compile(r"\[(Local|Global)\]")).scores["format"]
    assert (found["base"].value, found["cut"].value) == (pytest.approx(1 / 6), 1.0)
    assert found["cut"].p == paired_p([1.0] * 6, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert found["base"].interval is not None


@pytest.mark.parametrize(("count", "best", "worst"), [(1, [3], [4]), (10, [3, 5, 1], [2, 0, 4])])
def test_texts_are_ranked_by_rouge_and_none_is_both_best_and_worst(
    evaluated: Make, count: int, best: list[int], worst: list[int]
) -> None:
    found = compare([of("base", BASE, evaluated, "rougeL"), of("other", BETTER, evaluated, "rougeL")])
    answers = found.answers(count)
    assert [a.input for a in answers if a.right] == [f"name[{i}]" for i in best]
    assert [a.input for a in answers if not a.right] == [f"name[{i}]" for i in worst]


def test_one_run_or_an_unfinished_or_unevaluated_one_is_refused(evaluated: Make, make_run: Make) -> None:
    base = of("base", BASE, evaluated)
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([base])
    with pytest.raises(UsageError, match="has not finished"):
        compare([base, make_run("running", {})])
    with pytest.raises(UsageError, match="hpcft evaluate merged"):
        compare([base, make_run("merged", {}, done={})])


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"input": "a"}', '{"input": "a", "references": [], "prediction": "", "scores": 3}']
)
def test_a_broken_line_of_answers_is_named(evaluated: Make, line: str) -> None:
    base, other = of("base", BASE, evaluated), of("other", BASE, evaluated)
    with other.paths.predictions.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"predictions\.jsonl:7"):
        compare([base, other])


def test_runs_of_one_name_are_told_apart_by_their_folders(evaluated: Make, tmp_path: Path) -> None:
    base = of("same", BASE, evaluated)
    (tmp_path / "elsewhere").mkdir()
    moved = base.paths.root.rename(tmp_path / "elsewhere" / "same")
    again = of("same", BASE, evaluated)
    assert compare([again, Run(moved)]).names == [str(again.paths.root), str(moved)]


def test_written_down_as_json_csv_and_markdown(evaluated: Make) -> None:
    said = "<script>alert(1)</script> | [link](http://x) **bold**\nsecond line"
    base = evaluated("base", [row(i, {"rougeL": v}, said) for i, v in enumerate(BASE)])
    found = compare([base, of("other", BETTER, evaluated, "rougeL")])
    told = json.loads(json.dumps(document(found, 1)))
    assert set(told["scores"]["rougeL"]["base"]) == {"value", "interval"}
    assert [a["right"] for a in told["answers"]] == [True, False]
    lines = csv_text(found).splitlines()
    assert lines[0] == "measure,run,value,low,high,difference,p,p_holm"
    assert [line.split(",")[:2] for line in lines[1:3]] == [["rougeL", "base"], ["rougeL", "other"]]
    page = answers_markdown(found, 1)
    assert "## base's best by rougeL" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\| \\[link\\](http://x) \\*\\*bold\\*\\*<br>second line" in page
    assert "Mean length in words: base 6.0, other 2.0." in page

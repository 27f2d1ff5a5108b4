"""`evaluate`: the scores of a kept model, taken anew."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import build
from support.worker import Worker

from hpcft.data.e2e import make_rows
from hpcft.errors import DataError, HpcftError
from hpcft.models.open import open_model, open_tokenizer
from hpcft.runs.run import Run
from hpcft.spec.build import build as build_job
from hpcft.spec.layers import yaml_layer
from hpcft.stages.carry import parent


def results(run: Run) -> dict[str, Any]:
    return json.loads(run.paths.evaluation.read_text())


@pytest.fixture(scope="module")
def evaluated(worker: Worker, finished: dict[str, Run]) -> dict[str, Run]:
    return {v: worker.stage("evaluate", finished[v], f"evaluated-{v}") for v in ("lora", "qlora", "full")}


@pytest.mark.parametrize("variant", ["lora", "qlora", "full"])
def test_a_run_s_model_scores_as_it_did_when_it_was_trained(
    evaluated: dict[str, Run], finished: dict[str, Run], variant: str
) -> None:
    then, now = results(finished[variant]), results(evaluated[variant])
    for score in ("bleu", "rouge1", "rouge2", "rougeL", "meteor", "num_samples"):
        assert now[score] == pytest.approx(then[score], abs=1e-9)
    assert finished[variant].paths.predictions.read_text() == evaluated[variant].paths.predictions.read_text()
    assert now["data"] == then["data"]


def test_b28_scores_stand_with_how_they_were_made(evaluated: dict[str, Run]) -> None:
    found = results(evaluated["lora"])
    assert set(found) >= {"bleu", "rouge1", "rouge2", "rougeL", "meteor", "num_samples", "perplexity", "intervals"}
    provenance = found["provenance"]
    assert provenance["references_max"] >= provenance["references_min"] >= 1
    assert {"sacrebleu", "rouge-score", "nltk"} <= set(provenance["versions"])
    assert "13a" in provenance["bleu_signature"]


def test_b29_a_kept_model_is_scored_from_the_command_line(
    worker: Worker,
    finished: dict[str, Run],
    project: Path,
    fake_slurm: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder alone, away from its run; its base is the one that the adapter names."""
    from hpcft.cli.main import main

    shutil.copytree(finished["lora"].paths.final_model, project / "final_model")
    words = "evaluate final_model --dataset quickstart --eval-samples 3 --max-new-tokens 4 --cluster slurm --json"
    monkeypatch.setattr(sys, "argv", ["hpcft", *words.split()])
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        main()
    run = worker.work(Run(Path(json.loads(capsys.readouterr().out)["directory"])))
    found = results(run)
    assert set(found) >= {"bleu", "rouge1", "rouge2", "rougeL", "meteor"}
    assert found["num_samples"] == 3
    assert found["model"]["name"] == str(project / "final_model")
    assert found["data"]["name"] == "quickstart"


def test_each_interval_holds_its_score(evaluated: dict[str, Run]) -> None:
    found = results(evaluated["full"])
    assert set(found["intervals"]) == {"bleu", "rouge1", "rouge2", "rougeL", "meteor"}
    for name in ("rouge1", "rouge2", "rougeL", "meteor"):
        low, high = found["intervals"][name]
        assert 0 <= low <= found[name] <= high <= 1
    assert found["confidence"] == 0.95


def test_each_prediction_has_its_input_references_and_scores(evaluated: dict[str, Run]) -> None:
    run = evaluated["lora"]
    rows = [json.loads(line) for line in run.paths.predictions.read_text().splitlines()]
    assert len(rows) == results(run)["num_samples"]
    assert all(row["input"] and row["references"] for row in rows)
    mean = sum(row["scores"]["rougeL"] for row in rows) / len(rows)
    assert mean == pytest.approx(results(run)["rougeL"])


def test_perplexity_is_that_of_the_answers_tokens_each_with_the_same_weight(
    evaluated: dict[str, Run], finished: dict[str, Run]
) -> None:
    """Taken again one row at a time, without padding or batches."""
    from hpcft.data.encode import IGNORED, encode
    from hpcft.data.split import load

    run = evaluated["lora"]
    job = build_job([yaml_layer(run.paths.config)]).job
    tokenizer = open_tokenizer(job)
    model = open_model(job, torch.device("cpu"))
    data = load(job.data, job.training.seed)
    total = tokens = 0.0
    with torch.no_grad():
        for row in encode(data.validation_pairs, tokenizer, data.prompt, job.data.max_length).rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:])
            total += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
            tokens += float((labels != IGNORED).sum())
    assert results(run)["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_a_run_s_costs_are_carried_and_its_scores_are_the_new_ones(
    evaluated: dict[str, Run], finished: dict[str, Run]
) -> None:
    metrics, trained = evaluated["lora"].metrics, finished["lora"].metrics
    assert {k: v for k, v in metrics.items() if k.startswith(("train/", "model/"))} == {
        k: v for k, v in trained.items() if k.startswith(("train/", "model/"))
    }
    assert metrics["final/validation_perplexity"] == results(evaluated["lora"])["perplexity"]
    assert metrics["final/validation_f1_score"] == pytest.approx(trained["final/validation_f1_score"])


def test_another_set_is_asked_whole(worker: Worker, finished: dict[str, Run], tmp_path: Path) -> None:
    rows = make_rows(5, 77)
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps({"mr": r.mr, "ref": r.ref}) + "\n" for r in rows))
    changed = {"dataset": str(held), "validation": str(held), "eval_samples": 0}
    run = worker.stage("evaluate", finished["lora"], "held", data=changed)
    asked = [json.loads(line) for line in run.paths.predictions.read_text().splitlines()]
    assert [row["input"] for row in asked] == list(dict.fromkeys(r.mr for r in rows))
    assert [row["references"] for row in asked] == [
        list(dict.fromkeys(r.ref for r in rows if r.mr == mr)) for mr in dict.fromkeys(r.mr for r in rows)
    ]


@pytest.mark.parametrize("variant", ["lora", "full"])
def test_a_classifier_keeps_its_classes(worker: Worker, tmp_path: Path, variant: str) -> None:
    """Also on a set that has one of them alone."""
    model = build("bert", tmp_path / "bert")
    table = tmp_path / "classes.csv"
    rows = [(r.ref.replace(",", ""), "pub" if "eatType[pub]" in r.mr else "other") for r in make_rows(40, 5)]
    table.write_text("sentence,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    one = tmp_path / "one.csv"
    one.write_text("sentence,label\n" + "".join(f"{text},{label}\n" for text, label in rows if label == "pub"))
    run = worker.finished(
        f"classes-{variant}",
        variant,
        model={"name": str(model)},
        data={"dataset": str(table), "train_samples": 0},
        training={"num_train_epochs": 1},
    )
    again = worker.stage("evaluate", run, f"classes-{variant}-again")
    assert results(again)["accuracy"] == results(run)["accuracy"]
    assert set(results(again)["intervals"]) == {"accuracy", "f1_macro"}
    alone = worker.stage(
        "evaluate", run, f"classes-{variant}-one", data={"dataset": str(one), "validation": str(one), "eval_samples": 0}
    )
    said = {json.loads(line)["prediction"] for line in alone.paths.predictions.read_text().splitlines()}
    assert said <= {"pub", "other"}


def test_a_class_that_the_model_does_not_know_is_named(worker: Worker, tmp_path: Path) -> None:
    model = build("bert", tmp_path / "bert")
    table = tmp_path / "classes.csv"
    table.write_text("sentence,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(20)))
    other = tmp_path / "other.csv"
    other.write_text("sentence,label\nsome text,good\nmore text,neutral\n")
    short = {"num_train_epochs": None, "max_steps": 1}
    files = {"dataset": str(table), "train_samples": 0}
    run = worker.finished("two-classes", "lora", model={"name": str(model)}, data=files, training=short)
    with pytest.raises(HpcftError, match="classes that the model does not know: neutral"):
        worker.stage("evaluate", run, "three-classes", data={"dataset": str(other), "validation": str(other)})


def test_a_run_that_has_not_finished_is_refused(worker: Worker) -> None:
    unfinished = worker.make("unfinished", "lora")
    job = build_job([yaml_layer(unfinished.paths.config)]).job.model_copy(update={"of": str(unfinished.paths.root)})
    with pytest.raises(DataError, match="has not finished"):
        parent(job)

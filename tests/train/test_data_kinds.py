"""One whole job of each data kind through the real worker: fed, trained, answered, scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import ask_to_stop, at_micro_batch, at_the_end, kill, work
from support.tiny_models import build
from transformers import AutoTokenizer

from hpcft.data.e2e import make_rows
from hpcft.models.open import open_tokenizer
from hpcft.runs.run import Run
from hpcft.spec.build import build as build_job
from hpcft.spec.layers import yaml_layer

SHORT = {"num_train_epochs": 2, "gradient_accumulation_steps": 1, "learning_rate": 0.005}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of each kind, made from the venues of the quickstart set."""
    folder = tmp_path_factory.mktemp("kinds")
    rows = make_rows(60, 5)
    with (folder / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sentence", "label"))
        writer.writerows((r.ref, "pub" if "eatType[pub]" in r.mr else "other") for r in rows)
    lines = {
        "qa.jsonl": [{"question": f"What is in: {r.mr}?", "answer": [r.mr[5:12], r.mr[5:20]]} for r in rows],
        "chat.jsonl": [
            {"messages": [{"role": "user", "content": r.mr}, {"role": "assistant", "content": r.ref}]} for r in rows
        ],
        "stream.jsonl": [{"mr": r.mr, "ref": r.ref} for r in rows],
        "held.jsonl": [{"mr": r.mr, "ref": r.ref} for r in make_rows(6, 99)],
    }
    for name, content in lines.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder


def evaluation(run: Run) -> dict[str, Any]:
    return json.loads(run.paths.evaluation.read_text())


def predictions(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.paths.predictions.read_text().splitlines()]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_e11_classification_is_scored_by_accuracy_and_macro_f1(
    worker: Any, files: Path, tmp_path_factory: pytest.TempPathFactory, family: str
) -> None:
    model = build(family, tmp_path_factory.mktemp(family))
    run = worker.finished(
        f"classes-{family}",
        "lora",
        model={"name": str(model)},
        data={"dataset": str(files / "classes.csv"), "train_samples": 0, "eval_samples": 20},
        training={**SHORT, "learning_rate": 0.02},
    )
    metrics, scores = run.metrics, evaluation(run)
    assert 0 <= metrics["final/validation_accuracy"] <= 1
    assert metrics["final/validation_f1_score"] == scores["f1_macro"]
    assert scores["provenance"]["f1_score"] == "macro F1"
    assert {p["prediction"] for p in predictions(run)} <= {"pub", "other"}
    right = sum(p["prediction"] == p["references"][0] for p in predictions(run))
    assert right / len(predictions(run)) == metrics["final/validation_accuracy"]
    assert f"Val Acc: {scores['accuracy']:.4f}, Val F1: {scores['f1_macro']:.4f}" in run.paths.logs.read_text()
    saved = load_file(run.paths.final_model / "adapter_model.safetensors")
    assert any("lora_" not in name for name in saved), "the head is part of what was trained"
    assert "train/total_training_flops_tflops" in metrics


def test_figures_of_each_class_are_of_the_model_that_is_kept(worker: Any, files: Path, tmp_path: Path) -> None:
    def before(_: int) -> None:
        """The first validation is the best, its answers are the second class alone; those of the next are the first."""
        from transformers import Trainer

        from hpcft.train.validate import LabelValidator

        whole, asked = Trainer.evaluate, []

        def evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
            metrics = whole(self, *args, **kwargs)
            return metrics | {"eval_loss": self.state.global_step}

        def divided(self: Any, model: Any) -> list[str]:
            asked.append(model)
            return [self.data.labels[len(asked) % 2]] * len(self.data.validation)

        Trainer.evaluate = evaluate
        LabelValidator._divided = divided

    run = worker.make(
        "classes-kept",
        "lora",
        model={"name": str(build("bert", tmp_path))},
        data={"dataset": str(files / "classes.csv"), "train_samples": 16, "eval_samples": 20},
        training=SHORT,
    )
    assert work(run, before=before) == 0, run.paths.batch_log.read_text()[-3000:]
    first, last = (e["step"] for e in run.events("validation"))
    found = evaluation(run)["provenance"]
    assert found["step"] == first < last
    assert {name: figures["recall"] for name, figures in found["labels"].items()} == {"other": 0.0, "pub": 1.0}


def test_a_classifier_in_bfloat16_validates_at_zero_0_in_the_arithmetic_of_its_training(
    worker: Any, files: Path, tmp_path: Path
) -> None:
    """Its base is in bfloat16 and its head in float32, which nothing but autocast brings together."""
    run = worker.finished(
        "classes-zero-0",
        "lora",
        model={"name": str(build("bert", tmp_path)), "dtype": "bfloat16"},
        data={"dataset": str(files / "classes.csv"), "train_samples": 16, "eval_samples": 20},
        training={**SHORT, "num_train_epochs": 1, "zero": 0},
    )
    assert 0 <= run.metrics["final/validation_accuracy"] <= 1


def test_a_classifier_s_loss_does_not_grow_with_accumulation(
    worker: Any, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The Trainer alone gives twice the loss at two accumulation steps, and at two ranks."""
    model = build("bert", tmp_path_factory.mktemp("bert"))
    found = {}
    for batch, accumulation in ((8, 1), (4, 2)):
        run = worker.finished(
            f"classes-{accumulation}",
            "lora",
            model={"name": str(model)},
            data={"dataset": str(files / "classes.csv"), "train_samples": 32},
            training={
                "num_train_epochs": None,
                "max_steps": 3,
                "per_device_train_batch_size": batch,
                "gradient_accumulation_steps": accumulation,
            },
            evaluation={"enabled": False},
        )
        found[accumulation] = [e["loss"] for e in run.events("step")]
    # Dropout falls otherwise; a factor of two would not.
    assert found[2] == pytest.approx(found[1], rel=0.05)
    assert found[1][0] == pytest.approx(0.693, abs=0.15)


def test_questions_are_scored_by_exact_match_and_token_f1(worker: Any, files: Path) -> None:
    run = worker.finished("qa", "lora", data={"dataset": str(files / "qa.jsonl")}, training=SHORT)
    scores = evaluation(run)
    assert set(scores) >= {"em", "f1", "accuracy", "num_samples", "provenance"}
    assert run.metrics["final/validation_f1_score"] == scores["f1"]
    assert all(len(p["references"]) == 2 for p in predictions(run))


def test_chats_are_learned_without_a_template_too(worker: Any, files: Path) -> None:
    run = worker.finished("chat", "lora", data={"dataset": str(files / "chat.jsonl")}, training=SHORT)
    losses = [e["loss"] for e in run.events("step")]
    assert losses[-1] < losses[0]
    assert "bleu" in evaluation(run)


TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_a_model_keeps_the_chat_templates_that_it_learned_by(worker: Any, files: Path, tmp_path: Path) -> None:
    model = build("llama", tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "tools"}
    tokenizer.save_pretrained(model)
    run = worker.finished(
        "chat-template",
        "lora",
        model={"name": str(model)},
        data={"dataset": str(files / "chat.jsonl"), "train_samples": 16},
        training={**SHORT, "num_train_epochs": 1},
    )
    again = worker.stage("evaluate", run, "chat-template-again")
    opened = open_tokenizer(build_job([yaml_layer(again.paths.config)]).job)
    assert opened.chat_template == tokenizer.chat_template
    assert predictions(again) == predictions(run)


def test_e15_a_mix_has_a_score_for_each_set_and_their_mean(worker: Any, files: Path) -> None:
    mix = [f"one={files / 'stream.jsonl'}", f"two={files / 'held.jsonl'}"]
    run = worker.finished(
        "mix", "lora", data={"dataset": "LongRefiner_Combined", "mix": mix, "eval_samples": 4}, training=SHORT
    )
    own = [run.metrics[f"final/validation_{name}/f1_score"] for name in ("one", "two")]
    assert run.metrics["final/avg_f1"] == pytest.approx(sum(own) / 2)
    assert {p["part"] for p in predictions(run)} == {"one", "two"}


def streamed(files: Path) -> dict[str, Any]:
    return {
        "data": {"dataset": str(files / "stream.jsonl"), "validation": str(files / "held.jsonl"), "streaming": True},
        "training": {**SHORT, "num_train_epochs": None, "max_steps": 24, "per_device_train_batch_size": 2},
    }


def test_a_stream_goes_on_with_the_same_rows_after_a_stop(worker: Any, files: Path) -> None:
    """Bit for bit: the stream is read again, and what was done is skipped."""
    whole = worker.finished("stream-whole", "lora", **streamed(files))
    run = worker.make("stream-stopped", "lora", **streamed(files))
    assert worker.run(run, until=lambda r: len(list(r.events("step"))) >= 5) == 75
    assert worker.run(run) == 0
    assert [e["loss"] for e in run.events("step")] == [e["loss"] for e in whole.events("step")]
    ours, theirs = (load_file(r.paths.final_model / "adapter_model.safetensors") for r in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_stream_that_is_shorter_than_the_job_goes_on_within_its_second_pass(
    worker: Any, files: Path, tmp_path: Path
) -> None:
    lines = (files / "stream.jsonl").read_text().splitlines(keepends=True)[:15]
    (tmp_path / "short.jsonl").write_text("".join(lines))
    settings = streamed(files)
    settings["data"]["dataset"] = str(tmp_path / "short.jsonl")
    # An accumulation goes over the end of a pass, and so does a batch.
    settings["training"] |= {"max_steps": 8, "gradient_accumulation_steps": 2}
    whole = worker.finished("passes-whole", "lora", **settings)
    run = worker.make("passes-stopped", "lora", **settings)
    for micro_batch, act, code in ((11, ask_to_stop, 75), (1, ask_to_stop, 75), (0, None, 137)):
        before = at_the_end(kill) if act is None else at_micro_batch(micro_batch, act)
        assert work(run, before=before) == code, run.paths.batch_log.read_text()[-3000:]
    assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
    assert [e["resume_step"] for e in run.events("start")] == [0, 6, 7, 8]
    assert [e["loss"] for e in run.events("step")] == [e["loss"] for e in whole.events("step")]
    assert all(e["samples"] == 4 for e in run.events("step"))
    ours, theirs = (load_file(r.paths.final_model / "adapter_model.safetensors") for r in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_full_windows_go_on_after_a_stop(worker: Any) -> None:
    settings = {
        "data": {"packing": "full", "train_samples": 0, "max_length": 512},
        "training": {**SHORT, "num_train_epochs": None, "max_steps": 10, "per_device_train_batch_size": 2},
    }
    whole = worker.finished("windows-whole", "qlora", **settings)
    run = worker.make("windows-stopped", "qlora", **settings)
    assert worker.run(run, until=lambda r: len(list(r.events("step"))) >= 3) == 75
    assert worker.run(run) == 0
    assert [e["loss"] for e in run.events("step")] == [e["loss"] for e in whole.events("step")]


def test_a_wrong_number_of_classes_is_named_with_both_numbers(worker: Any, files: Path, tmp_path: Path) -> None:
    run = worker.make(
        "five",
        "lora",
        model={"name": str(build("bert", tmp_path)), "num_labels": 5},
        data={"dataset": str(files / "classes.csv")},
    )
    assert worker.run(run) == 78
    assert "the data has 2 classes (other, pub), and model.num_labels says 5" in run.paths.batch_log.read_text()

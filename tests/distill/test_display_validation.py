"""Samples of the validation alone (D37): which rows, when, and that nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import at_micro_batch, kill, work
from support.worker import Worker
from transformers import AutoModelForCausalLM

from hpcft.models.load import load_config, load_tokenizer
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run
from hpcft.spec.job import Job
from hpcft.train.distill import Distiller, Sample
from hpcft.train.feed import feed
from hpcft.train.show import Show

# Twelve micro-batches and six optimizer steps an epoch; two rows a batch of the validation.
SHAPE: dict[str, dict[str, Any]] = {
    "data": {"eval_samples": 6},
    "training": {"per_device_eval_batch_size": 2},
    "evaluation": {"max_new_tokens": 2},
    "tracking": {"mode": "disabled"},
}
VALIDATION = {"sample_set": "validation"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    build_model(folder, steps=0, hidden=64, layers=4, vocab=512, seed=5)
    return folder


@pytest.fixture(scope="module")
def jobs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tiny_model, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def make(jobs: Worker, teacher: Path) -> Callable[..., Run]:
    return jobs.distillations(teacher, SHAPE)


def validation_rows(run: Run) -> list[dict[str, Any]]:
    job = Job.model_validate(run.config)
    return feed(job, load_tokenizer(job.model), load_config(job.model)).validation


def shown_by(run: Run) -> list[tuple[int, int, int]]:
    return [(e["epoch"], e["batch"], e["step"]) for e in run.events("distill_sample")]


def test_d37_d36_rows_of_the_validation_are_shown_after_each_epoch_and_the_student_is_the_same(
    jobs: Worker,
    make: Callable[..., Run],
    teacher: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples: list[Sample] = []
    drawn: list[tuple[Any, Any]] = []
    whole, over = Show.sample, Show.end

    def sample(self: Show, given: Sample) -> None:
        if self._settings.show_samples:
            samples.append(given)
        whole(self, given)

    def end(self: Show) -> None:
        drawn.append((torch.random.get_rng_state(), random.getstate()))
        over(self)

    monkeypatch.setattr(Show, "sample", sample)
    monkeypatch.setattr(Show, "end", end)
    before = {"evaluation": {"before": True}}
    plain = jobs.work(make("plain", distill={"show_samples": False}, **before))
    caplog.set_level("INFO", "hpcft")
    shown = jobs.work(make("shown", distill=VALIDATION | {"sample_frequency": 2}, **before))
    told = "\n".join(caplog.messages)

    rows = validation_rows(shown)
    batches = range(0, -(-len(rows) // 2), 2)
    assert len(batches) > 1
    expected = [(epoch, batch) for epoch in (1, 2) for batch in batches]
    assert [(s.epoch, s.batch) for s in samples] == expected
    assert shown_by(shown) == [(epoch, batch, 6 * epoch) for epoch, batch in expected]
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    for each in samples:
        row = rows[2 * each.batch]
        places = [i for i, label in enumerate(row["labels"][1:]) if label != -100]
        assert each.labels.tolist() == [row["labels"][1:][i] for i in places]
        with torch.no_grad():
            assert torch.allclose(each.teacher, model(torch.tensor([row["input_ids"]])).logits[0, places], atol=1e-4)

    assert [e["loss"] for e in shown.events("step")] == [e["loss"] for e in plain.events("step")]
    losses = [[e["metrics"]["validation/loss"] for e in run.events("validation")] for run in (shown, plain)]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]
    one, other = (load_file(run.paths.final_model / "model.safetensors") for run in (shown, plain))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert drawn[0][1] == drawn[1][1]
    assert shown.metrics["train/teacher_flops_tflops"] == plain.metrics["train/teacher_flops_tflops"]

    assert "every 2 batches of the validation" in told
    # The summary of an epoch comes behind its samples, and counts them.
    first = told[: told.index("Epoch 1 summary")]
    assert first.count("Validation loss:") == len(batches)
    assert told.count("Mean laziness:") == 2
    assert told.count("Validation loss:") == 2 * len(batches)
    assert f"Samples shown: {2 * len(batches)}" in told


def at_the_look(number: int) -> Callable[[int], None]:
    """Kill a rank at its n-th batch of a validation that is shown."""

    def before(_: int) -> None:
        whole, count = Distiller.look, 0

        def look(self: Distiller, *args: Any) -> None:
            nonlocal count
            count += 1
            if count == number:
                kill()
            whole(self, *args)

        Distiller.look = look  # type: ignore[method-assign]

    return before


def test_d37_a_run_that_is_killed_counts_what_it_has_shown_once(make: Callable[..., Run]) -> None:
    run = make("killed", distill=VALIDATION | {"sample_frequency": 1})
    batches = -(-len(validation_rows(run)) // 2)
    # In the middle of the first validation, and in the middle of the second epoch.
    for before in (at_the_look(2), at_micro_batch(16, kill)):
        assert work(run, before=before) == 137, run.paths.batch_log.read_text()[-3000:]
    assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
    assert [e["resume_step"] for e in run.events("start")] == [0, 0, 6]
    assert shown_by(run) == [(epoch, batch, 6 * epoch) for epoch in (1, 2) for batch in range(batches)]
    assert f"Samples shown: {2 * batches}" in run.paths.logs.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("zero", [2, 3])
def test_d37_two_ranks_answer_together_and_the_first_one_shows(make: Callable[..., Run], zero: int) -> None:
    ranks = {
        "resources": {"gpus_per_node": 2},
        "training": {"per_device_train_batch_size": 2, "zero": zero},
    }
    plain, shown = (
        make(f"{name}-zero{zero}", distill=distill, **ranks)
        for name, distill in (("plain", {"show_samples": False}), ("shown", VALIDATION | {"sample_frequency": 1}))
    )
    for run in (plain, shown):
        assert work(run, 2) == 0, run.paths.batch_log.read_text()[-4000:]
    assert [e["loss"] for e in shown.events("step")] == [e["loss"] for e in plain.events("step")]
    batches = -(-len(validation_rows(shown)) // 4)
    assert shown_by(shown) == [(epoch, batch, 6 * epoch) for epoch in (1, 2) for batch in range(batches)]

"""Whole distillations through the real worker: what they learn, count, leave, and how they go on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import ask_to_stop, at_micro_batch, kill, work
from support.worker import Worker
from transformers import AutoModelForCausalLM

from hpcft.errors import ConfigError
from hpcft.measure.flops import analytic_forward_flops
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run, RunState
from hpcft.spec.job import Job
from hpcft.train import lessons
from hpcft.train import run as training
from hpcft.train.distill import Sample

SMALL: dict[str, Any] = {"training": {"num_train_epochs": 1}, "tracking": {"mode": "disabled"}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers with the tokens of the tiny model, and opinions."""
    folder = tmp_path_factory.mktemp("teacher")
    build_model(folder, steps=0, hidden=64, layers=4, vocab=512, seed=5)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight *= 20
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def jobs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tiny_model, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def make(jobs: Worker, teacher: Path) -> Callable[..., Run]:
    return jobs.distillations(teacher, SMALL)


@pytest.fixture(scope="module")
def plain(jobs: Worker, make: Callable[..., Run]) -> Run:
    """A student that is made, with validation, and nothing shown."""
    return jobs.work(make("plain", model={"name": "student"}, distill={"show_samples": False}))


def losses(run: Run) -> list[float]:
    return [float(e["loss"]) for e in run.events("step")]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.paths.final_model / "model.safetensors")


def same(one: Run, other: Run) -> bool:
    a, b = weights(one), weights(other)
    return losses(one) == losses(other) and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_d35_a_student_of_half_the_layers_is_made_trained_and_kept_with_its_tokenizer(plain: Run) -> None:
    assert plain.state is RunState.SUCCESS
    layers = {int(n.split(".")[2]) for n in weights(plain) if n.startswith("model.layers.")}
    assert layers == {0, 1}
    assert (plain.paths.final_model / "tokenizer.json").is_file()
    assert losses(plain)[-1] < losses(plain)[0]
    assert plain.metrics["model/teacher_params"] > plain.metrics["model/total_params"]
    assert not plain.paths.student.exists(), "what was made for the training alone is removed"


def test_the_event_log_has_what_the_loss_is_made_of(plain: Run) -> None:
    for event in plain.events("step"):
        assert event["loss"] == pytest.approx(0.7 * event["distill_loss"] + 0.3 * event["distill_ce"], rel=1e-5)
        assert event["distill_loss"] == pytest.approx(16 * event["distill_kl"], rel=1e-6)
    from hpcft.tracking.names import step_point

    assert {"distill/loss", "distill/kl", "distill/ce"} <= step_point(next(iter(plain.events("step")))).keys()


def test_the_evaluation_loss_is_the_plain_one_of_all_variants(plain: Run) -> None:
    (found,) = [e["metrics"]["validation/loss"] for e in plain.events("validation")]
    last = list(plain.events("step"))[-1]
    assert found == pytest.approx(last["distill_ce"], rel=0.1)
    assert abs(found - last["loss"]) > 0.5, "the objective is another figure"


def test_e13_flops_of_student_and_teacher_are_counted_apart(plain: Run) -> None:
    from transformers import AutoConfig

    steps = list(plain.events("step"))
    student = AutoConfig.from_pretrained(plain.paths.final_model)
    teacher = AutoConfig.from_pretrained(plain.config["distill"]["teacher"])
    predicted = sum(e["predicted"] for e in steps)
    for config, key, passes in (
        (student, "train/total_training_flops_tflops", 3),
        (teacher, "train/teacher_flops_tflops", 1),
    ):
        one, two = (analytic_forward_flops(config, 1, length) for length in (1, 2))
        quadratic = (two - 2 * one) // 2
        head = 2 * config.hidden_size * config.vocab_size
        body = one - quadratic - head
        forward = sum(body * e["padded_tokens"] + quadratic * e["padded_squares"] for e in steps) + head * predicted
        assert plain.metrics[key] * 1e12 == pytest.approx(passes * forward, rel=1e-9)


class Curious:
    """Looks at everything, as a display does."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.told: list[tuple[Any, ...]] = []

    def begin_epoch(self, epoch: int, epochs: int, batches: int | None) -> None:
        self.told.append(("begin", epoch, epochs, batches))

    def sample(self, sample: Sample) -> None:
        sample.student.argmax(-1)
        self.samples.append(sample)

    def step(self, batch: int, batches: int | None, loss: float) -> None:
        self.told.append(("step", batch, loss))

    def end_epoch(self, epoch: int, loss: float | None) -> None:
        self.told.append(("end", epoch, loss))

    def end(self) -> None:
        self.told.append(("over",))


def test_d36_td3_the_student_is_the_same_bit_for_bit_with_a_display(
    jobs: Worker, make: Callable[..., Run], plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = Curious()
    monkeypatch.setattr(training, "teach", functools.partial(training.teach, display=display))
    shown = jobs.work(make("shown", model={"name": "student"}, distill={"sample_frequency": 1}))
    assert same(shown, plain)
    assert [s.batch for s in display.samples] == list(range(12))
    assert {(s.epoch, s.batches) for s in display.samples} == {(1, 12)}
    found = losses(shown)
    assert display.told[0] == ("begin", 1, 1, 12)
    assert [t[1:] for t in display.told if t[0] == "step"] == [(2 * n + 1, loss) for n, loss in enumerate(found)]
    assert display.told[-2] == ("end", 1, pytest.approx(sum(found) / len(found)))
    assert display.told[-1] == ("over",)


def test_what_the_teacher_said_before_is_as_good_as_what_it_says(jobs: Worker, make: Callable[..., Run]) -> None:
    runs = [
        jobs.work(make(f"likeliest-{cache}", distill={"top_k": 16, "cache": cache}, training={"num_train_epochs": 2}))
        for cache in (False, True)
    ]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)
    asked, kept = (r.metrics["train/teacher_flops_tflops"] for r in runs)
    assert kept == pytest.approx(asked / 2, rel=1e-6), "two epochs, and asked once"
    assert not runs[1].paths.lessons.exists()


@pytest.mark.parametrize("packing", ["off", "full"])
def test_lessons_are_of_rows_however_they_are_laid(jobs: Worker, make: Callable[..., Run], packing: str) -> None:
    shape = {"data": {"packing": packing}}
    asked = jobs.work(make(f"asked-{packing}", distill={"top_k": 16}, **shape))
    kept = jobs.work(make(f"kept-{packing}", distill={"top_k": 16, "cache": True}, **shape))
    assert losses(asked) == pytest.approx(losses(kept), rel=1e-4)


def test_runs_share_lessons_in_a_folder_unless_something_else_is_asked(
    jobs: Worker, make: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "_ROWS", 16)
    shared = {"top_k": 4, "cache": True, "cache_folder": str(tmp_path / "shared")}
    one = jobs.work(make("first", distill=shared))
    (folder,) = (tmp_path / "shared").iterdir()
    files = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert len(files) == 3
    damaged = sorted(files)[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    other = jobs.work(make("second", distill=shared))
    assert same(one, other)
    now = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert {p for p in files if now[p] != files[p]} == {damaged}, "what is whole is not asked again"
    jobs.work(make("third", distill=shared | {"temperature": 2.0}))
    assert len(list((tmp_path / "shared").iterdir())) == 2


@pytest.mark.parametrize("loss", ["combined", "relation", "attention"])
def test_each_loss_trains_a_student_with_the_teacher_in_8_bits(
    jobs: Worker, make: Callable[..., Run], loss: str
) -> None:
    run = jobs.work(make(loss, distill={"loss": loss, "teacher_quantization": "8bit"}, evaluation={"enabled": False}))
    assert run.state is RunState.SUCCESS
    assert losses(run)[-1] < losses(run)[0]


def test_a_narrower_student_is_told_what_it_can_be_compared_by(jobs: Worker, make: Callable[..., Run]) -> None:
    shape = {"student_hidden": 32, "student_layers": 3}
    with pytest.raises(ConfigError, match="32 wide, the teacher's 64") as caught:
        jobs.work(make("narrow", model={"name": "student"}, distill=shape | {"loss": "feature"}))
    assert "relation" in str(caught.value.hint)


def test_a_classifier_has_nothing_to_learn_from_a_teacher(
    jobs: Worker, make: Callable[..., Run], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"word {n},{'yes' if n % 2 else 'no'}\n" for n in range(40)))
    with pytest.raises(ConfigError, match="a classifier has none"):
        jobs.work(make("classes", data={"dataset": str(rows)}))


def test_r5_td8_a_killed_distillation_goes_on_bit_for_bit(make: Callable[..., Run]) -> None:
    shape: dict[str, Any] = {
        "model": {"name": "student"},
        "training": {"num_train_epochs": 2, "save_minutes": 1e-6},
        "evaluation": {"max_new_tokens": 2},
        "distill": {"lang": "zh-CN", "sample_frequency": 1},
    }
    calm, run = (make(name, **shape) for name in ("calm", "killed"))
    assert work(calm) == 0, calm.paths.batch_log.read_text()[-3000:]
    for micro_batch, act, code in ((1, kill, 137), (6, kill, 137), (4, ask_to_stop, 75)):
        assert work(run, before=at_micro_batch(micro_batch, act)) == code, run.paths.batch_log.read_text()[-3000:]
    assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
    starts = [e["resume_step"] for e in run.events("start")]
    assert starts[:2] == [0, 0]
    assert 0 < starts[2] < starts[3]
    assert same(run, calm)
    shown = [[(e["epoch"], e["batch"]) for e in r.events("distill_sample")] for r in (run, calm)]
    assert shown[0] == shown[1] == [(epoch, batch) for epoch in (1, 2) for batch in range(12)], "each once"
    for key in ("train/total_training_flops_tflops", "train/teacher_flops_tflops", "final/validation_loss"):
        assert run.metrics[key] == pytest.approx(calm.metrics[key], rel=1e-12)
    sizes = [4 * run.metrics[key] / 1024**2 for key in ("model/teacher_params", "model/total_params")]
    assert "模型大小: {:.1f}MB → {:.1f}MB".format(*sizes) in run.paths.logs.read_text()


def in_shards_of_eight(act: Callable[[], None] | None, number: int = 0) -> Callable[[int], None]:
    """Do something when so many shards were asked about."""

    def before(rank: int) -> None:
        from hpcft.train import lessons, teaching

        lessons._ROWS = 8
        whole, asked = teaching.learn, 0

        def learn(*args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            asked += 1
            if act is not None and asked > number:
                act()
            print(f"asked for shard {args[1]}")
            return whole(*args, **kwargs)

        teaching.learn = learn  # type: ignore[assignment]

    return before


def test_r5_what_the_teacher_has_said_is_kept_over_a_kill_and_a_stop(make: Callable[..., Run]) -> None:
    shape = {"distill": {"top_k": 8, "cache": True}}
    calm, run = (make(f"{name}-lessons", **shape) for name in ("calm", "killed"))
    assert work(calm, before=in_shards_of_eight(None)) == 0, calm.paths.batch_log.read_text()[-3000:]
    assert work(run, before=in_shards_of_eight(kill, 2)) == 137
    assert work(run, before=in_shards_of_eight(ask_to_stop, 1)) == 75, run.paths.batch_log.read_text()[-3000:]
    assert work(run, before=in_shards_of_eight(None)) == 0, run.paths.batch_log.read_text()[-3000:]
    asked = [line.split()[-1] for line in run.paths.batch_log.read_text().splitlines() if "asked for shard" in line]
    assert sorted(asked) == sorted(map(str, range(6))), "each shard once"
    assert same(run, calm)


def two(name: str, make: Callable[..., Run], zero: int, **distill: Any) -> tuple[Run, Run]:
    """One rank, and two with the same batches."""
    alone = make(f"{name}-one", distill=distill, training={"gradient_accumulation_steps": 2})
    ranks = {"resources": {"gpus_per_node": 2}, "training": {"per_device_train_batch_size": 2, "zero": zero}}
    both = make(f"{name}-two", distill=distill, **ranks)
    return alone, both


@pytest.mark.parametrize(
    ("zero", "distill"),
    [
        (2, {}),
        pytest.param(2, {"loss": "combined"}, marks=pytest.mark.slow),
        pytest.param(2, {"top_k": 16, "cache": True}, marks=pytest.mark.slow),
        pytest.param(0, {}, marks=pytest.mark.slow),
        pytest.param(3, {}, marks=pytest.mark.slow),
        pytest.param(3, {"top_k": 16, "cache": True}, marks=pytest.mark.slow),
        pytest.param(3, {"teacher_quantization": "4bit"}, marks=pytest.mark.slow),
    ],
    ids=["zero2", "zero2-combined", "zero2-kept", "zero0", "zero3", "zero3-kept", "zero3-4bit"],
)
def test_two_ranks_have_the_losses_of_one(make: Callable[..., Run], zero: int, distill: dict[str, Any]) -> None:
    name = "-".join(["ranks", str(zero), *map(str, distill.values())])
    alone, both = two(name, make, zero, **distill)
    for run, ranks in ((alone, 1), (both, 2)):
        assert work(run, ranks) == 0, run.paths.batch_log.read_text()[-4000:]
    assert losses(both) == pytest.approx(losses(alone), rel=1e-4)
    figures = [[e["distill_kl"] for e in run.events("step")] for run in (alone, both)]
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


def test_bfloat16_trains_and_its_figures_are_near_those_of_float32(jobs: Worker, make: Callable[..., Run]) -> None:
    shape = {"evaluation": {"enabled": False}}
    half = jobs.work(make("half", model={"dtype": "bfloat16"}, **shape))
    whole = jobs.work(make("whole", **shape))
    assert losses(half) == pytest.approx(losses(whole), rel=2e-2)
    assert Job.model_validate(half.config).model.dtype == "bfloat16"

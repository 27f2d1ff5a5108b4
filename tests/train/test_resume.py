"""R5: a job that was stopped or killed anywhere ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import ask_to_stop, at_micro_batch, at_the_end, kill, work
from support.worker import Worker

from hpcft.runs.run import Run
from hpcft.spec.variants import VARIANTS

# Dropout is on, three epochs, an accumulation whose last one is short, and a checkpoint after each step.
EVERYTHING: dict[str, dict[str, Any]] = {
    "lora": {"lora_dropout": 0.1},
    "training": {"num_train_epochs": 3, "gradient_accumulation_steps": 3, "warmup_steps": 4, "save_minutes": 1e-6},
    "data": {"train_samples": 40},
    "evaluation": {"max_new_tokens": 2},
    "tracking": {"mode": "disabled"},
}


def state(run: Run) -> dict[str, Any]:
    """Everything that a run ends with: the kept model, and the last checkpoint's weights, optimizer, scheduler, RNG."""
    last = max(run.paths.checkpoints.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    found: dict[str, Any] = {"last": last.name}
    for folder in (run.paths.final_model, last):
        found |= {f"{folder.name}/{f.name}": load_file(f) for f in folder.glob("*.safetensors")}
    for file in [*last.glob("*.pt"), *last.glob("*.pth"), *last.glob("global_step*/*.pt")]:
        found[file.relative_to(last).as_posix()] = torch.load(file, weights_only=False)
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "tobytes"):
        return bool(a.tobytes() == b.tobytes())
    return bool(a == b) or type(a).__module__.startswith("deepspeed")


def check(run: Run, calm: Run) -> None:
    losses = [[e["loss"] for e in r.events("step")] for r in (run, calm)]
    assert losses[0] == losses[1]
    expected, found = state(calm), state(run)
    assert expected.keys() == found.keys()
    assert [k for k in expected if not same(expected[k], found[k])] == []
    for key in ("final/validation_loss", "train/total_training_flops_tflops", "train/padding_frac"):
        assert run.metrics[key] == pytest.approx(calm.metrics[key], rel=1e-12)


@pytest.fixture(scope="module")
def jobs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tiny_model, tmp_path_factory.mktemp("runs"))


def make(jobs: Worker, name: str, variant: str, **changes: dict[str, Any]) -> Run:
    sections = EVERYTHING.keys() | changes.keys()
    return jobs.make(name, variant, **{s: EVERYTHING.get(s, {}) | changes.get(s, {}) for s in sections})


@pytest.mark.parametrize(
    ("variant", "data"), [("full", {}), ("lora", {"packing": "full"}), ("qlora", {})], ids=["full", "lora", "qlora"]
)
def test_r5_a_kill_inside_an_accumulation_goes_on_from_the_last_optimizer_step(
    jobs: Worker, variant: str, data: dict[str, Any]
) -> None:
    calm = make(jobs, f"calm-{variant}", variant, data=data)
    assert work(calm) == 0, calm.paths.batch_log.read_text()[-3000:]
    run = make(jobs, f"killed-{variant}", variant, data=data)
    # In the first epoch's second accumulation, then by a signal, then in the last epoch.
    for micro_batch, act, code in ((5, kill, 137), (4, ask_to_stop, 75), (6, kill, 137)):
        assert work(run, before=at_micro_batch(micro_batch, act)) == code, run.paths.batch_log.read_text()[-3000:]
    assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
    starts = [e["resume_step"] for e in run.events("start")]
    assert starts[0] == 0 < starts[1] < starts[2] < starts[3]
    check(run, calm)


def test_an_attempt_that_finds_everything_trained_trains_no_step_more(jobs: Worker) -> None:
    """The last epoch is cut short, and its step is not the last of an epoch."""
    training = EVERYTHING["training"] | {"num_train_epochs": 1.4, "lr_scheduler_type": "constant"}
    for accumulation in (1, 3):
        shape = {"training": training | {"gradient_accumulation_steps": accumulation}}
        calm, run = (make(jobs, f"{name}-{accumulation}", "lora", **shape) for name in ("calm-end", "killed-end"))
        assert work(calm) == 0, calm.paths.batch_log.read_text()[-3000:]
        assert work(run, before=at_the_end(kill)) == 137
        assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
        starts = [e["resume_step"] for e in run.events("start")]
        assert starts == [0, max(e["step"] for e in calm.events("step"))]
        check(run, calm)
        scores, expected = (json.loads(r.paths.evaluation.read_text()) for r in (run, calm))
        assert scores == expected, "its figures are those of the validation that the attempt before made"


@pytest.mark.parametrize("act", [ask_to_stop, kill], ids=["stopped", "killed"])
def test_without_validation_the_last_step_of_an_epoch_is_saved_as_any_other(
    jobs: Worker, act: Callable[[], None]
) -> None:
    """Each step is the last of an epoch."""
    own = {"num_train_epochs": 5, "gradient_accumulation_steps": 10, "save_minutes": 10 if act is ask_to_stop else 1e-6}
    shape = {"training": EVERYTHING["training"] | own, "evaluation": {"enabled": False}}
    calm, run = (make(jobs, f"{name}-epochs-{act.__name__}", "lora", **shape) for name in ("calm", "disturbed"))
    assert work(calm) == 0, calm.paths.batch_log.read_text()[-3000:]
    assert work(run, before=at_micro_batch(25, act)) == (75 if act is ask_to_stop else 137)
    assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
    assert [e["resume_step"] for e in run.events("start")] == [0, 3 if act is ask_to_stop else 2]
    for kind in ("step", "epoch"):
        assert [e["step"] for e in run.events(kind)] == [1, 2, 3, 4, 5]
    assert [e["loss"] for e in run.events("step")] == [e["loss"] for e in calm.events("step")]
    ours, theirs = (load_file(r.paths.final_model / "adapter_model.safetensors") for r in (run, calm))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_r5_two_ranks_with_zero_2_go_on_bit_for_bit(jobs: Worker) -> None:
    shape = {"resources": {"accelerator": "cpu", "gpus_per_node": 2}, "training": {"per_device_train_batch_size": 2}}
    calm, run = (make(jobs, f"{name}-two", "lora", **shape) for name in ("calm", "killed"))
    assert work(calm, 2) == 0, calm.paths.batch_log.read_text()[-3000:]
    assert work(run, 2, before=at_micro_batch(5, kill)) == 137
    assert work(run, 2) == 0, run.paths.batch_log.read_text()[-3000:]
    assert [e["resume_step"] for e in run.events("start")] == [0, 1]
    check(run, calm)


# Those that learn something beside the weights; the others in the long round.
QUICK = ("adalora", "p-tuning")
METHODS = [name for name, v in VARIANTS.items() if v.adapter not in (None, "lora")]


@pytest.mark.parametrize(
    "variant", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_r5_each_method_of_peft_goes_on_bit_for_bit(jobs: Worker, variant: str) -> None:
    calm, run = (make(jobs, f"{name}-{variant}", variant) for name in ("calm", "killed"))
    assert work(calm) == 0, calm.paths.batch_log.read_text()[-3000:]
    for micro_batch, act, code in ((14, kill, 137), (4, ask_to_stop, 75)):
        assert work(run, before=at_micro_batch(micro_batch, act)) == code, run.paths.batch_log.read_text()[-3000:]
    assert work(run) == 0, run.paths.batch_log.read_text()[-3000:]
    check(run, calm)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("variant", ["full", "lora", "qlora"])
def test_r5_every_stage_goes_on_bit_for_bit(jobs: Worker, variant: str, zero: int) -> None:
    shape = {"resources": {"accelerator": "cpu", "gpus_per_node": 2}, "training": {"zero": zero}}
    calm, run = (make(jobs, f"{name}-{variant}-{zero}", variant, **shape) for name in ("calm", "killed"))
    assert work(calm, 2) == 0, calm.paths.batch_log.read_text()[-3000:]
    chance = random.Random(zero)
    for _ in range(3):
        assert work(run, 2, before=at_micro_batch(chance.randint(4, 6), chance.choice([kill, ask_to_stop]))) in (
            137,
            75,
        )
    assert work(run, 2) == 0, run.paths.batch_log.read_text()[-3000:]
    check(run, calm)

"""What is fast by default changes no result: each option against the plain way, by the losses of a whole job."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from hpcft.errors import ConfigError
from hpcft.runs.run import Run
from hpcft.spec.job import Job
from hpcft.train.arguments import uses_liger

SHORT = {"num_train_epochs": None, "max_steps": 6, "gradient_accumulation_steps": 2}
PLAIN = {"data": {"packing": "off"}, "model": {"attn_implementation": "eager"}, "evaluation": {"enabled": False}}


def losses(run: Run) -> list[float]:
    return [float(e["loss"]) for e in run.events("step")]


def start(run: Run) -> dict[str, Any]:
    return next(iter(run.events("start")))


@pytest.fixture(scope="module")
def plain(worker: Any) -> Run:
    """Padded rows, eager attention, the optimizer's own loop over parameters."""
    return worker.finished("plain-way", "lora", training={**SHORT, "optim": "adamw_torch"}, **PLAIN)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sdpa", {"model": {"attn_implementation": "sdpa"}}),
        ("packed", {"data": {"packing": "batch"}}),
        ("fused", {"training": {**SHORT, "optim": "adamw_torch_fused"}}),
        ("workers", {"training": {**SHORT, "optim": "adamw_torch", "dataloader_num_workers": 2}}),
        ("defaults", {"data": {}, "model": {}, "training": SHORT}),
    ],
)
def test_each_fast_part_keeps_the_losses(worker: Any, plain: Run, name: str, changes: dict[str, Any]) -> None:
    settings = {**PLAIN, "training": {**SHORT, "optim": "adamw_torch"}, **changes}
    run = worker.finished(f"speed-{name}", "lora", **settings)
    assert losses(run) == pytest.approx(losses(plain), rel=1e-5)


def test_packed_rows_have_no_padding_and_the_same_tokens(worker: Any, plain: Run) -> None:
    run = worker.finished("speed-counts", "lora", training=SHORT, evaluation={"enabled": False})
    assert start(run)["packing"] == "batch"
    assert start(plain)["packing"] == "off"
    assert run.metrics["train/padding_frac"] == 0
    assert plain.metrics["train/padding_frac"] > 0
    for ours, theirs in zip(run.events("step"), plain.events("step"), strict=True):
        assert (ours["tokens"], ours["samples"]) == (theirs["tokens"], theirs["samples"])


def test_g12_full_windows_hold_nearly_nothing_but_tokens(worker: Any) -> None:
    run = worker.finished(
        "speed-full",
        "lora",
        data={"packing": "full", "train_samples": 0, "max_length": 1024},
        training={**SHORT, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 4},
        evaluation={"enabled": False},
    )
    steps = list(run.events("step"))
    assert all(e["tokens"] == e["padded_tokens"] for e in steps)
    assert all(e["samples"] > 2 for e in steps)
    assert sum(e["tokens"] for e in steps) / (len(steps) * 1024) > 0.98


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_model_keeps_the_losses(worker: Any, plain: Run) -> None:
    run = worker.finished(
        "speed-compiled", "lora", training={**SHORT, "optim": "adamw_torch", "torch_compile": True}, **PLAIN
    )
    assert losses(run) == pytest.approx(losses(plain), rel=1e-3)


def test_liger_is_for_cuda_and_says_so() -> None:
    cpu = torch.device("cpu")
    assert not uses_liger(Job(), cpu)
    with pytest.raises(ConfigError, match="CUDA"):
        uses_liger(Job.model_validate({"training": {"liger": "on"}}), cpu)


def test_what_was_used_is_recorded(plain: Run) -> None:
    event = start(plain)
    assert event["attention"] == "eager"
    assert event["liger"] is False
    assert plain.config["training"]["optim"] == "adamw_torch"

"""The display of a whole job: what it leaves in the log, the record and wandb's points, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.worker import Worker

from hpcft.display.room import cells
from hpcft.display.tally import Sample
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run
from hpcft.tracking.projection import project


@pytest.fixture(scope="module")
def distilled(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A finished distillation with some settings of the display."""
    teacher = tmp_path_factory.mktemp("teacher")
    build_model(teacher, steps=0, hidden=64, layers=4, vocab=512, seed=5)
    jobs = Worker(tiny_model, tmp_path_factory.mktemp("runs"))

    def made(name: str, **settings: Any) -> Run:
        return jobs.work(
            jobs.make(
                name,
                "distill",
                distill={"teacher": str(teacher), **settings},
                data={"train_samples": 24},
                tracking={"mode": "disabled"},
                evaluation={"enabled": False},
            )
        )

    return made


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.paths.final_model / "model.safetensors")


def test_d14_d16_d30_d36_a_job_shows_its_samples_and_the_student_is_the_same_without(
    distilled: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hpcft")
    shown = distilled("shown", profile="debug", lang="zh-CN", sample_frequency=2)
    told = caplog.messages
    events = list(shown.events("distill_sample"))
    # Six micro-batches of four rows an epoch.
    assert [(e["epoch"], e["batch"], e["step"]) for e in events] == [
        (e, b, 3 * e - 2 + b // 2) for e in (1, 2) for b in (0, 2, 4)
    ]
    assert all(0 <= Sample.from_event(e).laziness <= 100 for e in events)
    assert all(e["teacher"] and e["student"] for e in events)

    boxes = [message for message in told if "\n" in message]
    assert {cells(line) for box in boxes for line in box.split("\n")[1:]} == {70}
    whole = "\n".join(boxes)
    for text in (
        "温度=4.0, α=0.7, β=0.3",
        "每 2 个batch",
        "📖 Epoch 2/2",
        "📍 Batch 4",
        "🔍 差异",
        "📊 总样本数: 6",
        "学习趋势",
    ):
        assert text in whole, text

    # wandb is given the figures of every sample, also by a sync after the run.
    points = [p for p in project(shown, ended=True).points if "distill/sample_laziness" in p]
    assert [p["step"] for p in points] == [e["step"] for e in events]

    caplog.clear()
    plain = distilled("plain", show_samples=False)
    assert "不显示" not in "".join(caplog.messages)
    assert any("No samples are shown" in message for message in caplog.messages)
    assert not list(plain.events("distill_sample"))
    one, other = weights(shown), weights(plain)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [e["loss"] for e in shown.events("step")] == [e["loss"] for e in plain.events("step")]

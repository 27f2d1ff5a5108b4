"""Norms of the gradients: once an optimizer step, of the whole gradient, before clipping, over all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.forked import at_micro_batch, kill, work
from support.worker import Worker
from transformers import AutoModelForCausalLM

from hpcft.runs.run import Run
from hpcft.train.gradients import GradientNorms

ACCUMULATION = 4
NAMED = ("embed", "attention", "mlp", "lm_head")
SMALL: dict[str, Any] = {
    "gradients": {"enabled": True},
    "evaluation": {"enabled": False},
    "lora": {"target_module_group": "all"},
    # Clipped hard, which must not be seen.
    "training": {
        "num_train_epochs": None,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_grad_norm": 0.001,
    },
}


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {name: SMALL.get(name, {}) | sections.get(name, {}) for name in SMALL.keys() | sections.keys()}


def keep_second_step(folder: Path) -> Callable[[int], None]:
    """Write down the micro-batches of the second optimizer step, and the weights that it begins with: by then LoRA's
    second matrices are no longer zero."""

    def before(rank: int) -> None:
        from hpcft.train.trainer import FineTuner

        whole, count = FineTuner.training_step, 0

        def training_step(self: FineTuner, model: Any, inputs: Any, *rest: Any) -> Any:
            nonlocal count
            count += 1
            if ACCUMULATION < count <= 2 * ACCUMULATION:
                if count == ACCUMULATION + 1 and rank == 0:
                    trained = {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}
                    save_file(trained, folder / "weights.safetensors")
                batch = {k: v.contiguous() for k, v in inputs.items() if isinstance(v, torch.Tensor)}
                save_file(batch, folder / f"batch-{rank}-{count}.safetensors")
            return whole(self, model, inputs, *rest)

        FineTuner.training_step = training_step  # type: ignore[method-assign]

    return before


def reference(folder: Path, base: Path, run: Run) -> dict[str, Any]:
    """Norms of the second step in float64: all of its rows at once, from the weights as they were."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run.paths.final_model)
    model = model.double().train()
    weights = load_file(folder / "weights.safetensors")
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].data.copy_(value)
        parameters[name].requires_grad_(True)
    batches = [load_file(file) for file in sorted(folder.glob("batch-*"))]
    total, targets = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        labels = batch.pop("labels")
        # With a cache transformers does not keep the rows of a packed batch apart.
        logits = model(**batch, use_cache=False).logits[:, :-1]
        wanted = labels[:, 1:]
        total = total + torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1), ignore_index=-100, reduction="sum"
        )
        targets += int((wanted != -100).sum())
    (total / targets).backward()
    squares: dict[str, float] = {}
    for name in weights:
        gradient = parameters[name].grad
        assert gradient is not None
        part = (
            "attention" if ".self_attn." in name
            else "mlp" if ".mlp." in name
            else "embed" if "embed_tokens" in name
            else "lm_head"
        )  # fmt: skip
        keys = [part, "total"]
        if ".layers." in name:
            keys.append(f"{part} {name.split('.layers.')[1].split('.')[0]}")
        for key in keys:
            squares[key] = squares.get(key, 0.0) + float(gradient.square().sum())
    return {key: math.sqrt(value) for key, value in squares.items()}


def steps(run: Run) -> list[dict[str, Any]]:
    return [e for e in run.events("step") if "total_norm" in e]


def compare(step: dict[str, Any], wanted: dict[str, float], tolerance: float) -> None:
    for name in (*NAMED, "total"):
        assert step[f"{name}_norm"] == pytest.approx(wanted[name], rel=tolerance), name
    for part in ("attention", "mlp"):
        found = step["layer_norms"][part]
        assert found == pytest.approx([wanted[f"{part} {i}"] for i in range(len(found))], rel=tolerance)


@pytest.fixture(scope="module")
def one_rank(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("second")
    run = worker.make("gradients", "lora", **SMALL)
    assert work(run, before=keep_second_step(folder)) == 0, run.paths.batch_log.read_text()
    return run, folder


def test_tb1_b33_one_row_for_each_optimizer_step_under_accumulation(one_rank: tuple[Run, Path]) -> None:
    assert [e["step"] for e in steps(one_rank[0])] == [1, 2, 3]


def test_tb1_b34_norms_are_of_the_whole_unclipped_gradient_in_each_group_and_layer(
    one_rank: tuple[Run, Path], tiny_model: Path
) -> None:
    run, folder = one_rank
    second = steps(run)[1]
    assert len(second["layer_norms"]["attention"]) == 2
    compare(second, reference(folder, tiny_model, run), 1e-5)
    assert second["grad_norm"] == pytest.approx(second["total_norm"], rel=1e-5)


def test_measuring_changes_no_weight(one_rank: tuple[Run, Path], worker: Worker) -> None:
    run = worker.make("without", "lora", **changed(gradients={"enabled": False}))
    assert work(run) == 0
    assert [e["loss"] for e in run.events("step")] == [e["loss"] for e in one_rank[0].events("step")]
    assert steps(run) == []
    found, wanted = (load_file(r.paths.final_model / "adapter_model.safetensors") for r in (run, one_rank[0]))
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)


ENGINES = [
    pytest.param(0, "none", marks=pytest.mark.slow),
    pytest.param(1, "none", marks=pytest.mark.slow),
    (2, "none"),
    pytest.param(2, "optimizer", marks=pytest.mark.slow),
    (3, "none"),
    pytest.param(3, "all", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("stage", "offload"), ENGINES)
def test_tb1_two_ranks_measure_what_float64_gives_at_each_zero_stage(
    one_rank: tuple[Run, Path], worker: Worker, tiny_model: Path, tmp_path: Path, stage: int, offload: str
) -> None:
    asked = changed(
        training={"zero": stage, "offload": offload, "per_device_train_batch_size": 2},
        resources={"gpus_per_node": 2},
    )
    run = worker.make(f"zero{stage}{offload}", "lora", **asked)
    before = keep_second_step(tmp_path) if stage < 3 else None
    assert work(run, ranks=2, before=before) == 0, run.paths.batch_log.read_text()
    found, one = steps(run), steps(one_rank[0])
    assert [e["step"] for e in found] == [1, 2, 3]
    if before is not None:
        compare(found[1], reference(tmp_path, tiny_model, run), 1e-4)
    for step, same in zip(found, one, strict=True):
        wanted = {name: same[f"{name}_norm"] for name in (*NAMED, "total")}
        wanted |= {f"{p} {i}": v for p, each in same["layer_norms"].items() for i, v in enumerate(each)}
        compare(step, wanted, 2e-3)


def test_b21_b22_the_interval_and_the_layers_are_asked_for(worker: Worker) -> None:
    asked = changed(gradients={"log_frequency": 2, "layer_norm": False}, training={"max_steps": 5})
    run = worker.make("rarely", "lora", **asked)
    assert work(run) == 0
    assert [e["step"] for e in steps(run)] == [2, 4]
    assert not any("layer_norms" in e for e in run.events("step"))


def test_a_killed_run_has_each_step_s_norms_once(one_rank: tuple[Run, Path], worker: Worker) -> None:
    run = worker.make("killed", "lora", **changed(training={"save_minutes": 1e-6}))
    assert work(run, before=at_micro_batch(2 * ACCUMULATION + 2, kill)) != 0
    assert work(run) == 0
    assert [e["total_norm"] for e in steps(run)] == [e["total_norm"] for e in steps(one_rank[0])]


def test_tb1_a_loss_scale_is_divided_out_and_a_gradient_that_overflowed_gives_no_norms() -> None:
    layer = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4, bias=False)})
    norms = GradientNorms(layer, "llama", layers=False)
    norms.measure([torch.full((4, 4), 1024.0)], scale=1024.0)
    assert norms.norms(norms.take().tolist())["attention_norm"] == pytest.approx(4.0)
    norms.measure([torch.full((4, 4), math.inf)], scale=1024.0)
    assert norms.norms(norms.take().tolist()) == {}
    assert norms.take() is None


def test_norms_of_bfloat16_gradients_are_summed_in_float32() -> None:
    layer = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(64, 64, bias=False)})
    gradient = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    norms = GradientNorms(layer, "llama", layers=False)
    norms.measure([gradient])
    exact = float(gradient.double().norm())
    assert norms.norms(norms.take().tolist())["total_norm"] == pytest.approx(exact, rel=1e-6)


def test_a_group_without_a_gradient_counts_as_zero() -> None:
    model = torch.nn.ModuleDict({n: torch.nn.Linear(2, 2, bias=False) for n in ("q_proj", "up_proj")})
    norms = GradientNorms(model, "llama", layers=False)
    norms.measure([None, torch.ones(2, 2)])
    found = norms.norms(norms.take().tolist())
    assert (found["attention_norm"], found["mlp_norm"], found["total_norm"]) == pytest.approx((0, 2, 2))

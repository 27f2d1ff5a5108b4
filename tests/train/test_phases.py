"""LoRA in phases: what each phase trains, and that the rest keeps its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.forked import at_micro_batch, kill, work
from support.worker import Worker

from hpcft.spec.build import build
from hpcft.spec.job import LoraSection
from hpcft.spec.layers import SpecError, mapping_layer
from hpcft.train.phases import _PARTS, phase_of, trained_in

Q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.default.weight"
UP = "base_model.model.model.layers.{}.mlp.up_proj.lora_B.default.weight"


def test_tb12_each_strategy_trains_what_its_name_says_in_that_order() -> None:
    def trained(strategy: str) -> list[str]:
        parts = []
        for part in _PARTS[strategy]:
            attention, mlp = (trained_in(part, name.format(0), "llama", 6) for name in (Q, UP))
            parts.append({(True, False): "attn", (False, True): "mlp", (True, True): "both"}[attention, mlp])
        return parts

    for strategy in ("attn->mlp->both", "both->mlp->attn", "both->mlp->both"):
        assert trained(strategy) == strategy.split("->")


@pytest.mark.parametrize("layers", [3, 6, 22, 32])
def test_tb12_early_and_late_are_thirds_of_however_many_layers_there_are(layers: int) -> None:
    parts = _PARTS["early->late"]
    when = [[trained_in(part, Q.format(n), "llama", layers) for part in parts].index(True) for n in range(layers)]
    assert when == sorted(when)
    assert max(when.count(p) for p in range(3)) - min(when.count(p) for p in range(3)) <= 1


def test_a_phase_ends_with_the_step_that_is_named() -> None:
    lora = LoraSection(phase1_end=100, phase2_end=200)
    assert [phase_of(s, lora) for s in (1, 100, 101, 200, 201)] == [1, 1, 2, 2, 3]


def job(**values: Any) -> Any:
    return build([mapping_layer({k.replace("__", "."): v for k, v in values.items()}, "test")]).job


def test_phases_begin_with_an_adapter_on_both() -> None:
    assert job(lora__phase_strategy="attn->mlp->both").lora.target_module_group == "both"
    assert job().lora.target_module_group == "attention_only"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lora__target_module_group": "mlp_only"}, "attention and MLP"),
        ({"lora__phase1_end": "9", "lora__phase2_end": "9"}, "before it begins"),
        ({"variant": "full"}, "the variant is full"),
        ({"training__zero": "2"}, "one rank"),
    ],
)
def test_what_phases_cannot_go_with_is_refused_with_the_reason(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        job(lora__phase_strategy="attn->mlp->both", **values)
    assert words in str(caught.value)


PHASED: dict[str, Any] = {
    "lora": {"phase_strategy": "attn->mlp->both", "phase1_end": 2, "phase2_end": 4},
    "gradients": {"enabled": True},
    "evaluation": {"enabled": False},
    "training": {"num_train_epochs": None, "max_steps": 5, "gradient_accumulation_steps": 1, "save_minutes": 1e-6},
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_a_phase_leaves_the_others_weights_alone_and_goes_on_bit_for_bit_after_a_kill(worker: Worker) -> None:
    run = worker.make("phases", "lora", **PHASED)
    assert work(run) == 0, run.paths.batch_log.read_text()
    norms = [(e["attention_norm"] > 0, e["mlp_norm"] > 0) for e in run.events("step")]
    assert norms == [(True, False)] * 2 + [(False, True)] * 2 + [(True, True)]
    assert [(e["step"], e["phase"], e["trains"]) for e in run.events("phase")] == [
        (1, 1, "attention"),
        (3, 2, "mlp"),
        (5, 3, "both"),
    ]
    killed = worker.make("phases-killed", "lora", **PHASED)
    # In the middle of the second phase.
    assert work(killed, before=at_micro_batch(4, kill)) != 0
    assert work(killed) == 0, killed.paths.batch_log.read_text()
    found, wanted = weights(killed.paths.final_model), weights(run.paths.final_model)
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)
    assert [e["phase"] for e in killed.events("phase")] == [1, 2, 3]

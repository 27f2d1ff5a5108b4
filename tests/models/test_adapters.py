"""Every method of PEFT that a job can name: its modules, its start, its learning, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import build

from hpcft.errors import ConfigError
from hpcft.models.adapter import with_adapter
from hpcft.models.bottleneck import BottleneckLayer, drop_layers
from hpcft.models.groups import layer_of
from hpcft.models.load import load_base, load_tokenizer
from hpcft.models.merge import check_mergeable
from hpcft.models.open import open_model
from hpcft.spec.job import Job
from hpcft.spec.variants import PREFIX_LIKE, PROMPT_LIKE, VARIANTS

CPU = torch.device("cpu")
METHODS = [name for name, v in VARIANTS.items() if v.adapter and v.quantization == "none" and name != "ptq"]
LABELS = ["bad", "fine", "good"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    # Weights as large as those of a trained model, so that rows are told apart.
    return {
        family: build(family, root / family, initializer_range=0.2)
        for family in ("llama", "gpt2", "phi", "bert", "distilbert")
    }


def job(folder: Path, variant: str, **sections: Any) -> Job:
    tree = {"variant": variant, "model": {"name": str(folder)}, "resources": {"accelerator": "cpu"}}
    return Job.model_validate(tree | {"lora": {"r": 4, "lora_dropout": 0}} | sections)


def rows() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    ids = torch.randint(5, 300, (6, 12))
    # What tells the class stands all over the row.
    ids[:, 1::2] = torch.tensor([[40], [140], [240]] * 2)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def learn(model: Any, batch: dict[str, torch.Tensor], rate: float = 2e-2, steps: int = 40) -> tuple[float, float]:
    """The loss before and after, without dropout."""
    first = float(model.eval()(**batch).loss.detach())
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return first, float(model.eval()(**batch).loss.detach())


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("variant", METHODS)
def test_a_method_leaves_the_base_as_it_is_learns_and_is_opened_again(
    models: Any, variant: str, family: str, tmp_path: Path
) -> None:
    chosen = job(models[family], variant)
    base = load_base(chosen, CPU)
    if (variant, family) == ("bitfit", "gpt2"):
        # PEFT's trained biases are for nn.Linear alone.
        with pytest.raises(ConfigError, match="Conv1D"):
            with_adapter(base, chosen)
        return
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    batch = rows()
    plain = base.eval()(**batch).logits.detach()
    torch.manual_seed(1)
    model = with_adapter(base, chosen)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    begun = model.eval()(**batch).logits.detach()
    if variant not in PROMPT_LIKE:
        torch.testing.assert_close(begun, plain)
    first, last = learn(model, batch | {"labels": batch["input_ids"]})
    assert last < first
    for name, p in model.named_parameters():
        plain_name = name.removeprefix("base_model.model.").removeprefix("base_model.").replace(".base_layer", "")
        if plain_name in before:
            assert torch.equal(p, before[plain_name]), f"{name} of the base has changed"
    model.save_pretrained(tmp_path / "adapter")
    again = open_model(job(tmp_path / "adapter", variant), CPU)
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bert", "distilbert"])
@pytest.mark.parametrize("variant", METHODS)
def test_a_classifier_learns_with_each_method_and_keeps_its_head(
    models: Any, variant: str, family: str, tmp_path: Path
) -> None:
    chosen = job(models[family], variant)
    torch.manual_seed(1)
    base = load_base(chosen, CPU, LABELS)
    if family == "distilbert" and variant in PREFIX_LIKE:
        with pytest.raises(ConfigError, match="keys and values, and 'distilbert' takes none"):
            with_adapter(base, chosen, classifier=True)
        return
    model = with_adapter(base, chosen, classifier=True)
    model.config.pad_token_id = load_tokenizer(chosen.model).pad_token_id
    batch = rows()
    first, last = learn(model, batch | {"labels": torch.tensor([0, 1, 2] * 2)})
    assert last < first
    model.save_pretrained(tmp_path / "adapter")
    again = open_model(job(tmp_path / "adapter", variant), CPU, LABELS)
    again.config.pad_token_id = model.config.pad_token_id
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-5)


# AdapterDrop, and several tasks on one base


def test_a33_a_bottleneck_begins_as_the_identity_and_may_leave_out_the_lowest_layers(models: Any) -> None:
    chosen = job(models["llama"], "adapter", peft={"drop_layers": 1, "reduction": 8})
    model = with_adapter(load_base(chosen, CPU), chosen)
    layers = {layer_of(f"{n}.") for n, m in model.named_modules() if isinstance(m, BottleneckLayer)}
    assert layers == {1}
    widths = {m.bottleneck_down["default"].out_features for m in model.modules() if isinstance(m, BottleneckLayer)}
    assert widths == {32 // 8}


def test_a33_several_tasks_have_their_adapters_on_one_base(models: Any, tmp_path: Path) -> None:
    chosen, batch = job(models["llama"], "adapter"), rows()
    answers = {}
    for task, seed in (("summary", 1), ("translation", 2)):
        torch.manual_seed(seed)
        model = with_adapter(load_base(chosen, CPU), chosen)
        learn(model, batch | {"labels": batch["input_ids"].roll(seed, 1)}, steps=5)
        model.save_pretrained(tmp_path / task)
        answers[task] = model(**batch).logits
    both = open_model(job(tmp_path / "summary", "adapter"), CPU)
    both.load_adapter(str(tmp_path / "translation"), "translation")
    torch.testing.assert_close(both(**batch).logits, answers["summary"])
    both.set_adapter("translation")
    torch.testing.assert_close(both(**batch).logits, answers["translation"])


def test_a33_adapters_of_low_layers_are_switched_off_and_on_again(models: Any) -> None:
    chosen, batch = job(models["llama"], "adapter"), rows()
    base = load_base(chosen, CPU)
    plain = base.eval()(**batch).logits.detach()
    model = with_adapter(base, chosen)
    learn(model, batch | {"labels": batch["input_ids"]}, steps=5)
    whole = model(**batch).logits
    assert drop_layers(model, 1) == 2
    assert not torch.allclose(model(**batch).logits, whole)
    assert drop_layers(model, 2) == 4
    torch.testing.assert_close(model(**batch).logits, plain)
    assert drop_layers(model, 0) == 0
    torch.testing.assert_close(model(**batch).logits, whole)


def test_a33_a_bottleneck_cannot_be_merged_and_says_why(models: Any) -> None:
    with pytest.raises(ConfigError, match="networks stand behind the layers"):
        check_mergeable("BOTTLENECK")


# What the methods are told apart by


def test_ta8_p_tuning_has_an_encoder_and_p_tuning_v2_a_prefix_in_every_layer(models: Any) -> None:
    def made(variant: str) -> Any:
        chosen = job(models["llama"], variant)
        return with_adapter(load_base(chosen, CPU), chosen)

    encoder = made("p-tuning").prompt_encoder["default"]
    assert [type(m).__name__ for m in encoder.mlp_head] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    prefix = made("p-tuning-v2").prompt_encoder["default"]
    layers, heads_of_keys, size = 2, 2, 8
    assert prefix.embedding.weight.shape == (100, layers * 2 * heads_of_keys * size)
    assert not hasattr(prefix, "transform")
    assert hasattr(made("prefix-tuning").prompt_encoder["default"], "transform")


def test_prompt_tuning_begins_as_a_text(models: Any) -> None:
    chosen = job(models["llama"], "prompt-tuning", peft={"prompt_text": "Describe the restaurant"})
    base = load_base(chosen, CPU)
    words = load_tokenizer(chosen.model)("Describe the restaurant")["input_ids"]
    wanted = base.get_input_embeddings().weight[words[:8]].detach().clone()
    vectors = with_adapter(base, chosen).prompt_encoder["default"].embedding.weight
    torch.testing.assert_close(vectors[: len(wanted)].detach(), wanted.float())


def test_ia3_scales_keys_values_and_the_inputs_of_the_mlps_last_product(models: Any) -> None:
    chosen = job(models["llama"], "ia3")
    model = with_adapter(load_base(chosen, CPU), chosen)
    found = {n.split(".")[-1]: m for n, m in model.named_modules() if hasattr(m, "is_feedforward")}
    assert {name: m.is_feedforward for name, m in found.items()} == {
        "k_proj": False,
        "v_proj": False,
        "down_proj": True,
    }

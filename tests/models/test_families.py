"""Every architecture family: its modules' groups, its targets, its tokenizer, classifiers, and rows end to end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_models import ENCODERS, FAMILIES, WRITERS, build, config
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from hpcft.errors import ConfigError
from hpcft.models.adapter import with_adapter
from hpcft.models.groups import group_of, layer_of, target_modules, warn_of_unknown
from hpcft.models.load import check_vocabulary, load_base, load_tokenizer
from hpcft.models.packing import keeps_rows_apart
from hpcft.spec.job import Job, LoraSection

CPU = torch.device("cpu")
LABELS = ["bad", "fine", "good"]


def job(folder: Path, **sections: Any) -> Job:
    tree = {"variant": "lora", "model": {"name": str(folder)}, "resources": {"accelerator": "cpu"}, **sections}
    return Job.model_validate(tree)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: build(family, root / family) for family in FAMILIES}


def classifier(family: str) -> Any:
    return AutoModelForSequenceClassification.from_config(config(family, num_labels=3))


def weighted(model: Any) -> dict[str, Any]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding | Conv1D)}


@pytest.mark.parametrize("family", FAMILIES)
def test_tb10_each_weight_of_a_family_has_a_group(family: str, caplog: pytest.LogCaptureFixture) -> None:
    for model in [classifier(family)] + (
        [AutoModelForCausalLM.from_config(config(family))] if family in WRITERS else []
    ):
        assert warn_of_unknown(weighted(model), family) == []
    assert not caplog.records


@pytest.mark.parametrize("family", FAMILIES)
def test_tb10_attention_and_mlp_are_told_apart_in_each_layer(family: str) -> None:
    model = classifier(family)
    for name in weighted(model):
        inside = any(word in name for word in ("attn", "attention"))
        layer = layer_of(name)
        if layer is None:
            assert group_of(name, family) in ("embed", "lm_head"), name
        else:
            assert group_of(name, family) == ("attention" if inside else "mlp"), name


def test_tb10_bert_s_output_dense_is_no_head() -> None:
    assert group_of("bert.encoder.layer.0.output.dense.weight", "bert") == "mlp"
    assert group_of("bert.encoder.layer.0.attention.output.dense.weight", "bert") == "attention"
    assert group_of("classifier.weight", "bert") == "lm_head"


def test_tb10_unknown_modules_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hpcft"):
        assert warn_of_unknown(["model.layers.0.mixer.in_proj", "model.layers.0.self_attn.q_proj"], "llama") == [
            "in_proj"
        ]
    assert "in_proj" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("group", ["attention_only", "mlp_only", "both", "all"])
def test_b26_an_adapter_is_on_the_group_s_modules_and_no_other(models: Any, family: str, group: str) -> None:
    chosen = job(models[family], lora={"r": 2, "target_module_group": group})
    labels = LABELS if family in ENCODERS else None
    base = load_base(chosen, CPU, labels)
    groups = {"attention_only": ["attention"], "mlp_only": ["mlp"], "both": ["attention", "mlp"]}
    wanted = groups.get(group, ["attention", "mlp", "embed", "lm_head"])
    expected = {n: m for n, m in weighted(base).items() if group_of(n, family) in wanted}
    heads = ("score", "classifier", "pre_classifier", "pooler") if labels else ()
    expected = {n: m for n, m in expected.items() if not n.startswith(heads) and "pooler" not in n}
    shapes = [m.weight.shape for m in expected.values()]
    tuned = with_adapter(base, chosen, classifier=labels is not None)
    adapted = {n.removeprefix("base_model.model.") for n, m in tuned.named_modules() if hasattr(m, "base_layer")}
    assert adapted == set(expected)
    trained = sum(p.numel() for n, p in tuned.named_parameters() if "lora_" in n and p.requires_grad)
    assert trained == sum(2 * (a + b) for a, b in shapes)


def test_an_unknown_architecture_asks_for_names() -> None:
    with pytest.raises(ConfigError, match=r"lora\.target_modules=a,b"):
        target_modules(LoraSection(), "strange")
    assert target_modules(LoraSection(target_modules=["x"]), "strange") == ["x"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ["full", "lora", "qlora", "lora-int8"])
def test_a_classifier_of_each_family_learns_and_saves_its_head(
    models: Any, family: str, variant: str, tmp_path: Path
) -> None:
    chosen = job(models[family], variant=variant, lora={"r": 2, "lora_dropout": 0})
    torch.manual_seed(1)
    model = with_adapter(load_base(chosen, CPU, LABELS), chosen, classifier=True)
    model.config.pad_token_id = load_tokenizer(chosen.model).pad_token_id
    model.train()
    batch = {"input_ids": torch.randint(5, 300, (6, 12)), "labels": torch.tensor([0, 1, 2] * 2)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    head = {n: p for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n}
    assert head
    assert all(p.dtype == torch.float32 for p in head.values())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(12):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    if variant != "full":
        from safetensors.torch import load_file

        model.save_pretrained(tmp_path)
        saved = load_file(tmp_path / "adapter_model.safetensors")
        assert any("lora_" not in name for name in saved)
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_asked_for_text_says_what_it_can_do(models: Any, family: str) -> None:
    with pytest.raises(ConfigError, match="does not write it") as caught:
        load_base(job(models[family]), CPU)
    assert "data.task=classification" in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tokenizer_pads_and_those_of_writers_end(models: Any, family: str) -> None:
    tokenizer = load_tokenizer(job(models[family]).model)
    assert tokenizer.pad_token_id is not None
    assert family in ENCODERS or tokenizer.eos_token_id is not None


def test_a_tokenizer_that_counts_too_far_is_named_with_both_sizes(models: Any) -> None:
    tokenizer = load_tokenizer(job(models["llama"]).model)
    check_vocabulary(tokenizer, config("llama"), "m")
    with pytest.raises(ConfigError, match="knows 100 tokens"):
        check_vocabulary(tokenizer, config("llama", vocab_size=100), "m")


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_g12_rows_end_to_end_do_not_see_each_other(models: Any, family: str, attention: str) -> None:
    """The table of families against the models themselves: logits of packed rows are those of each row alone."""
    kind = "eager" if family == "gemma2" else attention
    model = AutoModelForCausalLM.from_pretrained(models[family], attn_implementation=kind, dtype=torch.float32).eval()
    torch.manual_seed(2)
    first, other, second = (torch.randint(5, 300, (1, n)) for n in (17, 17, 23))
    positions = torch.cat([torch.arange(17), torch.arange(23)])[None]

    def packed(start: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=torch.cat([start, second], 1), position_ids=positions, use_cache=False).logits

    with torch.no_grad():
        alone = model(input_ids=second, use_cache=False).logits
    apart = torch.allclose(packed(first)[:, 17:], alone, atol=1e-4) and torch.allclose(
        packed(first)[:, 17:], packed(other)[:, 17:], atol=1e-5
    )
    assert keeps_rows_apart(model.config) == apart
    assert torch.allclose(packed(first)[:, :17], model(input_ids=first, use_cache=False).logits, atol=1e-4) or not apart


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_are_never_packed(models: Any, family: str) -> None:
    assert not keeps_rows_apart(config(family))


@pytest.mark.parametrize("variant", ["lora", "qlora"])
def test_a_pooler_that_the_checkpoint_lacks_is_trained_and_kept(tmp_path: Path, variant: str) -> None:
    """It is made at random on loading: an adapter without it would answer otherwise each time that it is opened."""
    folder = build("bert", tmp_path / "bert")
    wanted = job(folder, variant=variant)
    tuned = with_adapter(load_base(wanted, CPU, LABELS), wanted, classifier=True)
    assert any(p.requires_grad for n, p in tuned.named_parameters() if "pooler" in n)
    tuned.save_pretrained(tmp_path / "adapter")
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("pooler" in name for name in kept)

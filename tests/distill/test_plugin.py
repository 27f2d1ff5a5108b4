"""Distilling from Python, on models that a script holds (D7, D8, D25, D27, D33, D36, D38; TD3, TD7, TD8)."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_models import VOCAB, config
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from transformers import LlamaForCausalLM

from hpcft.distill import VisualDistillationPlugin, quick_visual_distill
from hpcft.distill.loader import Batches
from hpcft.errors import ConfigError, DataError, HpcftError
from hpcft.spec.distill import PROFILES, DistillSection

ROWS, LENGTH = 12, 10


class Numbers:
    """A tokenizer that has no more than `decode(token_ids, **kwargs)` (D38)."""

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        return " ".join(f"w{int(i) % 7}" for i in token_ids)


def model(seed: int, layers: int = 1, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(config("llama", num_hidden_layers=layers, **changes))


@pytest.fixture(scope="module")
def teacher() -> LlamaForCausalLM:
    return model(1, layers=2)


def ids() -> torch.Tensor:
    return torch.randint(3, VOCAB, (ROWS, LENGTH), generator=torch.Generator().manual_seed(5))


def mask() -> torch.Tensor:
    rows = torch.ones(ROWS, LENGTH, dtype=torch.long)
    rows[::2, 7:] = 0
    return rows


def loader(*tensors: torch.Tensor, batch_size: int = 4) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size)


def distill(
    teacher: Any, batches: Any, settings: dict[str, Any] | None = None, epochs: int = 1, **arguments: Any
) -> tuple[VisualDistillationPlugin, LlamaForCausalLM]:
    student = model(2)
    plugin = quick_visual_distill(
        student, teacher, batches, Numbers(), epochs, "cpu", settings, learning_rate=1e-2, **arguments
    )
    return plugin, student


def weights(of: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.parameters()])


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, hpcft.distill\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'numpy', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_d7_d33_one_call_trains_the_student_and_gives_its_stats(
    teacher: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, student = distill(teacher, loader(ids(), mask(), ids()), {"sample_frequency": 2}, epochs=2)
    assert not torch.equal(weights(student), weights(model(2)))
    stats = plugin.stats
    assert stats["total_samples"] == 4
    assert len(stats["avg_laziness"]) == 2
    assert stats["topic_distribution"] == {"General": 4}
    assert isinstance(stats["improvement_rate"], float)
    out = capsys.readouterr().out
    for text in ("temperature=4.0, α=0.7, β=0.3", "every 2 batches", "📖 Epoch 2/2", "📍 Batch 2", "Samples shown: 4"):
        assert text in out
    assert "'loss':" not in out


def test_d8_the_given_optimizer_is_the_one_that_is_used(teacher: Any) -> None:
    student = model(2)
    before = weights(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    plugin = VisualDistillationPlugin()
    plugin.visual_distill_model(student, teacher, loader(ids()), optimizer, Numbers(), 1, "cpu")
    assert torch.equal(weights(student), before)
    assert optimizer.param_groups[0]["lr"] == 0
    assert plugin.stats["total_samples"] == 1


def test_d36_td3_the_student_is_the_same_bit_for_bit_with_every_display(
    teacher: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = DataLoader(TensorDataset(ids(), mask(), ids()), batch_size=4, shuffle=True)
    found = []
    for settings in ({"profile": "debug", "lang": "ko"}, {"show_samples": False}, {"sample_frequency": 2}):
        plugin, student = distill(teacher, batches, settings, epochs=2)
        found.append((plugin.stats["total_samples"], weights(student)))
    assert [count for count, _ in found] == [6, 0, 4]
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][1], found[2][1])


def test_td7_the_teacher_is_frozen_and_stays_as_it_was(teacher: Any) -> None:
    own = copy.deepcopy(teacher)
    own.train().requires_grad_(True)
    distill(own, loader(ids(), mask(), ids()))
    assert torch.equal(weights(own), weights(teacher))
    assert not own.training
    assert all(p.grad is None and not p.requires_grad for p in own.parameters())


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        ((ids(),), {"input_ids"}),
        ((ids(), mask()), {"input_ids", "attention_mask"}),
        ((ids(), ids()), {"input_ids", "labels"}),
        ((ids(), mask(), ids()), {"input_ids", "attention_mask", "labels"}),
    ],
    ids=["ids", "mask", "labels", "all"],
)
def test_td7_batches_of_a_tensor_dataset_train(
    teacher: Any, tensors: tuple[torch.Tensor, ...], names: set[str]
) -> None:
    (first, *_) = Batches(loader(*tensors))
    assert first.keys() == names
    plugin, _ = distill(teacher, loader(*tensors))
    assert plugin.stats["total_samples"] == 1


def test_td7_batches_may_be_dictionaries_tuples_or_tensors(teacher: Any) -> None:
    whole = {"input_ids": ids(), "attention_mask": mask(), "labels": ids(), "more": ids()}
    students = [
        distill(teacher, [batch])[1]
        for batch in (whole, (ids(), mask(), ids()), [ids(), mask(), ids()], {**whole, "more": None})
    ]
    assert all(torch.equal(weights(students[0]), weights(student)) for student in students[1:])
    assert [batch.keys() for batch in Batches([ids()])] == [{"input_ids"}]


def test_td2_padding_has_no_label(teacher: Any) -> None:
    (batch,) = Batches([(ids(), mask(), ids())])
    assert batch["labels"][0].tolist() == [*ids()[0, :7].tolist(), -100, -100, -100]
    # What stands in the padding is not learned.
    other = torch.where(mask() == 1, ids(), 5)
    students = [distill(teacher, [(tokens, mask(), tokens)])[1] for tokens in (ids(), other)]
    assert torch.equal(weights(students[0]), weights(students[1]))


def test_labels_that_look_like_a_mask_in_a_later_batch_stay_labels() -> None:
    found = list(Batches([(ids(), ids()), (ids(), mask())]))
    assert [set(batch) for batch in found] == [{"input_ids", "labels"}] * 2


@pytest.mark.parametrize("empty", [[], DataLoader(TensorDataset(ids()[:0]), batch_size=4)], ids=["list", "loader"])
def test_td7_an_empty_loader_is_a_clear_error(teacher: Any, empty: Any) -> None:
    with pytest.raises(DataError, match="train_dataloader: it has no batches"):
        distill(teacher, empty)


def test_a_loader_without_a_length_is_a_clear_error(teacher: Any) -> None:
    class Stream(IterableDataset[torch.Tensor]):
        def __iter__(self) -> Iterator[torch.Tensor]:
            return iter(ids())

    with pytest.raises(DataError, match="number of batches is not known"):
        distill(teacher, DataLoader(Stream(), batch_size=4))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"labels": ids()}, "no input_ids"),
        (["some", "words"], "2 of str, str"),
        ((ids(),) * 4, "4 of Tensor"),
        ([], "0 of"),
    ],
)
def test_batches_of_another_shape_are_a_clear_error(teacher: Any, batch: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        distill(teacher, [batch])


def test_td7_models_with_different_tokens_are_refused(teacher: Any) -> None:
    student = model(2, vocab_size=VOCAB + 8)
    with pytest.raises(ConfigError, match="408 and 400"):
        quick_visual_distill(student, teacher, loader(ids()), Numbers(), 1, "cpu")


def test_a_head_that_is_padded_is_no_other_vocabulary(teacher: Any) -> None:
    class Known(Numbers):
        def __len__(self) -> int:
            return VOCAB

    student = model(2, vocab_size=VOCAB + 8)
    plugin = quick_visual_distill(student, teacher, loader(ids(), ids()), Known(), 1, "cpu")
    assert plugin.stats["total_samples"] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.7, "beta": 0.7}, "alpha and beta are one together"),
        ({"temprature": 2.0}, "did you mean distill.temperature"),
        ({"temperature": "warm"}, "distill.temperature"),
        ({"sample_frequency": 0}, "distill.sample_frequency"),
        ({"profile": "slow"}, "quick.*debug"),
        ({"lang": "fr"}, "distill.lang"),
        ({"teacher": "gpt2"}, "'teacher' is a key of jobs"),
        ({"cache": True}, "'cache' is a key of jobs"),
        ({"sample_set": "validation"}, "nothing is validated here"),
    ],
)
def test_td8_settings_are_checked_as_those_of_a_job(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        VisualDistillationPlugin(settings)


def test_td8_d11_beta_is_what_alpha_leaves() -> None:
    assert VisualDistillationPlugin({"alpha": 0.9}).config.beta == pytest.approx(0.1)
    assert VisualDistillationPlugin(DistillSection(alpha=0.6, beta=0.4, lang="ko")).config.alpha == 0.6


def test_d9_to_d15_the_defaults() -> None:
    c = VisualDistillationPlugin().config
    assert (c.temperature, c.alpha, c.beta) == (4.0, 0.7, 0.3)
    assert (c.show_samples, c.show_diff, c.sample_frequency, c.max_text_length) == (True, False, 50, 100)


@pytest.mark.parametrize(
    ("profile", "values"),
    [
        ("quick", (100, 50, False, 4.0, 0.7)),
        ("detailed", (10, 200, True, 4.0, 0.7)),
        ("high_quality", (50, 100, False, 6.0, 0.9)),
        ("teaching", (5, 150, True, 4.0, 0.7)),
        ("production", (200, 50, False, 4.0, 0.7)),
        ("debug", (1, 200, True, 4.0, 0.7)),
    ],
)
def test_d16_the_six_profiles(profile: str, values: tuple[Any, ...]) -> None:
    c = VisualDistillationPlugin({"profile": profile}).config
    assert (c.sample_frequency, c.max_text_length, c.show_diff, c.temperature, c.alpha) == values
    assert c.alpha + c.beta == pytest.approx(1)
    assert VisualDistillationPlugin({"profile": profile, "sample_frequency": 3}).config.sample_frequency == 3
    assert len(PROFILES) == 6


def test_d25_comments_can_be_ones_own(teacher: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Mine(VisualDistillationPlugin):
        def generate_comment(self, laziness: float, loss: float) -> str:
            return f"mine: {laziness >= 0} {loss > 0}"

    for plugin in (Mine(), VisualDistillationPlugin()):
        if not isinstance(plugin, Mine):
            plugin.generate_comment = lambda laziness, loss: "mine: True True"  # type: ignore[method-assign]
        student = model(2)
        optimizer = torch.optim.AdamW(student.parameters())
        plugin.visual_distill_model(student, teacher, loader(ids()), optimizer, Numbers(), 1, "cpu")
        assert "💬 Comment: mine: True True" in capsys.readouterr().out


@given(st.floats(0, 100), st.floats(0, 10))
def test_td3_a_comment_depends_on_nothing_but_the_sample(laziness: float, loss: float) -> None:
    plugin = VisualDistillationPlugin({"lang": "zh-CN"})
    assert plugin.generate_comment(laziness, loss) == plugin.generate_comment(laziness, loss)


def test_d27_own_topics_are_found(teacher: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = VisualDistillationPlugin({"lang": "zh-CN"})
    plugin.topic_keywords["量子计算"] = [f"w{i}" for i in range(7)]
    student = model(2)
    optimizer = torch.optim.AdamW(student.parameters())
    plugin.visual_distill_model(student, teacher, loader(ids()), optimizer, Numbers(), 1, "cpu")
    assert plugin.stats["topic_distribution"] == {"量子计算": 1}
    assert "📚 教学主题:【量子计算】" in capsys.readouterr().out


def test_td8_clipping_accumulation_and_mixed_precision_are_the_trainers(teacher: Any) -> None:
    batches = loader(ids(), mask(), ids())
    plain, clipped, mixed, added = (
        distill(teacher, batches, **arguments)[1]
        for arguments in ({}, {"max_grad_norm": 1e-4}, {"bf16": True}, {"gradient_accumulation_steps": 3})
    )
    assert not torch.equal(weights(plain), weights(clipped))
    assert not torch.equal(weights(plain), weights(mixed))
    assert not torch.equal(weights(plain), weights(added))
    # What mixed precision puts around a model is gone.
    same = model(3)
    same.load_state_dict(mixed.state_dict())
    with torch.no_grad():
        own, twin = (m.eval()(input_ids=ids()[:1]).logits for m in (mixed, same))
    assert torch.equal(own, twin)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"logging_steps": 5}, "logging_steps cannot be given"), ({"lerning_rate": 1}, "lerning_rate")],
)
def test_arguments_that_cannot_be_are_a_clear_error(teacher: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        distill(teacher, loader(ids()), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_computes_on_the_cpu_and_says_so(teacher: Any, capsys: pytest.CaptureFixture[str]) -> None:
    quick_visual_distill(model(2), teacher, loader(ids()), Numbers(), num_epochs=1)
    first = capsys.readouterr().out.splitlines()[0]
    assert "'cuda' was asked for and this machine has none: computing on the CPU" in first


@pytest.mark.parametrize("device", ["gpu", "cuda:1", "meta"])
def test_a_device_that_cannot_be_chosen_is_a_clear_error(teacher: Any, device: str) -> None:
    with pytest.raises(HpcftError, match="device: "):
        quick_visual_distill(model(2), teacher, loader(ids()), Numbers(), 1, device)

"""What a student is compared by, against the same in float64 and written as in the books."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize

from hpcft.data.collate import Collator, FlatCollator
from hpcft.train import distill_losses
from hpcft.train.distill_losses import TopK, attention, feature, places_of, relation, response

N, VOCABULARY = 37, 301
ALPHA, BETA = 0.7, 0.3


def logits(seed: int, size: int = VOCABULARY, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (3 * torch.randn(N, size, generator=torch.Generator().manual_seed(seed))).to(dtype)


def labels() -> torch.Tensor:
    return torch.randint(VOCABULARY, (N,), generator=torch.Generator().manual_seed(9))


def reference(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss in float64, and its gradient."""
    own = student.detach().double().requires_grad_()
    told = log_softmax(teacher.double() / temperature, -1)
    kl = kl_div(log_softmax(own / temperature, -1), told, log_target=True, reduction="sum") / N
    loss = ALPHA * temperature**2 * kl + BETA * cross_entropy(own, labels())
    loss.backward()
    assert own.grad is not None
    return loss.detach(), own.grad


def ours(student: torch.Tensor, teacher: Any, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    own = student.detach().clone().requires_grad_()
    weights = {"kl_weight": ALPHA * temperature**2 / N, "ce_weight": BETA / N}
    loss, _, _ = response(own, teacher, labels(), temperature, **weights)
    # A scale, as a loss scaler's, goes through.
    (2 * loss).backward()
    assert own.grad is not None
    return loss.detach(), own.grad / 2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("chunk", [VOCABULARY, 5 * VOCABULARY, 2**20])
def test_d9_d10_d11_loss_and_gradient_are_those_of_float64_in_chunks_of_any_size(
    temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(distill_losses._CHUNK, "cpu", chunk)
    loss, gradient = ours(logits(1), logits(2), temperature)
    expected, slope = reference(logits(1), logits(2), temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradient.double(), slope, rtol=1e-5, atol=1e-9)


def test_the_gradient_is_that_of_finite_differences() -> None:
    student, teacher = logits(1)[:3, :7].double(), logits(2)[:3, :7].double()

    def loss(own: torch.Tensor) -> torch.Tensor:
        return response(own, teacher, labels()[:3] % 7, 2.0, kl_weight=1.0, ce_weight=0.5)[0]

    own = student.clone().requires_grad_()
    loss(own).backward()
    for place in ((0, 0), (1, 3), (2, 6)):
        step = torch.zeros_like(student)
        step[place] = 1e-2
        slope = (loss(student + step) - loss(student - step)) / 2e-2
        assert own.grad is not None
        assert own.grad[place].item() == pytest.approx(slope.item(), abs=1e-3)


def test_bfloat16_is_compared_in_float32() -> None:
    student, teacher = logits(1, dtype=torch.bfloat16), logits(2, dtype=torch.bfloat16)
    loss, gradient = ours(student, teacher, 4.0)
    expected, slope = reference(student, teacher, 4.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradient.dtype is torch.bfloat16
    assert torch.allclose(gradient.double(), slope, rtol=2**-7, atol=1e-7)


def test_without_labels_only_the_teacher_counts() -> None:
    own = logits(1).requires_grad_()
    loss, kl, ce = response(own, logits(2), None, 4.0, kl_weight=1.0, ce_weight=0.0)
    assert loss.item() == kl.item() > 0
    assert ce.item() == 0


@pytest.mark.parametrize("size", [VOCABULARY - 20, VOCABULARY + 20])
def test_td7_vocabularies_that_are_padded_differently_are_compared_where_both_have_tokens(size: int) -> None:
    teacher = logits(2, size)
    shared = teacher[:, :VOCABULARY]
    padded = torch.full_like(logits(1), -1e30)
    padded[:, : shared.shape[1]] = shared
    loss, gradient = ours(logits(1), teacher, 4.0)
    expected, slope = reference(logits(1), padded, 4.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradient.double(), slope, rtol=1e-5, atol=1e-9)


def bucketed(student: torch.Tensor, teacher: torch.Tensor, k: int, temperature: float) -> Any:
    """The mean loss in float64 with all but the k likeliest tokens as one."""
    own = student.detach().double().requires_grad_()
    tokens = teacher.topk(k).indices

    def shares(x: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(x / temperature, -1)
        mine = p.gather(-1, tokens)
        return torch.cat([mine, p.sum(-1, keepdim=True) - mine.sum(-1, keepdim=True)], -1)

    p, q = shares(teacher.double()), shares(own)
    kl = (p * (p.log() - q.log())).sum() / N
    loss = ALPHA * temperature**2 * kl + BETA * cross_entropy(own, labels())
    loss.backward()
    return loss.detach(), own.grad


@pytest.mark.parametrize("k", [1, 16, 250])
def test_of_the_likeliest_tokens_the_others_count_as_one(k: int) -> None:
    lesson = TopK.of(logits(2), k, 4.0)
    loss, gradient = ours(logits(1), lesson, 4.0)
    expected, slope = bucketed(logits(1), logits(2), k, 4.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(gradient.double(), slope, rtol=1e-4, atol=1e-8)


def test_the_likeliest_of_all_tokens_are_the_whole_distribution() -> None:
    whole, gradient = ours(logits(1), logits(2), 4.0)
    loss, slope = ours(logits(1), TopK.of(logits(2), VOCABULARY, 4.0), 4.0)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    assert torch.allclose(gradient, slope, rtol=1e-4, atol=1e-8)
    assert torch.isfinite(slope).all()


def test_without_an_answer_in_the_batch_there_is_nothing_to_learn_and_no_error() -> None:
    own = torch.zeros((0, 5), requires_grad=True)
    for teacher in (torch.zeros((0, 5)), TopK.of(torch.zeros((0, 5)), 2, 4.0)):
        loss, _, _ = response(own, teacher, torch.zeros(0, dtype=torch.long), 4.0, kl_weight=1.0, ce_weight=1.0)
        loss.backward()
        assert loss.item() == 0


def test_features_are_compared_at_length_one() -> None:
    a, b = logits(1, 16), logits(2, 16)
    expected = (normalize(a.double(), dim=-1) - normalize(b.double(), dim=-1)).square().mean(-1)
    assert torch.allclose(feature(a, b).double(), expected, rtol=1e-5)
    assert feature(a, 7 * a).max().item() == pytest.approx(0, abs=1e-12)


def test_relations_are_of_the_tokens_of_one_row_and_of_any_width() -> None:
    a, b, counts = logits(1, 16), logits(2, 24), [10, 1, 26]
    found = relation(a, b, counts)
    start = 0
    for count in counts:
        own, told = (normalize(x[start : start + count].double(), dim=-1) for x in (a, b))
        expected = (own @ own.T - told @ told.T).square().mean(-1)
        assert torch.allclose(found[start : start + count].double(), expected, rtol=1e-4, atol=1e-9)
        start += count


def test_attention_maps_are_compared_over_what_a_token_sees() -> None:
    def maps(heads: int, seed: int) -> torch.Tensor:
        scores = torch.randn((2, heads, 6, 6), generator=torch.Generator().manual_seed(seed))
        return scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(-1)

    own, told = maps(4, 1), maps(4, 2)
    flat, seen = torch.tensor([2, 11]), torch.tensor([3, 6])
    found = attention(own, told, flat, seen)
    assert found[0].item() == pytest.approx((own[0, :, 2, :3] - told[0, :, 2, :3]).square().mean().item(), rel=1e-5)
    assert found[1].item() == pytest.approx((own[1, :, 5] - told[1, :, 5]).square().mean().item(), rel=1e-5)
    fewer = attention(own, maps(2, 3), flat, seen)
    mean = (own[1, :, 5].mean(0) - maps(2, 3)[1, :, 5].mean(0)).square().mean()
    assert fewer[1].item() == pytest.approx(mean.item(), rel=1e-5)


def test_td2_places_are_before_the_answers_however_rows_are_laid() -> None:
    rows = [
        {"input_ids": [1, 5, 6, 7, 2], "labels": [-100, -100, 6, 7, 2]},
        {"input_ids": [1, 8, 2], "labels": [1, 8, 2]},
    ]
    padded, flat = Collator(0)(rows), FlatCollator()(rows)
    first = places_of(padded["input_ids"], padded["labels"])
    second = places_of(flat["input_ids"], flat["labels"], flat["position_ids"])
    assert first["labels"].tolist() == second["labels"].tolist() == [6, 7, 2, 8, 2]
    assert first["rows"].tolist() == second["rows"].tolist() == [0, 0, 0, 1, 1]
    assert first["seen"].tolist() == second["seen"].tolist() == [2, 3, 4, 1, 2]
    assert first["flat"].tolist() == [1, 2, 3, 5, 6]
    assert second["flat"].tolist() == [1, 2, 3, 5, 6]
    assert first["kept"].tolist() == [0, 1, 2, 3]
    assert first["among"].tolist() == [1, 2, 3, 4, 5]
    assert second["among"].tolist() == list(range(5))
    unlabelled = places_of(padded["input_ids"], None, attention_mask=padded["attention_mask"])
    assert unlabelled["flat"].tolist() == [0, 1, 2, 3, 5, 6]
    unlabelled = places_of(flat["input_ids"], None, flat["position_ids"])
    assert unlabelled["flat"].tolist() == [0, 1, 2, 3, 5, 6]

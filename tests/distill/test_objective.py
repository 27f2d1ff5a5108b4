"""The objective on real small models: the same however rows are laid, accumulated and shown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny_models import config
from transformers import AutoModelForCausalLM

from hpcft.data.collate import Collator, FlatCollator
from hpcft.spec.distill import DistillSection
from hpcft.train.distill import FIGURES, Distiller, Sample
from hpcft.train.lessons import LessonCollator

LOSSES = ("response", "feature", "combined", "relation", "attention")
ROWS = [
    {"input_ids": [1, *range(10, 10 + n), 2], "labels": [*[-100] * (n // 2), *range(9 + n // 2, 10 + n), 2]}
    for n in (4, 9, 17, 6)
]


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    found = []
    for seed, layers in ((1, 2), (2, 4)):
        torch.manual_seed(seed)
        shape = config("llama", num_hidden_layers=layers, initializer_range=0.3)
        found.append(AutoModelForCausalLM.from_config(shape, attn_implementation="eager").eval())
    return found[0], found[1].requires_grad_(False)


def settings(**changes: Any) -> DistillSection:
    return DistillSection.model_validate(changes)


def answers(rows: Any) -> int:
    return sum(label != -100 for row in rows for label in row["labels"][1:])


def learned(models: Any, rows: Any, collate: Any, items: int | None = None, **changes: Any) -> tuple[float, Any]:
    """Loss and gradient of a micro-batch."""
    student, teacher = models
    student.zero_grad()
    loss = Distiller(settings(**changes), teacher)(student, LessonCollator(collate)(rows), items)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in student.parameters()]


def close(a: Any, b: Any) -> bool:
    return all(torch.allclose(x, y, rtol=1e-3, atol=1e-6) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_td1_padding_and_rows_end_to_end_give_one_loss_and_one_gradient(models: Any, loss: str) -> None:
    padded, slope = learned(models, ROWS, Collator(0), loss=loss)
    flat, other = learned(models, ROWS, FlatCollator(), loss=loss)
    assert padded == pytest.approx(flat, rel=1e-5)
    assert close(slope, other)
    assert sum(float(g.abs().sum()) for g in slope) > 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("collate", [Collator(0), FlatCollator()], ids=["padded", "flat"])
def test_td1_an_accumulation_adds_up_to_the_whole_batch(models: Any, loss: str, collate: Any) -> None:
    whole, slope = learned(models, ROWS, collate, loss=loss)
    parts = [learned(models, rows, collate, answers(ROWS), loss=loss) for rows in (ROWS[:1], ROWS[1:3], ROWS[3:])]
    assert sum(part for part, _ in parts) == pytest.approx(whole, rel=1e-5)
    assert close([sum(each) for each in zip(*(g for _, g in parts), strict=True)], slope)


@pytest.mark.parametrize("collate", [Collator(0), FlatCollator()], ids=["padded", "flat"])
def test_d9_td1_the_divergence_is_a_mean_over_answer_tokens_as_float64_has_it(models: Any, collate: Any) -> None:
    student, teacher = models
    expected = total = 0.0
    with torch.no_grad():
        for row in ROWS:
            ids, labels = torch.tensor([row["input_ids"]]), row["labels"]
            own, told = (m(input_ids=ids).logits[0].double() for m in (student, teacher))
            for place, label in enumerate(labels[1:]):
                if label != -100:
                    p, q = ((x[place] / 4).log_softmax(-1) for x in (told, own))
                    expected += float((p.exp() * (p - q)).sum()) * 16 * 0.7 - 0.3 * float(
                        own[place].log_softmax(-1)[label]
                    )
                    total += 1
    assert learned(models, ROWS, collate)[0] == pytest.approx(expected / total, rel=1e-5)


def test_td2_the_hard_loss_is_that_of_the_next_token_as_the_model_itself_has_it(models: Any) -> None:
    student, _ = models
    batch = Collator(0)(ROWS)
    expected = student(**batch).loss.item()
    assert learned(models, ROWS, Collator(0), alpha=0.0, beta=1.0)[0] == pytest.approx(expected, rel=1e-5)


def test_td1_longer_rows_and_more_of_them_do_not_weigh(models: Any) -> None:
    once, twice = (learned(models, rows, Collator(0))[0] for rows in (ROWS, ROWS + ROWS))
    assert once == pytest.approx(twice, rel=1e-5)
    longer = [*ROWS, {"input_ids": [1, *range(10, 60)], "labels": [-100] * 51}]
    assert learned(models, longer, Collator(0))[0] == pytest.approx(once, rel=1e-5)


def test_without_labels_the_student_learns_from_the_teacher_alone(models: Any) -> None:
    student, teacher = models
    objective = Distiller(settings(), teacher)
    batch = Collator(0)(ROWS)
    del batch["labels"]
    loss = objective(student, batch)
    figures = dict(zip(FIGURES, objective.figures.tolist(), strict=True))
    assert figures["answers"] == sum(len(row["input_ids"]) - 1 for row in ROWS)
    assert figures["distill_ce"] == 0
    assert loss.item() == pytest.approx(0.7 * 16 * figures["distill_kl"] / figures["answers"], rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_figures_make_up_the_loss(models: Any, loss: str) -> None:
    student, teacher = models
    objective = Distiller(settings(loss=loss, alpha=0.6, beta=0.4), teacher)
    found = objective(student, LessonCollator(FlatCollator())(ROWS)).item()
    figures = dict(zip(FIGURES, objective.figures.tolist(), strict=True))
    assert figures["answers"] == figures["predicted"] == answers(ROWS)
    mean = (0.6 * figures["distill_loss"] + 0.4 * figures["distill_ce"]) / figures["answers"]
    assert found == pytest.approx(mean, rel=1e-5)
    assert figures["distill_kl"] > 0


def test_td7_no_gradient_reaches_the_teacher(models: Any) -> None:
    _, teacher = models
    for loss in LOSSES:
        learned(models, ROWS, FlatCollator(), loss=loss)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


class Eager:
    """Keeps the samples, and fails at the last one."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) == 3:
            raise RuntimeError("no room on the console")


def test_d14_every_nth_micro_batch_is_shown_as_it_is_and_a_failure_ends_only_the_show(
    models: Any, caplog: pytest.LogCaptureFixture
) -> None:
    student, teacher = models
    display = Eager()
    objective = Distiller(settings(sample_frequency=2), teacher, display=display)  # type: ignore[arg-type]
    losses = [objective(student, FlatCollator()(ROWS)).item() for _ in range(8)]
    assert [s.batch for s in display.samples] == [0, 2, 4]
    first = display.samples[0]
    assert first.loss == pytest.approx(losses[0])
    assert first.labels.tolist() == [label for label in ROWS[0]["labels"][1:] if label != -100]
    with torch.no_grad():
        told = teacher(input_ids=torch.tensor([ROWS[0]["input_ids"]])).logits[0]
        own = student(input_ids=torch.tensor([ROWS[0]["input_ids"]])).logits[0]
    places = [i for i, label in enumerate(ROWS[0]["labels"][1:]) if label != -100]
    assert torch.allclose(first.teacher, told[places], atol=1e-5)
    assert torch.allclose(first.student, own[places], atol=1e-5)
    p, q = ((x[places] / 4).double().log_softmax(-1) for x in (told, own))
    assert first.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert "no room on the console" in caplog.text


def test_a_teacher_of_fewer_heads_and_another_width_can_be_related_to(models: Any) -> None:
    torch.manual_seed(3)
    wide = config("llama", num_hidden_layers=3, hidden_size=64, num_attention_heads=8)
    teacher = AutoModelForCausalLM.from_config(wide, attn_implementation="eager").eval()
    for loss in ("relation", "attention"):
        found, slope = learned((models[0], teacher), ROWS, FlatCollator(), loss=loss)
        assert found > 0
        assert sum(float(g.abs().sum()) for g in slope) > 0


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma2", "phi", "gpt_neox"])
def test_every_kind_of_model_can_be_student_and_teacher(family: str) -> None:
    torch.manual_seed(1)
    shapes = [config(family, **({"n_layer": n} if family == "gpt2" else {"num_hidden_layers": n})) for n in (1, 2)]
    pair = [AutoModelForCausalLM.from_config(shape, attn_implementation="eager").eval() for shape in shapes]
    for loss in LOSSES:
        padded, _ = learned(pair, ROWS, Collator(0), loss=loss)
        flat, _ = learned(pair, ROWS, FlatCollator(), loss=loss)
        assert padded == pytest.approx(flat, rel=1e-4)

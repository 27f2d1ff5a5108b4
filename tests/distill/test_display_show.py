"""The display of a distillation: what it makes of two models' logits, what it keeps, and what it leaves alone."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcft.display.tally import Sample
from hpcft.runs.create import begin_attempt, make_run_directory
from hpcft.runs.run import Run
from hpcft.spec.distill import DistillSection
from hpcft.train.distill import Display
from hpcft.train.distill import Sample as Compared
from hpcft.train.recorder import Recorder
from hpcft.train.show import JobOutlet, Show

WORDS = ["<pad>", "the", "hospital", "internet", "online", "football", "cat", "a"]


class Words:
    """A tokenizer that has no more than `decode(token_ids, **kwargs)` (D38)."""

    def decode(self, token_ids: list[int], **kwargs: Any) -> str:
        return " ".join(WORDS[i] for i in token_ids)


class Kept:
    """An outlet that keeps everything."""

    encoding = "utf-8"

    def __init__(self, before: Iterable[Sample] = ()) -> None:
        self.before = before
        self.said: list[str] = []
        self.samples: list[tuple[int, Sample]] = []

    def shown(self) -> Iterable[Sample]:
        return self.before

    def say(self, words: str) -> None:
        self.said.append(words)

    def sample(self, sample: Sample, step: int, words: str) -> None:
        self.said.append(words)
        self.samples.append((step, sample))


def logits(tokens: list[int]) -> torch.Tensor:
    """Logits whose likeliest tokens are these, though others are nearly as likely."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), len(WORDS)).float() * 0.01


def compared(student: list[int], teacher: list[int], **changes: Any) -> Compared:
    values: dict[str, Any] = {"epoch": 1, "batch": 0, "batches": 4, "step": 0, "loss": 1.5, "kl": 1.0}
    values |= {"labels": torch.tensor(teacher), "student": logits(student), "teacher": logits(teacher)}
    return Compared(**{**values, **changes})


def show(outlet: Kept, **settings: Any) -> Show:
    made = Show(DistillSection(**settings), Words(), outlet)
    made.begin_epoch(1, 2, 4)
    return made


def test_it_is_a_display() -> None:
    shown: Display = Show(DistillSection(), Words(), Kept())
    assert shown is not None


def test_d1_d2_d38_the_likeliest_texts_are_shown_and_compared() -> None:
    outlet = Kept()
    made = show(outlet)
    made.sample(compared([1, 3, 6], [1, 3, 4], step=7))
    ((step, sample),) = outlet.samples
    assert (step, sample.teacher, sample.student) == (7, "the internet online", "the internet cat")
    assert sample.topic == "Internet"
    assert sample.laziness == pytest.approx((1 - sample.similarity) * 60 + 8)
    assert "👨🎓 Student: the internet cat" in outlet.said[-1]
    assert made.tally.stats()["total_samples"] == 1


def test_td3_nothing_is_drawn_and_no_tensor_changes() -> None:
    torch.manual_seed(1)
    random.seed(1)
    sample = compared([1, 2, 3], [1, 2, 4])
    before = torch.random.get_rng_state(), random.getstate(), sample.student.clone(), sample.teacher.clone()
    said = []
    for _ in range(2):
        outlet = Kept()
        made = show(outlet, show_diff=True)
        for batch in range(8):
            made.sample(compared([1, 2, 3], [1, 2, 4], batch=batch, loss=0.1))
        made.end_epoch(1, 1.0)
        made.end()
        said.append(outlet.said)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    assert torch.equal(sample.student, before[2])
    assert torch.equal(sample.teacher, before[3])
    # And the same is said each time, comments too, though the comments of a tier take turns.
    assert said[0] == said[1]
    assert len({s.comment for _, s in outlet.samples}) == 4


def test_td1_a_long_text_is_no_lazier_than_a_short_one() -> None:
    outlet = Kept()
    made = show(outlet, max_text_length=1000)
    for times in (1, 50):
        made.sample(compared([1, 2, 3, 6] * times, [1, 2, 3, 6] * times, kl=0.5))
    assert [round(s.laziness, 9) for _, s in outlet.samples] == [4.0, 4.0]


def test_d15_no_more_than_so_many_tokens_and_characters_are_shown() -> None:
    outlet = Kept()
    made = show(outlet, max_text_length=10)
    made.sample(compared([1] * 12, [7] * 12))
    made.sample(compared([7, 7], [7, 7]))
    (_, cut), (_, whole) = outlet.samples
    assert cut.student == "the the th..."
    assert cut.teacher == "a a a a a..."
    assert whole.teacher == "a a"


def test_d38_a_tokenizer_that_cannot_decode_gives_numbers() -> None:
    class Lost(Words):
        def decode(self, token_ids: list[int], **kwargs: Any) -> str:
            raise KeyError(token_ids[0])

    outlet = Kept()
    made = Show(DistillSection(), Lost(), outlet)
    made.begin_epoch(1, 1, 4)
    made.sample(compared([1, 2], [3, 4]))
    assert outlet.samples[0][1].student == "1 2"


def test_the_settings_are_said_once_and_each_epoch_is() -> None:
    outlet = Kept()
    made = show(outlet, temperature=2.0, alpha=0.5, beta=0.5, sample_frequency=5)
    made.begin_epoch(2, 2, 4)
    assert [("temperature=2.0, α=0.5, β=0.5" in s, "every 5 batches" in s) for s in outlet.said] == [
        (True, True),
        (False, False),
        (False, False),
    ]
    assert ["Epoch 1/2" in outlet.said[1], "Epoch 2/2" in outlet.said[2]] == [True, True]


def test_progress_comes_every_ten_batches_but_not_with_a_sample() -> None:
    outlet = Kept()
    made = show(outlet)
    for batch in range(0, 45, 4):
        if batch in (0, 20):
            made.sample(compared([1], [1], batch=batch))
        made.step(batch + 3, 48, 1.0)
    lines = [s for s in outlet.said if s.startswith("⏳")]
    assert lines == [f"⏳ Batch {batch}/48 | Loss: 1.0000" for batch in (11, 31, 43)]


def test_d32_d33_td4_all_of_the_stats_are_filled() -> None:
    outlet = Kept()
    made = show(outlet)
    for epoch, pairs in ((1, [([6, 6], [3, 4]), ([5], [5])]), (2, [([3, 4], [3, 4])])):
        for student, teacher in pairs:
            made.sample(compared(student, teacher, epoch=epoch, kl=0.0))
        made.end_epoch(epoch, 1.0)
    made.end()
    stats = made.tally.stats()
    assert stats["total_samples"] == 3
    assert stats["topic_distribution"] == {"Internet": 2, "Sports": 1}
    assert len(stats["avg_laziness"]) == 2
    assert stats["improvement_rate"] == stats["avg_laziness"][0] - stats["avg_laziness"][1] > 10
    assert "Trend: 📈 great progress!" in outlet.said[-1]


def test_without_samples_only_losses_are_told() -> None:
    outlet = Kept()
    made = show(outlet, show_samples=False)
    made.step(0, 4, 2.0)
    made.end_epoch(1, 2.0)
    made.end()
    assert "No samples are shown" in outlet.said[0]
    assert "Mean loss: 2.0000" in outlet.said[-2]
    assert "laziness" not in "".join(outlet.said)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterable[Recorder]:
    paths = make_run_directory(tmp_path, "run", "run")
    paths.config.write_text("variant: distill\n")
    made = Recorder(paths, begin_attempt(paths), log_every=20)
    yield made
    made.close()


def test_a_job_keeps_texts_and_figures_in_its_event_log_and_gives_wandb_the_figures(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    points = []

    class Tracker:
        def log(self, metrics: dict[str, float], step: int) -> None:
            points.append((metrics, step))

    recorder.tracker = Tracker()  # type: ignore[assignment]
    made = Show(DistillSection(), Words(), JobOutlet(recorder))
    caplog.set_level("INFO", "hpcft")
    made.begin_epoch(1, 1, 4)
    made.sample(compared([1, 6], [1, 4], step=3))
    (event,) = Run(recorder.paths.root).events("distill_sample")
    assert (event["step"], event["teacher"], event["student"], event["topic"]) == (
        3,
        "the online",
        "the cat",
        "Internet",
    )
    assert event["comment"]
    assert event["metrics"]["distill/sample_laziness"] > 8
    assert event["metrics"]["distill/sample_loss"] == 1.5
    assert points == [(event["metrics"], 3)]
    # A box stands below the line with the time, so that its border is straight.
    assert caplog.messages[-1].startswith("distillation, step 3:\n┌")
    assert Sample.from_event(event) == Sample.from_event({**event, "more": 1})


def test_a_resumed_run_goes_on_counting_and_forgets_steps_that_are_done_again(recorder: Recorder) -> None:
    made = Show(DistillSection(), Words(), JobOutlet(recorder))
    recorder.event("start", resume_step=0)
    made.begin_epoch(1, 2, 4)
    for step in (0, 5, 9):
        made.sample(compared([1, 6], [1, 4], step=step, loss=0.1))
    made.end_epoch(1, 1.0)
    recorder.close()

    paths = recorder.paths
    second = Recorder(paths, begin_attempt(paths), log_every=20)
    second.event("start", resume_step=5)
    again = Show(DistillSection(), Words(), JobOutlet(second))
    again.begin_epoch(1, 2, 4)
    assert again.tally.total == 2
    again.sample(compared([1, 6], [1, 4], step=9, loss=0.1))
    second.close()
    comments = [e["comment"] for e in Run(paths.root).events("distill_sample")]
    # As if there had been one attempt: the comments go on taking turns.
    assert len(comments) == len(set(comments)) == 3
    assert again.tally.stats() == made.tally.stats()

"""Shows a distillation: what teacher and student say, how far apart they are, and what becomes of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hpcft.display import judge
from hpcft.display.console import Console
from hpcft.display.room import shorten
from hpcft.display.tally import Sample, Tally
from hpcft.display.texts import comments, text, topic_keywords
from hpcft.runs.run import Run
from hpcft.spec.distill import DistillSection
from hpcft.train.recorder import PROGRESS, Recorder
from hpcft.viz.texts import Lang

if TYPE_CHECKING:
    import torch

    from hpcft.train.distill import Sample as Compared

log = logging.getLogger(__name__)

_BATCHES = 10  # between two lines of progress
Comment = Callable[[float, float], str]


def comment_of(laziness: float, loss: float, turn: int, lang: Lang = "en") -> str:
    """One of the four comments of the tier; they take turns, so that no chance is in it.

    Args:
        laziness: in percent.
        turn: samples that were shown before.
    """
    four = comments(judge.tier(laziness, loss), lang)
    return four[turn % len(four)]


class Outlet(Protocol):
    """Where a show goes."""

    encoding: str | None

    def shown(self) -> Iterable[Sample]:
        """The samples that earlier attempts have shown, when training begins."""

    def say(self, words: str) -> None:
        """Print a box or a line."""

    def sample(self, sample: Sample, step: int, words: str) -> None:
        """Print and keep a sample.

        Args:
            step: optimizer step that it belongs to. words: its box.
        """


class Show:
    """A distillation's display (`hpcft.train.distill.Display`). It draws nothing at random and changes no tensor.

    Args:
        settings: what is shown, and in which language.
        tokenizer: of which no more is used than `decode(token_ids, **kwargs)`.
        outlet: where it goes.
        keywords: topic → words; those of the language when absent. It may change while the show goes on.
        comment: gives a sample's comment for its laziness, in percent, and the loss.
    """

    def __init__(
        self,
        settings: DistillSection,
        tokenizer: Any,
        outlet: Outlet,
        *,
        keywords: Mapping[str, Sequence[str]] | None = None,
        comment: Comment | None = None,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._outlet = outlet
        self.tally = Tally()
        self.console = Console(
            settings.lang, outlet.encoding, show_diff=settings.show_diff, validation=settings.shows_validation
        )
        self._keywords = topic_keywords(settings.lang) if keywords is None else keywords
        self._comment = comment or self._of_the_tier
        self._begun = False
        self._said = -1

    def begin_epoch(self, epoch: int, epochs: int, batches: int | None) -> None:
        """Say what is done, once, and which epoch begins."""
        s = self._settings
        if not self._begun:
            self._begun = True
            for shown in self._outlet.shown():
                self.tally.add(shown)
            every = s.sample_frequency if s.show_samples else None
            self._outlet.say(self.console.header(s.temperature, s.alpha, s.beta, every))
        self._said = -1
        self._outlet.say(self.console.epoch(epoch, epochs))

    def sample(self, sample: Compared) -> None:
        """Say what the two models say at each place where the data's own text is known up to there."""
        if not self._settings.show_samples:
            return
        teacher, student = (self._text(logits) for logits in (sample.teacher, sample.student))
        alike = judge.similarity(student, teacher)
        laziness = judge.laziness(alike, sample.kl)
        most = self._settings.max_text_length
        more = sample.student.shape[0] > most
        found = Sample(
            epoch=sample.epoch,
            batch=sample.batch,
            topic=judge.find_topic(teacher, self._keywords, text("general", self._settings.lang)),
            teacher=shorten(teacher, most, more=more),
            student=shorten(student, most, more=more),
            similarity=alike,
            kl=sample.kl,
            laziness=laziness,
            loss=sample.loss,
            comment=self._comment(laziness, sample.loss),
        )
        self.tally.add(found)
        self._said = sample.batch // _BATCHES
        self._outlet.sample(found, sample.step, self.console.sample(found))

    def step(self, batch: int, batches: int | None, loss: float) -> None:
        """Say how far it is, every ten batches."""
        if batch // _BATCHES > self._said:
            self._said = batch // _BATCHES
            self._outlet.say(self.console.progress(batch, batches, loss))

    def end_epoch(self, epoch: int, loss: float | None) -> None:
        """Say what the epoch came to."""
        self._outlet.say(self.console.epoch_end(epoch, loss, self.tally))

    def end(self) -> None:
        """Say what all came to."""
        self._outlet.say(self.console.end(self.tally))

    def _of_the_tier(self, laziness: float, loss: float) -> str:
        return comment_of(laziness, loss, self.tally.total, self._settings.lang)

    def _text(self, logits: torch.Tensor) -> str:
        """The likeliest token of each position, as text. logits: (positions, vocabulary)."""
        tokens = logits[: self._settings.max_text_length].argmax(-1).tolist()
        try:
            return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        except Exception:
            # A small tokenizer need not know every row of a padded vocabulary.
            return " ".join(map(str, tokens))


class JobOutlet:
    """The log and the record of a job.

    Args:
        recorder: the attempt's.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.encoding: str | None = sys.stderr.encoding
        self._recorder = recorder

    def shown(self) -> Iterable[Sample]:
        """Of the steps that the weights have learnt from."""
        return map(Sample.from_event, Run(self._recorder.paths.root).events("distill_sample"))

    def say(self, words: str) -> None:
        """Log it. A box begins on a line of its own, as wide as the others."""
        log.log(PROGRESS, "%s", f"distillation:\n{words}" if "\n" in words else words)

    def sample(self, sample: Sample, step: int, words: str) -> None:
        """Log it, and keep its figures and texts in the event log."""
        words = f"distillation, step {step}:\n{words}"
        self._recorder.metrics("distill_sample", step, sample.figures(), words, **sample.facts())

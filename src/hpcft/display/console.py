"""The boxes and lines of a distillation."""

from __future__ import annotations

from collections.abc import Sequence

from hpcft.display import judge
from hpcft.display.box import Frame, box
from hpcft.display.room import can_show, clean, one_line, shown_in
from hpcft.display.tally import Sample, Tally
from hpcft.display.texts import text
from hpcft.viz.texts import Lang

_TOP_TOPICS = 5


class Console:
    """Says what a distillation shows, as texts to print.

    Args:
        lang: of the words; English where the terminal has no letters for it.
        encoding: of the terminal; None for UTF-8.
        show_diff: whether a sample's texts are also shown word against word.
        validation: whether samples are of the validation.
    """

    def __init__(
        self, lang: Lang = "en", encoding: str | None = None, *, show_diff: bool = False, validation: bool = False
    ) -> None:
        self._encoding = encoding
        self._lang: Lang = lang if can_show(text("finished", lang), encoding) else "en"
        self._show_diff = show_diff
        self._set = "validation_" if validation else ""

    def header(self, temperature: float, alpha: float, beta: float, every: int | None) -> str:
        """The box that a training begins with.

        Args:
            every: batches between two samples; None when none are shown.
        """
        settings = self._text("settings", temperature=float(temperature), alpha=float(alpha), beta=float(beta))
        shown = self._text("no_samples") if every is None else self._text(f"{self._set}frequency", every=every)
        return self._box([[self._text("title")], [settings, shown]], "double")

    def epoch(self, epoch: int, epochs: int) -> str:
        """The box that an epoch begins with; both count from 1."""
        return self._box([[self._text("epoch", epoch=epoch, epochs=epochs)]])

    def sample(self, sample: Sample) -> str:
        """The box of a sample."""
        head = [self._text("batch", batch=sample.batch), self._text("topic", topic=sample.topic)]
        texts = [
            self._text("teacher") + clean(sample.teacher),
            self._text("student") + clean(sample.student),
        ]
        if self._show_diff:
            told = clean(judge.difference(sample.student, sample.teacher))
            texts.append(self._text("difference") + (told or self._text("no_difference")))
        measured = {"icon": judge.icon(sample.laziness), "bar": judge.bar(sample.laziness)}
        figures = [
            self._text("laziness", laziness=sample.laziness, **measured),
            self._text(f"{self._set}loss", loss=sample.loss),
            self._text("comment", comment=sample.comment),
        ]
        return self._box([head, texts, figures])

    def progress(self, batch: int, batches: int | None, loss: float) -> str:
        """The line between samples. batches: of an epoch, None when that is not known."""
        line = self._text("progress", batch=batch, batches="?" if batches is None else batches, loss=loss)
        return shown_in(line, self._encoding)

    def epoch_end(self, epoch: int, loss: float | None, tally: Tally) -> str:
        """The box that an epoch ends with.

        Args:
            epoch: counted from 1. loss: mean of its training losses, None when it had none.
        """
        figures = [] if loss is None else [self._text("mean_loss", loss=loss)]
        topics: list[str] = []
        if (laziness := tally.mean(epoch)) is not None:
            figures.append(self._text("mean_laziness", laziness=laziness))
            most = tally.topics[epoch].most_common(_TOP_TOPICS)
            topics = [self._text("topics"), *(self._text("topic_count", topic=t, count=n) for t, n in most)]
        return self._box([[self._text("epoch_end", epoch=epoch)], figures, topics], "double")

    def end(self, tally: Tally) -> str:
        """The box that a training ends with."""
        figures, advice = [self._text("total", total=tally.total)], list[str]()
        if (overall := tally.overall) is not None:
            figures.append(self._text("overall", laziness=overall))
            advice = [self._text("advice"), self._text(judge.advice(overall))]
        if (points := judge.improvement(tally.means)) is not None:
            figures.append(self._text("trend", trend=self._text(judge.trend(points))))
        return self._box([[self._text("finished")], figures, advice], "double")

    def line(self, key: str, **values: object) -> str:
        """A line of the catalogue alone."""
        return shown_in(self._text(key, **values), self._encoding)

    def _text(self, key: str, **values: object) -> str:
        return one_line(text(key, self._lang, **values))

    def _box(self, sections: Sequence[Sequence[str]], frame: Frame = "single") -> str:
        return shown_in(box(sections, frame), self._encoding)

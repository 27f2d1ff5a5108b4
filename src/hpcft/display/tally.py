"""The samples that were shown, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from hpcft.display.judge import improvement


@dataclass(frozen=True)
class Sample:
    """One shown sample.

    Attributes:
        epoch: counted from 1. batch: within its epoch, or within the validation after it, counted from 0.
        topic: of the teacher's text.
        teacher, student: their likeliest texts, shortened.
        similarity: of the two, from 0 to 1.
        kl: divergence of the distributions, in nats a token.
        laziness: in percent.
        loss: of the training batch; of the row alone in a validation.
        comment: what is said to it.
    """

    epoch: int
    batch: int
    topic: str
    teacher: str
    student: str
    similarity: float
    kl: float
    laziness: float
    loss: float
    comment: str

    def figures(self) -> dict[str, float]:
        """Its measurements, by the names that the record and wandb know them by."""
        measured = {"laziness": self.laziness, "similarity": self.similarity, "kl": self.kl, "loss": self.loss}
        return {f"distill/sample_{name}": value for name, value in measured.items()}

    def facts(self) -> dict[str, Any]:
        """Everything else, for the record."""
        return {k: v for k, v in asdict(self).items() if k not in ("similarity", "kl", "laziness", "loss")}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Sample:
        """From a record with `figures` as its metrics and `facts` beside them."""
        # A log has NaN and infinities as words.
        figures = {k.removeprefix("distill/sample_"): float(v) for k, v in event["metrics"].items()}
        return cls(**{name: {**event, **figures}[name] for name in cls.__dataclass_fields__})


@dataclass
class Tally:
    """What the shown samples come to.

    Attributes:
        laziness: epoch → those of its samples. topics: epoch → topic → samples.
    """

    laziness: dict[int, list[float]] = field(default_factory=dict)
    topics: dict[int, Counter[str]] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """Count a sample."""
        self.laziness.setdefault(sample.epoch, []).append(sample.laziness)
        self.topics.setdefault(sample.epoch, Counter())[sample.topic] += 1

    @property
    def total(self) -> int:
        """Samples that were shown."""
        return sum(map(len, self.laziness.values()))

    @property
    def means(self) -> list[float]:
        """Mean laziness of each epoch that had samples, in their order."""
        return [fmean(self.laziness[epoch]) for epoch in sorted(self.laziness)]

    def mean(self, epoch: int) -> float | None:
        """Mean laziness of an epoch; None without samples."""
        return fmean(self.laziness[epoch]) if epoch in self.laziness else None

    @property
    def overall(self) -> float | None:
        """Mean over the epochs' means; None without samples."""
        return fmean(self.means) if self.laziness else None

    def stats(self) -> dict[str, Any]:
        """The names that scripts know them by: `total_samples`; `topic_distribution`, topic → samples, most first;
        `avg_laziness`, a mean for each epoch; `improvement_rate`, by how many points of laziness the last epoch is
        better than the first, None before the second."""
        topics = sum(self.topics.values(), Counter[str]())
        return {
            "total_samples": self.total,
            "topic_distribution": dict(topics.most_common()),
            "avg_laziness": self.means,
            "improvement_rate": improvement(self.means),
        }

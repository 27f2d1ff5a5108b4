"""What teachers and students said while they were watched, of runs that are distillations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcft.display.room import clean
from hpcft.display.tally import Sample, Tally
from hpcft.runs.run import Run

# Those of one run that stand in a report, the first and the last among them.
_MOST = 8


@dataclass(frozen=True)
class Lesson:
    """What one run has shown.

    Attributes:
        rows: `training` or `validation`, of which the samples are.
        samples: each with its optimizer step, in their order.
    """

    rows: str
    samples: list[tuple[int, Sample]]


def read_lessons(runs: Mapping[str, Run]) -> dict[str, Lesson]:
    """The samples that were shown, by the name of their run."""
    found = {}
    for name, run in runs.items():
        if run.config.get("variant") != "distill":
            continue
        if samples := [sample for event in run.events("distill_sample") if (sample := _read(event)) is not None]:
            own = run.config.get("distill")
            rows = own.get("sample_set") if isinstance(own, dict) else None
            found[name] = Lesson("validation" if rows == "validation" else "training", samples)
    return found


def _read(event: Mapping[str, Any]) -> tuple[int, Sample] | None:
    try:
        return int(event["step"]), Sample.from_event(event)
    except (KeyError, TypeError, ValueError, AttributeError):
        # Written by another version.
        return None


def overview_rows(lessons: Mapping[str, Lesson]) -> list[list[str]]:
    """One a run: name, rows that the samples are of, samples shown, mean laziness by epoch, improvement, topics."""
    rows = []
    for name, lesson in lessons.items():
        stats = facts(lesson)
        means, points = stats["avg_laziness"], stats["improvement_rate"]
        rows.append(
            [
                name,
                lesson.rows,
                f"{stats['total_samples']:,}",
                " → ".join(f"{mean:.2f}" for mean in means),
                "–" if points is None else f"{points:.2f}",
                ", ".join(f"{topic}: {count:,}" for topic, count in stats["topic_distribution"].items()),
            ]
        )
    return rows


def sample_rows(lessons: Mapping[str, Lesson]) -> list[list[str]]:
    """Some samples of each run, evenly taken: name, rows that it is of, step, topic, teacher, student, laziness, loss,
    comment."""
    rows = []
    for name, lesson in lessons.items():
        last = len(lesson.samples) - 1
        for place in sorted({round(i * last / (_MOST - 1)) for i in range(_MOST)}):
            step, sample = lesson.samples[place]
            texts = [sample.topic, clean(sample.teacher), clean(sample.student)]
            figures = [f"{sample.laziness:.2f}", f"{sample.loss:.4f}"]
            rows.append([name, lesson.rows, str(step), *texts, *figures, sample.comment])
    return rows


def facts(lesson: Lesson) -> dict[str, Any]:
    """A run's samples as data for a program."""
    tally = Tally()
    for _, sample in lesson.samples:
        tally.add(sample)
    return {**tally.stats(), "sample_set": lesson.rows}


def loss_words(lessons: Mapping[str, Lesson]) -> str:
    """What the losses of the samples are losses of."""
    words = {"training": "training: of the batch", "validation": "validation: of the row alone"}
    return "; ".join(words[rows] for rows in words if any(lesson.rows == rows for lesson in lessons.values()))

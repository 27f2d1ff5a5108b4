"""Knowledge distillation: what a student learns from its teacher, and how the lessons are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from hpcft.spec.section import Section
from hpcft.spec.types import Lang, Reference, ScriptPath

# As `model.name`: a model that is made after the teacher's configuration.
STUDENT = "student"

Profile = Literal["quick", "detailed", "high_quality", "teaching", "production", "debug"]
# The two weights of the objective, which are one together.
SHARES = ("distill.alpha", "distill.beta")


class DistillSection(Section):
    """Of variant `distill`: the teacher, the objective, the student, the display."""

    teacher: Reference | None = Field(
        None, description="model that is learned from: a finished run, a folder or a hub id"
    )
    teacher_revision: Reference | None = Field(None, description="commit, tag or branch of a hub teacher")
    teacher_quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="how the teacher's weights are held while it teaches"
    )
    temperature: float = Field(
        4.0, gt=0, le=100, description="softens both distributions before they are compared; 2 to 8 is usual"
    )
    alpha: float = Field(0.7, ge=0, le=1, description="weight of what the teacher says; with beta it is 1")
    beta: float = Field(0.3, ge=0, le=1, description="weight of the data's own answers; follows from alpha when absent")
    loss: Literal["response", "feature", "combined", "relation", "attention"] = Field(
        "response",
        description="what is compared: next-token distributions; hidden states; both (response + 0.1 feature); how "
        "alike the tokens of a row are to each other; attention maps",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="the teacher's likeliest tokens that are compared one by one, the others as one; null: all of them",
    )
    cache: bool = Field(
        False, description="ask the teacher once, before training, and keep its top_k on disk; no teacher afterwards"
    )
    cache_folder: ScriptPath | None = Field(
        None, description="where several runs share what was kept; the run's own folder, removed at its end, when null"
    )
    student_layers: int | None = Field(
        None, ge=1, le=10_000, description="layers of a student that is made; null: half of the teacher's"
    )
    student_hidden: int | None = Field(
        None, ge=1, le=1_048_576, description="width of a student that is made; null: the teacher's"
    )
    init_from_teacher: Literal["none", "every_nth"] = Field(
        "none",
        description="weights that a made student begins with: random ones, or evenly spaced layers of the teacher, "
        "its embedding, head and norms",
    )
    show_samples: bool = Field(True, description="show on the console what teacher and student say")
    show_diff: bool = Field(False, description="show where their texts differ")
    sample_frequency: int = Field(50, ge=1, le=1_000_000, description="batches between two samples that are shown")
    sample_set: Literal["training", "validation"] = Field(
        "training", description="rows that are shown: while they are trained, or at the validation after each epoch"
    )
    max_text_length: int = Field(100, ge=1, le=100_000, description="characters of a text that are shown")
    profile: Profile | None = Field(
        None, description="values for an occasion: temperature, weights and display, unless something else says them"
    )
    lang: Lang = Field("en", description="language of what is shown; follows from the job's lang when absent")

    @property
    def shows_validation(self) -> bool:
        """Whether what is shown are rows of the validation."""
        return self.show_samples and self.sample_set == "validation"


# What changes nothing in the student.
DISPLAY = frozenset(
    ("show_samples", "show_diff", "sample_frequency", "sample_set", "max_text_length", "profile", "lang")
)


def _shown(frequency: int, length: int, diff: bool) -> dict[str, Any]:
    return {
        "distill.sample_frequency": frequency,
        "distill.max_text_length": length,
        "distill.show_diff": diff,
    }


# Job keys and the values that a profile begins with; whatever says something of a key wins over it.
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "quick": _shown(100, 50, False),
    "detailed": _shown(10, 200, True),
    "high_quality": {
        "distill.temperature": 6.0,
        "distill.alpha": 0.9,
        "distill.beta": 0.1,
        "distill.sample_frequency": 50,
    },
    "teaching": _shown(5, 150, True),
    "production": _shown(200, 50, False),
    "debug": _shown(1, 200, True),
}

"""A job's memory with its activations: the estimate of `fit` on what `activations` counts."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from hpcft.errors import ConfigError
from hpcft.measure.activations import Held, Shape, held
from hpcft.measure.fit import Estimate, Target, estimate, step_shape
from hpcft.measure.flops import twin
from hpcft.models.adapter import adapter_config
from hpcft.models.availability import QUICKSTART, model_folder
from hpcft.models.groups import FAMILIES
from hpcft.models.load import load_config
from hpcft.models.open import subject
from hpcft.models.shapes import Weights, count
from hpcft.models.student import student_shape
from hpcft.models.teacher import teacher_config, teacher_job
from hpcft.spec.distill import STUDENT, DistillSection
from hpcft.spec.job import Job, LoraSection, ModelSection, PeftSection
from hpcft.spec.variants import VARIANTS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)


def estimate_of(job: Job, target: Target) -> Estimate:
    """What a rank of a job needs.

    Raises:
        ConfigError, UnavailableError: the model's configuration cannot be had.
    """
    return estimate(job, weights_of(job), target, held_by(job, target), teacher_of(job))


def model_type(job: Job) -> str:
    """The base model's architecture, as its configuration names it.

    Raises:
        ConfigError, UnavailableError: the configuration cannot be had.
    """
    return str(_config(job.model, _made(job)).model_type)


def weights_of(job: Job) -> Weights:
    """The model's numbers of parameters, by its twin.

    Raises:
        ConfigError, UnavailableError: the model's configuration cannot be had.
    """
    return _weights(job.model, _made(job), job.variant, *_sections(job), _labels(job))


def teacher_of(job: Job) -> Weights | None:
    """The numbers of parameters of a distillation's teacher; an adapter's own, which are few, are left out.

    Raises:
        ConfigError, UnavailableError: the teacher's configuration cannot be had.
    """
    if not job.distills:
        return None
    return _weights(subject(teacher_job(job)).base, None, "full", *_sections(job), None)


def held_by(job: Job, target: Target) -> Held | None:
    """What a step holds beside weights and states; None where the model's code cannot run without numbers."""
    return _held(job.model, _made(job), job.variant, *_sections(job), _labels(job), step_shape(job, target))


def _made(job: Job) -> str | None:
    """What a student that is still to be made is made of, as text, since it has to have a hash."""
    return job.distill.model_dump_json() if job.distills and job.model.name == STUDENT else None


def _labels(job: Job) -> int | None:
    """Classes of a classifier; None for a model that writes text."""
    family = FAMILIES.get(_config(job.model, _made(job)).model_type)
    reads_only = family is not None and not family.generates
    return (job.model.num_labels or 2) if job.data.task == "classification" or reads_only else None


def _config(model: ModelSection, made: str | None) -> PretrainedConfig:
    if made is not None:
        return _student(made)
    if model.name == QUICKSTART and model_folder(model) is None:
        raise ConfigError(
            "the quickstart model is not made yet",
            where="model.name",
            hint="make it once: hpcft fetch --model quickstart --dataset quickstart",
        )
    return _loaded(model)


@cache
def _student(made: str) -> PretrainedConfig:
    asked = DistillSection.model_validate_json(made)
    config = teacher_config(Job(distill=asked))
    for name, value in student_shape(config.to_dict(), asked).items():
        setattr(config, name, value)
    return config


@cache
def _loaded(model: ModelSection) -> PretrainedConfig:
    return load_config(model)


@cache
def _weights(model: ModelSection, made: str | None, variant: str, lora: str, peft: str, labels: int | None) -> Weights:
    config = _config(model, made)
    shapes = {name: tuple(p.shape) for name, p in twin(config, labels, "sdpa").named_parameters()}
    return count(shapes, config.to_dict(), _job(model, variant, lora, peft))


@cache
def _held(
    model: ModelSection, made: str | None, variant: str, lora: str, peft: str, labels: int | None, shape: Shape
) -> Held | None:
    config = _config(model, made)
    adapter = None
    if VARIANTS[variant].adapter is not None:
        adapter = adapter_config(_job(model, variant, lora, peft), config, classifier=labels is not None)
    try:
        return held(config, adapter, shape, num_labels=labels)
    except Exception as error:
        # Code of any architecture runs here on tensors without numbers, and may not stand it.
        log.warning("the activations of this model cannot be counted: %s", error)
        return None


def _sections(job: Job) -> tuple[str, str]:
    """What of a job shapes its adapter, as text, since a list in it has no hash."""
    return job.lora.model_dump_json(), job.peft.model_dump_json()


def _job(model: ModelSection, variant: str, lora: str, peft: str) -> Job:
    """What of a job the twin depends on."""
    sections = {"lora": LoraSection.model_validate_json(lora), "peft": PeftSection.model_validate_json(peft)}
    return Job(model=model, variant=variant, **sections)

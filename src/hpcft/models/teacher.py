"""The teacher of a distillation: found, looked at, opened; never trained and never saved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError, HpcftError
from hpcft.models.availability import model_folder
from hpcft.models.open import adapter_kind, check_subject, open_config, open_model, open_tokenizer, subject
from hpcft.models.student import student_shape, width_of
from hpcft.spec.distill import STUDENT
from hpcft.spec.job import Job, ModelSection
from hpcft.spec.variants import Quantization

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# Vectors in front of the input move all places, and the teacher's would not be the student's any more.
_IN_FRONT = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CARTRIDGE")
_HELD: dict[str, Quantization] = {"none": "none", "8bit": "int8", "4bit": "nf4"}


def teacher_job(job: Job) -> Job:
    """The job of answering with the teacher: what `models.open` takes."""
    own = ModelSection(
        name=str(job.distill.teacher),
        revision=job.distill.teacher_revision,
        dtype=job.model.dtype,
        attn_implementation="eager" if job.distill.loss == "attention" else job.model.attn_implementation,
    )
    return job.model_copy(update={"kind": "evaluate", "model": own})


def check_teacher(job: Job, internet: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a teacher that cannot be opened where the job runs, or that the student cannot learn from, as far as
    files tell.

    Args:
        environ: of the job, which says where its caches are.

    Raises:
        ConfigError: with what is wrong and what to do.
    """
    told = teacher_job(job)
    with _said_of_the_teacher():
        check_subject(told, internet, environ)
        found = subject(told)
    if found.adapter is not None and (kind := adapter_kind(found.adapter)) in _IN_FRONT:
        raise ConfigError(
            f"an adapter of kind {kind} puts vectors in front of the input, where the student has none",
            where="distill.teacher",
            hint="take a whole model, or an adapter that changes weights, such as a LoRA",
        )
    folder = model_folder(found.base, environ)
    if folder is None:
        return
    config = _read(folder / "config.json")
    if job.model.name == STUDENT:
        if config:
            student_shape(config, job.distill)
            check_widths(job.distill.loss, job.distill.student_hidden or width_of(config), width_of(config))
        return
    own = model_folder(job.model, environ)
    if own is not None:
        check_widths(job.distill.loss, width_of(_read(own / "config.json")), width_of(config))
    mine, theirs = (None if f is None else _vocabulary(f) for f in (own, folder))
    if mine and theirs:
        check_same_tokens(mine, theirs)


def check_widths(loss: str, student: int | None, teacher: int | None) -> None:
    """Refuse to compare states of different widths. A map from one to the other would have to be trained beside the
    student, saved with it and thrown away; `relation` needs none.

    Args:
        loss: as `distill.loss`.
        student, teacher: widths of their hidden states; None where they are not known yet.

    Raises:
        ConfigError: with both widths.
    """
    if loss not in ("feature", "combined") or student is None or teacher is None or student == teacher:
        return
    raise ConfigError(
        f"loss {loss} compares hidden states, and the student's are {student} wide, the teacher's {teacher}",
        where="distill.loss",
        hint="relation compares states of any widths, response none",
    )


def check_same_tokens(student: Mapping[str, int], teacher: Mapping[str, int]) -> None:
    """Refuse two vocabularies in which a number means two tokens: distributions over them cannot be compared.

    Args:
        student, teacher: token → number.

    Raises:
        ConfigError: with the sizes and a token that differs.
    """
    if student == teacher:
        return
    differing = sorted((t for t in student.keys() | teacher.keys() if student.get(t) != teacher.get(t)), key=repr)
    shown = ", ".join(f"{t!r} is {_number(student, t)} and {_number(teacher, t)}" for t in differing[:3])
    raise ConfigError(
        f"student and teacher do not share their tokens: they have {len(student)} and {len(teacher)}, of which "
        f"{len(differing)} differ ({shown})",
        where="distill.teacher",
        hint="take two models of one family and generation, or a student that is made after the teacher: "
        "--model student",
    )


def _number(vocabulary: Mapping[str, int], token: str) -> str:
    return str(vocabulary[token]) if token in vocabulary else "missing"


def check_same_tokenizer(student: PreTrainedTokenizerBase, job: Job) -> None:
    """The same of loaded tokenizers, where the files did not tell.

    Raises:
        ConfigError: as `check_same_tokens`; or the teacher has no tokenizer.
    """
    with _said_of_the_teacher():
        teacher = open_tokenizer(teacher_job(job))
    check_same_tokens(student.get_vocab(), teacher.get_vocab())


def teacher_config(job: Job) -> PretrainedConfig:
    """The configuration of the whole model.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded.
    """
    with _said_of_the_teacher():
        return open_config(teacher_job(job))


def open_teacher(job: Job, device: torch.device) -> Any:
    """Load the teacher: in eval mode, without gradients, an adapter in its weights where that can be.

    With ZeRO 3 in force a whole model of unquantised weights is divided over the ranks, and answers only through an
    engine (`train.teacher`). Any other is whole on each rank.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded.
    """
    from hpcft.models.load import undivided

    told = teacher_job(job)
    if divided(job):
        with _said_of_the_teacher():
            model = _divided(told, device)
    else:
        with _said_of_the_teacher(), undivided():
            model = open_model(told, device, quantization=_HELD[job.distill.teacher_quantization])
            model = _plain(model, told)
    model.config.use_cache = False
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def divided(job: Job) -> bool:
    """Whether the ranks share one teacher, as ZeRO 3 makes them share the student."""
    whole = subject(teacher_job(job)).adapter is None
    return job.zero_stage == 3 and whole and job.distill.teacher_quantization == "none"


def _divided(told: Job, device: torch.device) -> Any:
    from hpcft.models.load import load_base

    # A training job of stage 3 leaves the placing of weights to DeepSpeed.
    own = told.model_copy(
        update={"kind": "train", "training": told.training.model_copy(update={"zero": 3, "offload": "none"})}
    )
    return load_base(own, device, quantization="none")


def _plain(model: Any, told: Job) -> Any:
    from hpcft.models.merge import check_mergeable, merged

    found = subject(told)
    if found.adapter is None or told.distill.teacher_quantization != "none":
        return model
    try:
        check_mergeable(adapter_kind(found.adapter))
    except ConfigError:
        return model
    return merged(model)


@contextmanager
def _said_of_the_teacher() -> Iterator[None]:
    """Let an error about a model name the key and the option that this one stands in."""
    try:
        yield
    except HpcftError as error:
        if error.where in ("model.name", None):
            error.where = "distill.teacher"
            if error.hint:
                error.hint = error.hint.replace("--model quickstart", "--teacher quickstart")
        raise


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token → number, told from tokenizer.json; None where that does not tell it."""
    found = _read(folder / "tokenizer.json")
    model = found.get("model")
    listed = model.get("vocab") if isinstance(model, dict) else None
    try:
        if isinstance(listed, dict):
            own = {str(token): int(number) for token, number in listed.items()}
        elif isinstance(listed, list):
            own = {str(entry[0]): number for number, entry in enumerate(listed)}
        else:
            return None
        return own | {str(added["content"]): int(added["id"]) for added in found.get("added_tokens") or []}
    except (TypeError, ValueError, LookupError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

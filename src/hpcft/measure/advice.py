"""The cheapest change that lets a job fit, as values to set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic import ValidationError

from hpcft.spec.faults import faults
from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS

Change = dict[str, object]


def cheapest(job: Job, fits: Callable[[Job], bool]) -> Change | None:
    """Find values that make a job fit, in the order of what they cost: time (checkpointing, smaller batches with the
    same effective one), communication (ZeRO), exactness of the weights (4 bits), and much time (offload).

    Args:
        fits: whether a job does.

    Returns:
        key → value, as few as can be; None when nothing helps.
    """
    kinds = [changes for kind in _KINDS if (changes := list(kind(job)))]
    for changes in kinds:
        for change in changes:
            if _fits(job, change, fits):
                return change
    chosen: list[tuple[list[Change], Change]] = []
    for changes in kinds:
        chosen.append((changes, changes[-1]))
        if _fits(job, _together([change for _, change in chosen]), fits):
            return _lightened(job, chosen, fits)
    return None


def _lightened(job: Job, chosen: list[tuple[list[Change], Change]], fits: Callable[[Job], bool]) -> Change:
    """The same without what is not needed, the most costly first, each of what stays as mild as it can be."""
    for i in range(len(chosen) - 1, -1, -1):
        for change in [{}, *chosen[i][0]]:
            others = [change if j == i else other for j, (_, other) in enumerate(chosen)]
            if _fits(job, _together(others), fits):
                chosen[i] = (chosen[i][0], change)
                break
    return _together([change for _, change in chosen])


def _together(changes: list[Change]) -> Change:
    return {key: value for change in changes for key, value in change.items()}


def changed(job: Job, change: Change) -> Job | None:
    """The job with other values; None when they do not go together."""
    tree = job.model_dump()
    for key, value in change.items():
        section, _, inner = key.partition(".")
        if inner:
            tree[section][inner] = value
        else:
            tree[section] = value
    try:
        other = Job.model_validate(tree)
    except ValidationError:
        return None
    return None if faults(other) else other


def _fits(job: Job, change: Change, fits: Callable[[Job], bool]) -> bool:
    other = changed(job, change)
    return other is not None and fits(other)


def _checkpointing(job: Job) -> Iterator[Change]:
    if not job.training.gradient_checkpointing:
        yield {"training.gradient_checkpointing": True}


def _batch(job: Job) -> Iterator[Change]:
    """Half the rows and twice the accumulation, again and again: the same effective batch."""
    t = job.training
    rows, steps = t.per_device_train_batch_size, t.gradient_accumulation_steps
    evaluated = t.per_device_eval_batch_size if job.evaluation.enabled else 1
    while rows % 2 == 0 or evaluated > 1:
        change: Change = {}
        if rows % 2 == 0:
            rows, steps = rows // 2, steps * 2
        if rows != t.per_device_train_batch_size:
            change = {"training.per_device_train_batch_size": rows, "training.gradient_accumulation_steps": steps}
        if evaluated > 1:
            evaluated //= 2
            change["training.per_device_eval_batch_size"] = evaluated
        yield change


def _zero(job: Job) -> Iterator[Change]:
    if job.world_size > 1:
        for stage in range((job.zero_stage or 0) + 1, 4):
            yield {"training.zero": stage}


def _four_bits(job: Job) -> Iterator[Change]:
    if job.distills:
        # All of the student is trained; its teacher need not be exact.
        held = ["none", "8bit", "4bit"]
        for fewer in held[held.index(job.distill.teacher_quantization) + 1 :]:
            yield {"distill.teacher_quantization": fewer}
    elif VARIANTS[job.variant].quantization != "nf4":
        yield {"variant": "qlora"}


def _offload(job: Job) -> Iterator[Change]:
    if job.training.offload == "none":
        yield {"training.offload": "optimizer", "training.zero": max(2, job.zero_stage or 0)}
    if job.training.offload != "all":
        yield {"training.offload": "all", "training.zero": 3}


_KINDS = (_checkpointing, _batch, _zero, _four_bits, _offload)

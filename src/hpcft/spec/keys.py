"""The keys of a job, their short names, and the nearest valid one to a misspelt one."""

from __future__ import annotations

import types
import typing
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hpcft.spec.job import Job

# The names of the options on the command line, of wandb sweeps and of earlier tools, and the key each one sets.
SHORT_NAMES: dict[str, str] = {
    "variant": "variant",
    "name": "name",
    "experiment_name": "name",
    "results": "results",
    "output_dir": "results",
    "lang": "lang",
    "model": "model.name",
    "dataset": "data.dataset",
    "validation": "data.validation",
    "num_samples": "data.train_samples",
    "train_samples": "data.train_samples",
    "eval_samples": "data.eval_samples",
    "max_length": "data.max_length",
    "task": "data.task",
    "packing": "data.packing",
    "target": "lora.target_module_group",
    "r": "lora.r",
    "lora_r": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "alpha": "lora.lora_alpha",
    "lora_dropout": "lora.lora_dropout",
    "phase_strategy": "lora.phase_strategy",
    "phase1_end": "lora.phase1_end",
    "phase2_end": "lora.phase2_end",
    "batch_size": "training.per_device_train_batch_size",
    "grad_accum": "training.gradient_accumulation_steps",
    "max_steps": "training.max_steps",
    "epochs": "training.num_train_epochs",
    "num_epochs": "training.num_train_epochs",
    "lr": "training.learning_rate",
    "learning_rate": "training.learning_rate",
    "warmup_steps": "training.warmup_steps",
    "seed": "training.seed",
    "teacher": "distill.teacher",
    "temperature": "distill.temperature",
    "log_frequency": "gradients.log_frequency",
    "zero": "training.zero",
    "offload": "training.offload",
    "method": "quantize.method",
    "queries": "bench.queries",
    "max_new_tokens": "evaluation.max_new_tokens",
    "nodes": "resources.nodes",
    "gpus_per_node": "resources.gpus_per_node",
    "time": "resources.time",
    "partition": "resources.partition",
    "account": "resources.account",
    "qos": "resources.qos",
    "wandb": "tracking.mode",
    "project": "tracking.project",
}


# What other tools call it, where no spelling is near to ours.
_ELSEWHERE = {
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "torch_dtype": "model.dtype",
    "load_in_4bit": "variant",
    "load_in_8bit": "variant",
    "model_name_or_path": "model.name",
    "path": "model.name",
    "rank": "lora.r",
    "per_device_batch_size": "training.per_device_train_batch_size",
    "deepspeed": "training.zero",
    "report_to": "tracking.mode",
    "gpus": "resources.gpus_per_node",
    "num_gpus": "resources.gpus_per_node",
    "gres": "resources.gpus_per_node",
    "mem": "resources.mem_gb",
}


@cache
def fields() -> dict[str, FieldInfo]:
    """Every key of a job with its pydantic field, `training.learning_rate` style, in order."""
    found: dict[str, FieldInfo] = {}
    for name, field in Job.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= {f"{name}.{inner}": f for inner, f in field.annotation.model_fields.items()}
        else:
            found[name] = field
    return found


@cache
def sections() -> frozenset[str]:
    """Names of the sections."""
    return frozenset(key.split(".")[0] for key in fields() if "." in key)


def allows_none(key: str) -> bool:
    """Whether a key may be set to null."""
    field = fields().get(key)
    return field is not None and _has(field.annotation, types.NoneType)


def _has(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(_has(arg, wanted) for arg in typing.get_args(annotation))


def is_list(key: str) -> bool:
    """Whether a key holds a list."""
    field = fields().get(key)
    return field is not None and any(
        typing.get_origin(a) is list for a in (field.annotation, *typing.get_args(field.annotation))
    )


def nearest(key: str) -> str | None:
    """The valid key that a misspelt one most likely meant.

    >>> nearest("training.lernin_rate"), nearest("lr"), nearest("training.batch_size"), nearest("zzz")
    ('training.learning_rate', 'training.learning_rate', 'training.per_device_train_batch_size', None)
    >>> nearest("distil.alpha"), nearest("alpha")
    ('distill.alpha', 'lora.lora_alpha')
    """
    section, _, last = key.lower().rpartition(".")
    for near in get_close_matches(section, sections(), n=1, cutoff=0.8):
        # Its section alone is misspelt.
        if f"{near}.{last}" in fields():
            return f"{near}.{last}"
    if last in _ELSEWHERE:
        return _ELSEWHERE[last]
    if close := get_close_matches(key, list(fields()), n=1, cutoff=0.9):
        return close[0]
    if last in SHORT_NAMES:
        return SHORT_NAMES[last]
    if close := get_close_matches(key, list(fields()), n=1, cutoff=0.75):
        return close[0]
    by_last: dict[str, str] = {}
    for full in fields():
        by_last.setdefault(full.rpartition(".")[2], full)
    candidates = by_last | {short: full for short, full in SHORT_NAMES.items() if len(short) > 3}
    close = get_close_matches(last, list(candidates), n=1, cutoff=0.72)
    return candidates[close[0]] if close else None

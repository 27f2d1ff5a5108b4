"""The form that a job is asked for with, made from the job's own fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic.fields import FieldInfo

from hpcft.errors import UsageError
from hpcft.spec.keys import fields
from hpcft.spec.variants import VARIANTS

# What most jobs say; the rest stands below, by section.
BASICS = (
    "name",
    "variant",
    "model.name",
    "data.dataset",
    "data.validation",
    "data.task",
    "data.train_samples",
    "data.eval_samples",
    "training.num_train_epochs",
    "training.max_steps",
    "training.per_device_train_batch_size",
    "training.learning_rate",
    "lora.r",
    "lora.lora_alpha",
    "lora.target_module_group",
    "resources.accelerator",
    "resources.gpus_per_node",
    "resources.nodes",
    "resources.time",
    "tracking.mode",
)
# Of other kinds of job, or not for a request to say.
_NOT_ASKED = ("kind", "of", "runs", "results", "merge.", "quantize.", "bench.")
# Beside a job's keys: where it goes and what it begins with; and the button that was pressed.
BESIDE = ("preset", "cluster")
_LONGEST = 200_000


@dataclass(frozen=True)
class Field:
    """One input.

    Attributes:
        key: of the job, which stands above it. help: what stands below.
        kind: text, number, or one of several.
        choices: (value, words) of one of several.
        default: in grey.
        whole: of a number.
    """

    key: str
    help: str
    kind: Literal["text", "number", "choice"]
    default: str
    choices: tuple[str, ...] = ()
    whole: bool = False


def form_fields() -> tuple[list[Field], dict[str, list[Field]]]:
    """The fields that most jobs need, and all others by section."""
    known = {key: _field(key, info) for key, info in fields().items() if not key.startswith(_NOT_ASKED)}
    others: dict[str, list[Field]] = {}
    for key, field in known.items():
        if key not in BASICS:
            others.setdefault(key.partition(".")[0] if "." in key else "job", []).append(field)
    return [known[key] for key in BASICS], others


def _field(key: str, info: FieldInfo) -> Field:
    default = info.get_default(call_default_factory=True)
    shown = "" if default is None else _text(default)
    about = (key, info.description or "")
    kinds = [a for a in _parts(info.annotation) if a is not types.NoneType]
    if key == "variant":
        return Field(*about, "choice", shown, tuple(VARIANTS))
    if bool in kinds:
        return Field(*about, "choice", shown, ("true", "false"))
    if values := tuple(str(v) for k in kinds if typing.get_origin(k) is Literal for v in typing.get_args(k)):
        return Field(*about, "choice", shown, values)
    if int in kinds or float in kinds:
        return Field(*about, "number", shown, whole=float not in kinds)
    return Field(*about, "text", shown)


def _parts(annotation: Any) -> list[Any]:
    """The types of a union, or the one."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [part for each in typing.get_args(annotation) for part in _parts(each)]
    return [annotation]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def as_texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings as the form's texts, those that it asks for."""
    asked = {key for key in fields() if not key.startswith(_NOT_ASKED)}
    return {key: _text(value) for key, value in config.items() if key in asked and value is not None}


async def sent(request: Request) -> dict[str, str]:
    """What a form has sent; fields that were left empty are left out.

    Raises:
        UsageError: it is too long, no form, or a field stands twice.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            raise UsageError(f"the form has more than {_LONGEST:,} bytes", where="the form")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict")
    except ValueError as error:
        raise UsageError("what was sent is no form", where="the form") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise UsageError("stands twice", where=name[:60])
        found[name] = value.replace("\r\n", "\n")
    return {name: value for name, value in found.items() if value.strip()}


def config_of(form: Mapping[str, str]) -> dict[str, Any]:
    """A form's job as a request's configuration.

    Raises:
        UsageError: a field that the form does not have.
    """
    asked = [key for key in fields() if not key.startswith(_NOT_ASKED)]
    if odd := next((name for name in form if name not in (*asked, *BESIDE, "do")), None):
        raise UsageError("is no field of the form", where=odd[:60])
    return {name: value for name, value in form.items() if name not in ("do", "cluster")}

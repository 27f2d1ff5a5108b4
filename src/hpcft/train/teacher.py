"""A teacher that answers while its student is trained."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from hpcft.models.teacher import divided, open_teacher
from hpcft.spec.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Said:
    """What a model says of a batch.

    Attributes:
        logits: at the n places that are asked for, shape (n, vocabulary); of a teacher perhaps its likeliest tokens.
        asked: positions that the output head was computed at.
        hidden, maps: as `transformers` gives them; None unless they are asked for.
    """

    logits: Any
    asked: int
    hidden: tuple[torch.Tensor, ...] | None
    maps: tuple[torch.Tensor, ...] | None


def ask(model: Any, inputs: Mapping[str, Any], places: Mapping[str, torch.Tensor], loss: str) -> Said:
    """Let a model read a batch, and take its logits at some places. The output head is computed at these alone where
    the model lets one choose.

    Args:
        inputs: of the model: tokens, and a mask or positions.
        places: as `distill_losses.places_of` gives them.
        loss: of `distill.loss`.
    """
    options: dict[str, Any] = {"use_cache": False}
    if loss in ("feature", "combined", "relation"):
        options["output_hidden_states"] = True
    if loss == "attention":
        options["output_attentions"] = True
    chooses = takes_places(model)
    if chooses:
        options["logits_to_keep"] = places["kept"]
    output = model(**inputs, **options)
    logits = output.logits.flatten(0, 1)
    among = places["among" if chooses else "flat"]
    # As many as there are: they are the same ones in the same order.
    chosen = logits if among.numel() == logits.shape[0] else logits.index_select(0, among)
    return Said(chosen, logits.shape[0], output.get("hidden_states"), output.get("attentions"))


def takes_places(model: Any) -> bool:
    """Whether a model computes its output head at chosen positions alone."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = getattr(model, "module", None) or model._orig_mod
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return _chooses(type(model).forward)


@cache
def _chooses(forward: Any) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters


def teacher_of(job: Job, device: torch.device) -> Any:
    """The job's teacher, ready to answer; with ZeRO 3 on every rank, since they answer together.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded.
    """
    model = open_teacher(job, device)
    return _through_an_engine(model) if divided(job) else model


def _through_an_engine(model: Any) -> Any:
    """Let an engine of its own gather the divided weights, layer by layer. It has no optimizer and keeps no states."""
    import deepspeed

    dtype = next(model.parameters()).dtype
    config = {
        "zero_optimization": {"stage": 3},
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "fp16": {"enabled": dtype == torch.float16},
        "steps_per_print": 1_000_000_000,
    }
    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.eval()
    return engine

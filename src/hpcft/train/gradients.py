"""Gradient norms of each optimizer step, by group of modules and by layer.

They are of the whole gradient that the step is made of: after all of its micro-batches, over all ranks, unscaled and
before clipping. Of each weight one sum of squares is computed where the gradient lies, the sums of a group stay on
the device, and they are read together with the trainer's counts, in the one collective of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from hpcft.models.groups import GROUPS, group_of, layer_of

# Columns of a group's norms; `other` counts for the total alone.
_NAMED = ("embed", "attention", "mlp", "lm_head")
_IN_LAYERS = ("attention", "mlp")


class GradientNorms:
    """Sums of squares of the gradient of one optimizer step.

    Args:
        model: with its trainable weights.
        model_type: `config.model_type` of the base model, which says what a weight's name means.
        every: optimizer steps between two measurements.
        layers: measure each layer too.
    """

    def __init__(self, model: torch.nn.Module, model_type: str, *, every: int = 1, layers: bool = True) -> None:
        self.every = every
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        groups = [group_of(name, model_type) for name, _ in named]
        numbers = [layer_of(name) for name, _ in named]
        self.layers = 1 + max((n for n in numbers if n is not None), default=-1) if layers else 0
        # A cell for each group, then one for each layer's attention, then one for each layer's MLP.
        self._cells = len(GROUPS) + len(_IN_LAYERS) * self.layers
        self._group = torch.tensor([GROUPS.index(group) for group in groups])
        layer = [
            len(GROUPS) + _IN_LAYERS.index(group) * self.layers + number
            if self.layers and number is not None and group in _IN_LAYERS
            else -1
            for group, number in zip(groups, numbers, strict=True)
        ]
        self._layer = torch.tensor(layer)
        self._squares: torch.Tensor | None = None

    def due(self, step: int) -> bool:
        """Whether the step of this number, from 1, is measured."""
        return step % self.every == 0

    def measure(self, gradients: list[torch.Tensor | None], scale: float = 1.0) -> torch.Tensor | None:
        """Take one step's gradient, or this rank's share of it.

        Args:
            gradients: of each of `parameters`, or of the part of it that lies on this rank; None where there is none.
            scale: what they were multiplied with, such as float16's loss scale.

        Returns:
            The norm of each gradient that there is, shape (n,), for whoever clips by them; None without any.
        """
        there, tensors = list[int](), list[torch.Tensor]()
        for i, gradient in enumerate(gradients):
            if gradient is not None and gradient.numel():
                there.append(i)
                tensors.append(gradient)
        if not there:
            self._squares = torch.zeros(self._cells, dtype=torch.float64)
            return None
        norms = torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float32))
        device = norms.device
        # MPS has no float64.
        squares = norms.to(torch.float32 if device.type == "mps" else torch.float64).div(scale).square()
        whole = len(there) == len(gradients)
        chosen = slice(None) if whole else torch.tensor(there, device=device)
        if self._group.device != device:
            self._group, self._layer = self._group.to(device), self._layer.to(device)
        cells = torch.zeros(self._cells + 1, dtype=squares.dtype, device=device)
        cells.index_add_(0, self._group[chosen], squares)
        if self.layers:
            # What lies in no layer goes into the last cell, which nobody reads.
            cells.index_add_(0, self._layer[chosen] % (self._cells + 1), squares)
        self._squares = cells[:-1]
        return norms

    def take(self) -> torch.Tensor | None:
        """The sums of the step that was measured last, once: for the read of the trainer's counts."""
        squares, self._squares = self._squares, None
        return squares

    def norms(self, squares: list[float]) -> dict[str, Any]:
        """Norms of a step, from its sums over all ranks.

        Returns:
            `embed_norm`, `attention_norm`, `mlp_norm`, `lm_head_norm`, `total_norm` (with what is in no group), and
            with layers `layer_norms`: `attention` and `mlp`, a figure for each layer. Empty when the gradient is not
            finite: float16's step is left out then, and another one stops the job.
        """
        if not all(map(math.isfinite, squares)):
            return {}
        found: dict[str, Any] = {f"{name}_norm": math.sqrt(squares[GROUPS.index(name)]) for name in _NAMED}
        found["total_norm"] = math.sqrt(sum(squares[: len(GROUPS)]))
        if self.layers:
            parts = [squares[len(GROUPS) + i * self.layers :][: self.layers] for i in range(len(_IN_LAYERS))]
            found["layer_norms"] = {
                name: [math.sqrt(v) for v in part] for name, part in zip(_IN_LAYERS, parts, strict=True)
            }
        return found


def clip(norms: GradientNorms, max_norm: float) -> torch.Tensor | None:
    """Measure the gradients where they lie, and clip them by the same norms, without computing these twice.

    Args:
        max_norm: as torch's clipping takes it; infinite for none.

    Returns:
        The norm before clipping; None where it was not clipped, since norms in another number format than
        float32's would clip otherwise than torch does.
    """
    gradients = [p.grad for p in norms.parameters]
    each = norms.measure(gradients)
    if each is None or any(g is not None and g.dtype != torch.float32 for g in gradients):
        return None
    total = torch.linalg.vector_norm(each)
    if math.isfinite(max_norm):
        torch.nn.utils.clip_grads_with_norm_(norms.parameters, max_norm, total)
    return total


def watch_engine(engine: Any, norms: GradientNorms, wanted: Callable[[], bool], *, replicated: bool) -> None:
    """Measure before each optimizer step of a DeepSpeed engine, whose gradients are gone after it.

    accelerate takes that step within the backward pass, so no callback of the Trainer comes in time.

    Args:
        wanted: whether the coming step is measured.
        replicated: the gradients are whole on each rank (stage 0), so that the first one alone counts them.
    """
    step = engine.step

    def measured(*args: Any, **given: Any) -> Any:
        if engine.is_gradient_accumulation_boundary() and wanted():
            counts = not replicated or engine.global_rank == 0
            scale = float(getattr(engine.optimizer, "loss_scale", 1.0) or 1.0)
            norms.measure([shard(p) if counts else None for p in norms.parameters], scale)
        return step(*args, **given)

    engine.step = measured


def shard(parameter: Any) -> torch.Tensor | None:
    """The part of a gradient that this rank keeps, between backward and step; each number of it is on one rank alone.

    As `deepspeed.utils.safe_get_full_grad`, without gathering.
    """
    if hasattr(parameter, "ds_id"):
        part = parameter._z3_optimizer.get_local_fp32_grad_for_param(parameter).flatten()
        # The last ranks' parts are filled up to the others' size.
        left = parameter.ds_numel - part.numel() * torch.distributed.get_rank()
        return part[: max(0, left)]
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        part = mapping.get_lp_grad_fragment(parameter._index_in_param_group).flatten()
        own = mapping.lp_fragment_address
        # In bfloat16 a rank may keep the whole gradient and use its own part of it.
        return part.narrow(0, own.start, own.numel) if part.numel() != own.numel else part
    return parameter.grad

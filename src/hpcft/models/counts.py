"""One counter of parameters, right for packed 4-bit weights and for ZeRO-3 partitions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; `trainable_percent` is 0 to 100."""

    total: int
    trainable: int

    @property
    def frozen(self) -> int:
        """Parameters that training leaves as they are."""
        return self.total - self.trainable

    @property
    def trainable_percent(self) -> float:
        """Share of the trainable ones in all."""
        return 100 * self.trainable / self.total if self.total else 0.0


def numel(parameter: nn.Parameter) -> int:
    """Parameters in one tensor: of the whole tensor where ZeRO-3 leaves a rank only its part, and of the matrix
    that a packed 4-bit tensor stands for (two weights a byte, so its own `numel` is half or less)."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return prod(state.shape)
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters; tied ones once."""
    total = trainable = 0
    for parameter in model.parameters():
        count = numel(parameter)
        total += count
        trainable += count if parameter.requires_grad else 0
    return ParameterCount(total, trainable)


def print_trainable_parameters(model: nn.Module, verbose: bool = True, lang: Lang = "en") -> dict[str, float]:
    """Count a model's parameters for a table or `plot_parameter_distribution`.

    Args:
        model: any; packed 4-bit weights count as the weights they stand for.
        verbose: print them.
        lang: of what is printed.

    Returns:
        `total_params`, `trainable_params`, `frozen_params` and `trainable_percent`, which is 0 to 100.
    """
    count = count_parameters(model)
    if verbose:
        print(f"{text('total', lang)}: {count.total:,}")
        print(f"{text('trainable', lang)}: {count.trainable:,} ({count.trainable_percent:.3f}%)")
        print(f"{text('frozen', lang)}: {count.frozen:,}")
    return {
        "total_params": count.total,
        "trainable_params": count.trainable,
        "frozen_params": count.frozen,
        "trainable_percent": count.trainable_percent,
    }

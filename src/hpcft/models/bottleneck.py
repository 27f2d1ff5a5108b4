"""Bottleneck adapters (Houlsby et al. 2019), which PEFT does not have, as a method of PEFT's.

Behind a layer's last product stands a network of its own, `x + up(relu(down(x)))`, which begins as the identity. It is
registered with PEFT, so saving, loading, several adapters on one base and the Trainer's checkpoints work as with any
other method. It cannot be merged: a network is no change of weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from hpcft.models.groups import layer_of

BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):
    """A bottleneck adapter.

    Attributes:
        target_modules: ends of names, or one regular expression for the whole name.
        reduction: the bottleneck is a layer's outputs divided by this wide, at least 1.
        drop_layers: so many of the lowest layers get none (AdapterDrop, Rücklé et al. 2021).
        modules_to_save: trained whole beside it, such as a classifier's head.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    reduction: int = 16
    drop_layers: int = 0
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BOTTLENECK  # type: ignore[assignment]
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear layer with a bottleneck behind it, one for each adapter's name."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ()

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        base = self.get_base_layer()
        if isinstance(base, Conv1D):
            self.in_features, self.out_features = base.weight.shape
        elif isinstance(base, nn.Linear):
            self.in_features, self.out_features = base.in_features, base.out_features
        else:
            raise TypeError(f"a bottleneck stands behind a linear layer, not behind {type(base).__name__}")
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter, which changes nothing yet: its second matrix is zero."""
        width = max(1, self.out_features // config.reduction)
        self.bottleneck_down[adapter_name] = nn.Linear(self.out_features, width)
        up = nn.Linear(width, self.out_features)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_up[adapter_name] = up
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's output (…, outputs), with the active adapters' networks behind it."""
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down: Any = self.bottleneck_down[name]
                up = self.bottleneck_up[name]
                inner = torch.relu(down(result.to(down.weight.dtype)))
                result = result + up(inner).to(result.dtype)
        return result

    def merge(self, *_: Any, **__: Any) -> None:
        """Refuse.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a bottleneck adapter is a network behind a layer, not a change of its weights")

    unmerge = merge


class BottleneckModel(BaseTuner):
    """A model whose targets have bottlenecks behind them."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, Any] = {}  # noqa: RUF012 (PEFT's own is one)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = layer_of(current_key)
        if layer is not None and layer < peft_config.drop_layers:
            return
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        made = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            made.requires_grad_(False)
        self._replace_module(parent, target_name, made, target)


def drop_layers(model: nn.Module, number: int) -> int:
    """Switch off the adapters of the lowest layers of a model that answers (AdapterDrop), which makes it faster.

    Args:
        number: layers from the bottom; 0 switches all on again.

    Returns:
        How many bottlenecks are off.
    """
    off = 0
    for name, module in model.named_modules():
        if isinstance(module, BottleneckLayer):
            layer = layer_of(f"{name}.")
            module._disable_adapters = layer is not None and layer < number
            off += module._disable_adapters
    return off


# PEFT's own function for this takes no name that its list of methods does not have.
PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig  # type: ignore[index]
PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel  # type: ignore[index]
PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = BottleneckModel.prefix  # type: ignore[index]

"""FLOPs of a loaded model, counted by fvcore from one real forward: the second opinion on `flops`.

`flops` counts an unquantised twin without numbers. Here the model itself runs, with its 4- or 8-bit layers, its
adapter and its fused attention, and fvcore reads the products from the trace. fvcore alone counts a multiply-add as
one, and knows neither fused attention nor layers of few bits.

Conventions as in `flops`: a multiply-add is two FLOPs; attention counts the full square; rotary positions, norms and
other element-wise work count as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn


class Logits(nn.Module):
    """A model as a trace takes it: tensors in, the logits out."""

    def __init__(self, model: nn.Module, inputs: dict[str, torch.Tensor], options: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.names, self.options = model, list(inputs), options

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The logits of a forward."""
        logits: torch.Tensor = self.model(**dict(zip(self.names, tensors, strict=True)), **self.options).logits
        return logits


def traced_forward_flops(model: nn.Module, inputs: dict[str, torch.Tensor], **options: Any) -> int:
    """FLOPs of one forward.

    Args:
        model: loaded, in eval mode; one of compressed-tensors has answered before, since it unpacks its weights then,
            which cannot be traced. What layers of 4 or 8 bits answer meanwhile is zero.
        inputs: on the model's device, such as `input_ids` and `attention_mask`, both of shape (batch, length).
        options: of the forward that are no tensors, such as `use_cache=False`, `logits_to_keep`, or
            `past_key_values`, which grows.

    Raises:
        ArithmeticError: an operator in which there may be products, and which is not known here.
    """
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(Logits(model, inputs, options), tuple(inputs.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle(**_HANDLES)
    with torch.no_grad(), _plain_layers(model):
        multiply_adds = int(analysis.total())
    unknown = sorted(op for op in analysis.unsupported_ops() if not op.startswith("aten::") or op in _OTHER_PRODUCTS)
    if unknown:
        raise ArithmeticError(f"what these operators multiply is not known: {', '.join(unknown)}")
    return 2 * multiply_adds


@contextmanager
def _plain_layers(model: nn.Module) -> Iterator[None]:
    """Let bitsandbytes' layers do the products that they stand for on weights of zero, which take no memory.

    The operators of 4-bit layers do not show the weights' shape in a trace, and those of 8-bit ones cannot be traced.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    layers: list[Any] = [m for m in model.modules() if isinstance(m, Linear4bit | Linear8bitLt)]
    # accelerate may have put a forward of its own on a layer.
    own = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = _plain(layer.out_features, layer.in_features)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                vars(layer).pop("forward", None)
            else:
                layer.forward = forward


def _plain(rows: int, columns: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, x.new_zeros(()).expand(rows, columns))

    return forward


def _shape(value: Any) -> list[int]:
    """Of a tensor in the trace."""
    return [int(size) for size in value.type().sizes()]


def _product(inputs: list[Any], outputs: list[Any]) -> int:
    """Every number of the output is a sum over the first factor's last dimension."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _added_product(inputs: list[Any], outputs: list[Any]) -> int:
    """As `_product`, where the first input is what is added."""
    return _product(inputs[1:], outputs)


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Queries (…, heads, s, d) with keys (…, groups, t, d), then the weights with values (…, groups, t, e). Grouped
    keys and values are multiplied as often as there are heads."""
    queries, keys, values = (_shape(value) for value in inputs[:3])
    return prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1])


def _nothing(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


_HANDLES = {
    # fvcore's own handler of matmul does not broadcast.
    "aten::matmul": _product,
    "aten::scaled_dot_product_attention": _attention,
    "aten::baddbmm": _added_product,
    # What torchao's layers do on some devices.
    "aten::_int_mm": _product,
    "aten::_weight_int8pack_mm": _product,
    "aten::_weight_int4pack_mm": _product,
    # Of these fvcore makes estimates, such as five for each number; None would leave its own handler in place.
    **dict.fromkeys(("aten::layer_norm", "aten::batch_norm", "aten::group_norm", "aten::instance_norm"), _nothing),
}
# Operators with products in them and no handler: where one is met, the count would be too small.
_OTHER_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in ("_grouped_mm", "_scaled_mm", "addbmm", "addmv", "addr", "bilinear", "dot", "mv", "outer", "tensordot")
)

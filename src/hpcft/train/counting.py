"""The work that a batch is, counted on its device, so that nothing waits for it."""

from __future__ import annotations

from typing import Any

import torch


def count_batch(inputs: Any) -> torch.Tensor:
    """Tokens, tokens with padding, squares of the sequences' lengths, and sequences of a batch, shape (4,).

    Rows laid end to end have no mask: their positions say where each begins, and its own length is what its attention
    costs.
    """
    ids = inputs["input_ids"]
    dtype = torch.float32 if ids.device.type == "mps" else torch.float64
    if "position_ids" in inputs:
        positions = inputs["position_ids"].to(dtype)
        rows = (positions == 0).sum().to(dtype)
        total = torch.full_like(rows, ids.numel())
        # The odd numbers up to 2n - 1 add up to n², so no row's length has to be brought to the host.
        return torch.stack([total, total, (2 * positions + 1).sum(), rows])
    batch, length = ids.shape
    shape = torch.tensor([batch * length, batch * length * length, batch], dtype=dtype)
    return torch.cat([inputs["attention_mask"].sum().to(dtype)[None], shape.to(ids.device, non_blocking=True)])

"""Perplexity of answers: how surprised a model is by the right ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hpcft.data.encode import IGNORED
from hpcft.train.ranks import Rank, sum_over_ranks

if TYPE_CHECKING:
    import torch


def perplexity(
    model: Any,
    rows: Sequence[dict[str, Any]],
    collate: Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]],
    *,
    batch_size: int,
    rank: Rank | None = None,
    between: Callable[[], None] = lambda: None,
) -> float:
    """exp of the mean negative log-likelihood of the learned tokens, each token with the same weight.

    Args:
        rows: `input_ids` and `labels`, as for training; divided over the ranks.
        collate: lays rows into a padded batch.
        between: called before each batch.

    Returns:
        The perplexity, on every rank; infinite where the loss is too large for a float.
    """
    import torch
    from torch.nn.functional import cross_entropy

    device = next(model.parameters()).device
    mine = list(rows[rank.rank :: rank.world_size] if rank else rows)
    # Rows of one length share a batch: less padding.
    mine.sort(key=lambda row: len(row["input_ids"]))
    total = tokens = 0.0
    model.eval()
    with torch.no_grad():
        for start in range(0, len(mine), batch_size):
            between()
            batch = {k: v.to(device) for k, v in collate(mine[start : start + batch_size]).items()}
            labels = batch.pop("labels")
            # A soft prompt's vectors stand in front, and have logits of their own.
            logits = model(**batch, use_cache=False).logits[:, -labels.shape[1] : -1].float()
            labels = labels[:, 1:]
            total += float(cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"))
            tokens += float((labels != IGNORED).sum())
    total, tokens = sum_over_ranks([total, tokens], device)
    mean = total / tokens
    return math.exp(mean) if mean < 700 else math.inf

"""Rows laid into batches: padded, end to end without padding, or with one class a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcft.data.encode import IGNORED

if TYPE_CHECKING:
    import torch


class Collator:
    """Pads a batch on the right. The mask is made from the lengths, never by comparing with the pad token, which
    may be the EOS that is to be learned."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors `input_ids`, `labels` and `attention_mask` of shape (rows, longest)."""
        return {
            "input_ids": _padded([r["input_ids"] for r in rows], self.pad_id),
            "labels": _padded([r["labels"] for r in rows], IGNORED),
            "attention_mask": _padded([[1] * len(r["input_ids"]) for r in rows], 0),
        }


class FlatCollator:
    """Lays rows, or windows of rows, end to end: one sequence without padding.

    There is no mask: positions that start again at 0 say where each row begins, and the model keeps them apart. The
    first token of a row is no target, since what stands before it belongs to another row.
    """

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors `input_ids`, `labels` and `position_ids` of shape (1, sum of lengths)."""
        import torch

        ids: list[int] = []
        labels: list[int] = []
        positions: list[int] = []
        for row in rows:
            own = row.get("position_ids") or range(len(row["input_ids"]))
            ids += row["input_ids"]
            positions += own
            labels += [IGNORED if p == 0 else label for p, label in zip(own, row["labels"], strict=True)]
        columns = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return {name: torch.tensor([values]) for name, values in columns.items()}


class LabelCollator:
    """Pads a classifier's batch on the right."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors `input_ids`, `attention_mask` and, where rows have them, `token_type_ids` of shape (rows, longest);
        `labels` of shape (rows,)."""
        import torch

        batch = {
            "input_ids": _padded([r["input_ids"] for r in rows], self.pad_id),
            "attention_mask": _padded([[1] * len(r["input_ids"]) for r in rows], 0),
            "labels": torch.tensor([r["labels"] for r in rows]),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = _padded([r["token_type_ids"] for r in rows], 0)
        return batch


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad prompts on the left, so that each answer starts right behind its prompt."""
    import torch

    longest = max(map(len, prompts))
    spare = [longest - len(p) for p in prompts]
    return {
        "input_ids": torch.tensor([[*[pad_id] * n, *p] for p, n in zip(prompts, spare, strict=True)]),
        "attention_mask": torch.tensor([[0] * n + [1] * (longest - n) for n in spare]),
    }


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])

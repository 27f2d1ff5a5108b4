"""A training loop's own data loader, whose batches may be dictionaries, lists or tensors, as what the Trainer reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcft.data.encode import IGNORED
from hpcft.errors import DataError

if TYPE_CHECKING:
    import torch

_COLUMNS = ("input_ids", "attention_mask", "labels")
_PLACE = "train_dataloader"


class Batches:
    """Goes through a loader, batch by batch, each as a dictionary of tensors.

    A list or tuple, as a `TensorDataset` gives it, is `(input_ids, attention_mask, labels)` or a beginning of it; of
    two tensors the second is the mask where it holds nothing but 0 and 1, else the labels. Where both are given,
    padding has no label.

    Args:
        loader: with a length.

    Raises:
        DataError: it has no batches, or does not tell how many.
    """

    def __init__(self, loader: Any) -> None:
        try:
            self._length = len(loader)
        except TypeError as error:
            hint = "a loader of an iterable data set has none; give the data set a __len__"
            raise DataError("its number of batches is not known", where=_PLACE, hint=hint) from error
        if self._length == 0:
            hint = "is the data set empty, or smaller than a batch with drop_last=True?"
            raise DataError("it has no batches, so there is nothing to train on", where=_PLACE, hint=hint)
        self._loader = loader
        self._columns: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def dataset(self) -> Any:
        """Of the loader."""
        return self._loader.dataset

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            yield self._read(batch)

    def _read(self, batch: Any) -> dict[str, Any]:
        found = dict(batch) if isinstance(batch, Mapping) else self._named(batch)
        if found.get("input_ids") is None:
            hint = f"give dictionaries, or lists in the order {', '.join(_COLUMNS)}"
            raise DataError("a batch has no input_ids", where=_PLACE, hint=hint)
        labels, mask = found.get("labels"), found.get("attention_mask")
        if labels is not None and mask is not None:
            found["labels"] = labels.masked_fill(mask == 0, IGNORED)
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def _named(self, batch: Any) -> dict[str, torch.Tensor]:
        tensors = list(batch) if isinstance(batch, Sequence) else [batch]
        if not 1 <= len(tensors) <= len(_COLUMNS) or not all(hasattr(tensor, "shape") for tensor in tensors):
            kinds = ", ".join(type(tensor).__name__ for tensor in tensors[:4])
            hint = f"give dictionaries, or lists in the order {', '.join(_COLUMNS)}"
            raise DataError(f"a batch is {len(tensors)} of {kinds}", where=_PLACE, hint=hint)
        # Once for all batches: labels that happen to be 0 and 1 in one of them stay labels.
        if self._columns is None:
            is_labels = len(tensors) == 2 and not bool(((tensors[1] == 0) | (tensors[1] == 1)).all())
            self._columns = ("input_ids", "labels") if is_labels else _COLUMNS
        return dict(zip(self._columns, tensors, strict=False))

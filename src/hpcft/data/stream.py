"""Training rows that are read while training, for sets that do not fit into memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

from hpcft.data.encode import encode, encode_labels
from hpcft.data.kinds import Pair
from hpcft.data.split import Dataset, stream_pairs
from hpcft.errors import DataError
from hpcft.spec.job import DataSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Rows are drawn at random from so many that were read ahead.
_BUFFER = 2048


class RowStream(IterableDataset[dict[str, Any]]):
    """Encoded rows without an end: the data over and over, each pass in an order that a seed and its number decide.

    Every rank reads the whole stream and takes its share of the batches; a job that goes on reads again and skips
    what was done. Both need no more than that each reading gives the same rows in the same order, from the first pass
    on: whoever skips counts batches and knows no passes.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Pair]],
        encode_rows: Callable[[list[Pair]], list[dict[str, Any]]],
        seed: int,
        buffer: int = _BUFFER,
    ) -> None:
        self._read = read
        self._encode = encode_rows
        self._seed = seed
        self._buffer = buffer

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in count():
            given = 0
            for row in self._one_pass(number):
                given += 1
                yield row
            if given == 0:
                raise DataError("no row of the stream fits", where="data.max_length", hint="raise it")

    def _one_pass(self, number: int) -> Iterator[dict[str, Any]]:
        rng = random.Random(f"{self._seed} {number}")  # noqa: S311 (an order, not a secret)
        held: list[Pair] = []
        for pair in self._read():
            if len(held) < self._buffer:
                held.append(pair)
                continue
            at = rng.randrange(len(held))
            chosen, held[at] = held[at], pair
            yield from self._encode([chosen])
        rng.shuffle(held)
        for chosen in held:
            yield from self._encode([chosen])


def stream(data: DataSection, tokenizer: PreTrainedTokenizerBase, dataset: Dataset, seed: int) -> RowStream:
    """The training rows of a job as a stream.

    Args:
        dataset: the job's data as loaded: its prompt, and the labels of a classifier.
        seed: of the order.
    """
    return RowStream(partial(stream_pairs, data), partial(_encoded, data, tokenizer, dataset), seed)


def _encoded(
    data: DataSection, tokenizer: PreTrainedTokenizerBase, dataset: Dataset, pairs: list[Pair]
) -> list[dict[str, Any]]:
    if dataset.task == "classification":
        unknown = next((p.target for p in pairs if p.target not in dataset.labels), None)
        if unknown is not None:
            raise DataError(
                f"the stream has the class '{unknown}', which neither its first rows nor the validation set have",
                where="data.dataset",
                hint=f"known are {', '.join(dataset.labels[:8])}; put a row of each class into data.validation",
            )
        return encode_labels(pairs, tokenizer, dataset.labels, data.max_length).rows
    try:
        return encode(pairs, tokenizer, dataset.prompt, data.max_length).rows
    except DataError:
        # One row that does not fit is left out, as in a set that is read at once.
        return []

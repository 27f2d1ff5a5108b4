"""Training and validation rows of a data set: no input stands in both."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass

from hpcft.data.prompts import Prompt, prompt_for
from hpcft.data.sources import Pair, Source, read_pairs
from hpcft.errors import DataError
from hpcft.spec.job import DataSection


@dataclass(frozen=True)
class Example:
    """One distinct input with all its references."""

    source: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """What a job trains on and is validated with.

    Attributes:
        train: training rows.
        validation_pairs: rows of the validation inputs, for the loss.
        validation: the same as distinct inputs with references, for generation.
        prompt: template of training and generation.
        sha256: of all rows used and their order.
        skipped: rows left out because a text was empty.
    """

    train: list[Pair]
    validation_pairs: list[Pair]
    validation: list[Example]
    prompt: Prompt
    sha256: str
    skipped: int


def load(data: DataSection, seed: int) -> Dataset:
    """Read a data set and divide it.

    Rows of one input stay together: with several references an input, a division by rows would ask in validation
    what was answered in training.

    Raises:
        DataError: it cannot be read, or has too few distinct inputs to divide.
    """
    source = read_pairs(data.dataset, data.input_column, data.target_column)
    train, validation = split(source, data.validation_split, seed)
    if data.train_samples:
        train = train[: data.train_samples]
    examples = _drawn(group(validation), data.eval_samples, seed)
    kept = {e.source for e in examples}
    validation = [p for p in validation if p.source in kept]
    content = json.dumps([[p.source, p.target] for p in train + validation], ensure_ascii=False)
    return Dataset(
        train=train,
        validation_pairs=validation,
        validation=examples,
        prompt=prompt_for(data.prompt, source.input_column),
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        skipped=source.skipped,
    )


def split(source: Source, share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Divide rows by distinct inputs.

    Args:
        source: all rows.
        share: of the distinct inputs for validation, at least one.
        seed: of the division and of the order of the training rows.

    Returns:
        Training rows in random order, validation rows in the order of the file.

    Raises:
        DataError: fewer than two distinct inputs.
    """
    inputs = list(dict.fromkeys(p.source for p in source.pairs))
    if len(inputs) < 2:
        raise DataError(
            f"{len(inputs)} distinct input is too few to train on and validate with", where="data.validation_split"
        )
    rng = random.Random(seed)  # noqa: S311 (a division, not a secret)
    count = min(len(inputs) - 1, max(1, round(len(inputs) * share)))
    held_out = set(rng.sample(inputs, count))
    train = [p for p in source.pairs if p.source not in held_out]
    rng.shuffle(train)
    return train, [p for p in source.pairs if p.source in held_out]


def _drawn(examples: list[Example], limit: int, seed: int) -> list[Example]:
    """As many examples as the limit allows, in their order, from the whole file: files are often sorted, and then
    the first ones are no sample."""
    if len(examples) <= limit:
        return examples
    chosen = random.Random(seed).sample(range(len(examples)), limit)  # noqa: S311
    return [examples[i] for i in sorted(chosen)]


def group(pairs: list[Pair]) -> list[Example]:
    """Distinct inputs in order, each with its distinct references."""
    references: dict[str, list[str]] = {}
    for pair in pairs:
        known = references.setdefault(pair.source, [])
        if pair.target not in known:
            known.append(pair.target)
    return [Example(source, tuple(texts)) for source, texts in references.items()]

"""Training and validation rows of a job: no input stands in both, unless the user's own validation set has it."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hpcft.data.kinds import Pair, PairReader, Source, Task, read_source
from hpcft.data.prompts import Prompt, prompt_for
from hpcft.data.sources import stream_rows
from hpcft.errors import ConfigError, DataError
from hpcft.spec.identifiers import identifier_fault, slug, user_path
from hpcft.spec.job import DataSection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One distinct input with all its references: for a question the accepted answers, for a class its name."""

    source: str
    references: tuple[str, ...]
    context: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    part: str = ""


@dataclass(frozen=True)
class Dataset:
    """What a job trains on and is validated with.

    Attributes:
        task: what the rows ask for.
        labels: names of the classes, in the order of their numbers; empty unless the task is classification.
        train: training rows; empty of a stream.
        validation_pairs: rows of the validation inputs, for the loss.
        validation: the same as distinct inputs with references, to be answered.
        parts: names of a mix's sets; empty without a mix.
        prompt: template of training and generation.
        sha256: of all rows used and their order; of a stream, of the validation rows.
        validation_sha256: of the validation inputs with their references: scores of the same one can be compared.
        skipped: rows left out because a text was empty.
    """

    task: Task
    labels: list[str]
    train: list[Pair]
    validation_pairs: list[Pair]
    validation: list[Example]
    parts: list[str]
    prompt: Prompt
    sha256: str
    validation_sha256: str
    skipped: int


def load(data: DataSection, seed: int, *, training: bool = True) -> Dataset:
    """Read a job's data and divide it.

    Rows of one input stay together: with several references an input, a division by rows would ask in validation
    what was answered in training.

    Args:
        seed: of the division and the order, unless `data.split_seed` is another one.
        training: whether the training rows are needed; without, a validation set of its own is read alone.

    Raises:
        DataError: it cannot be read, or has too few distinct inputs to divide, or a class that training has not.
        ConfigError: the sets of a mix do not go together.
    """
    seed = seed if data.split_seed is None else data.split_seed
    alone = not training and data.validation is not None
    if alone:
        data = data.model_copy(update={"dataset": data.validation, "mix": [], "validation": None, "streaming": False})
    named = named_sets(data)
    sources = [_first_rows(data) if data.streaming else read_source(path, data) for _, path in named]
    _same_kind(named, sources)
    if sources[0].task == "classification" and not alone:
        for source in sources:
            _check_classes(source)
    prompts = {prompt_for(data.prompt, s.columns) for s in sources}
    if len(prompts) > 1:
        names = ", ".join(sorted(p.name for p in prompts))
        raise ConfigError(
            f"the sets of the mix have prompts of their own: {names}", where="data.prompt", hint="set one"
        )
    task = sources[0].task
    given = None if data.validation is None else read_source(data.validation, data)
    train: list[Pair] = []
    validation: list[Pair] = []
    examples: list[Example] = []
    for index, ((part, _), source) in enumerate(zip(named, sources, strict=True)):
        own, held_out = ([], source.pairs) if alone else _divided(source, given, data, seed, task)
        if data.train_samples:
            own = own[: _share(data.train_samples, len(named), index)]
        limit = max(1, _share(data.eval_samples, len(named), index)) if data.eval_samples else None
        drawn = _drawn(group(held_out), limit, seed)
        kept = {(e.source, e.context, e.turns) for e in drawn}
        train += [replace(p, part=part) for p in own]
        validation += [replace(p, part=part) for p in held_out if p.key in kept]
        examples += [replace(e, part=part) for e in drawn]
    if len(named) > 1:
        random.Random(seed).shuffle(train)  # noqa: S311 (an order, not a secret)
    labels: list[str] = []
    if task == "classification":
        # Of a stream only the beginning was seen; the validation set may show more of the classes.
        labels = _labels(train + validation if data.streaming or alone else train, validation)
    train = [] if data.streaming else train
    return Dataset(
        task=task,
        labels=labels,
        train=train,
        validation_pairs=validation,
        validation=examples,
        parts=[part for part, _ in named if part],
        prompt=prompts.pop(),
        sha256=_digest([[*p.key[:2], p.target] for p in train + validation]),
        validation_sha256=_digest([[e.source, e.context, e.turns, e.references] for e in examples]),
        skipped=sum(s.skipped for s in sources),
    )


def _digest(rows: list[list[object]]) -> str:
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def split(source: Source, share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Divide rows by distinct inputs, those of each class by themselves.

    Args:
        source: all rows.
        share: of the distinct inputs for validation, at least one.
        seed: of the division and of the order of the training rows.

    Returns:
        Training rows in random order, validation rows in the order of the file.

    Raises:
        DataError: fewer than two distinct inputs.
    """
    inputs = dict.fromkeys(p.key for p in source.pairs)
    if len(inputs) < 2:
        raise DataError(
            f"{len(inputs)} distinct input is too few to train on and validate with", where="data.validation_split"
        )
    rng = random.Random(seed)  # noqa: S311 (a division, not a secret)
    strata: dict[str, list[object]] = {}
    if source.task == "classification":
        label = {p.key: p.target for p in reversed(source.pairs)}
        for key in inputs:
            strata.setdefault(label[key], []).append(key)
    else:
        strata[""] = list(inputs)
    held_out: set[object] = set()
    for keys in strata.values():
        # A class of one row is for training.
        count = min(len(keys) - 1, max(1, round(len(keys) * share)))
        held_out |= set(rng.sample(keys, count))
    if not held_out:
        raise DataError("each class has one row, so none can be kept for validation", where="data.validation_split")
    train = [p for p in source.pairs if p.key not in held_out]
    rng.shuffle(train)
    return train, [p for p in source.pairs if p.key in held_out]


def group(pairs: list[Pair]) -> list[Example]:
    """Distinct inputs in order, each with its distinct references."""
    references: dict[object, dict[str, None]] = {}
    first: dict[object, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.key, pair)
        references.setdefault(pair.key, {}).update(dict.fromkeys(pair.answers or (pair.target,)))
    return [Example(p.source, tuple(references[k]), p.context, p.turns, p.part) for k, p in first.items()]


def check_labels(labels: Sequence[str], wanted: int | None) -> None:
    """Refuse a number of classes that the data does not have.

    Raises:
        ConfigError: with both numbers.
    """
    if wanted is not None and wanted != len(labels):
        shown = ", ".join(labels[:8])
        raise ConfigError(
            f"the data has {len(labels)} classes ({shown}), and model.num_labels says {wanted}",
            where="model.num_labels",
            hint="leave it out, and the classes are counted",
        )


def name_and_path(text: str) -> tuple[str | None, str]:
    """An entry of a mix, `name=path` or a path alone, in which a `=` may stand too."""
    name, mark, path = text.partition("=")
    return (name, path) if mark and not user_path(text).is_file() else (None, text)


def named_sets(data: DataSection) -> list[tuple[str, str]]:
    """(name, path) of each set; the name is empty of a set alone."""
    if not data.mix:
        return [("", data.dataset)]
    named = []
    for text in data.mix:
        given, path = name_and_path(text)
        name = slug(text.rpartition("/")[2].partition(".")[0]) if given is None else given
        if not path.strip() or (fault := identifier_fault(name)):
            problem = f"the name {fault}" if path.strip() else "has no path"
            raise ConfigError(f"'{text[:60]}': {problem}", where="data.mix", hint="write name=path")
        named.append((name, path))
    names = [name for name, _ in named]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ConfigError(f"two sets are called '{twice}'", where="data.mix", hint="write name=path, each its own name")
    return named


def _same_kind(named: list[tuple[str, str]], sources: list[Source]) -> None:
    for (name, _), source in zip(named, sources, strict=True):
        if source.task != sources[0].task or source.columns.is_chat != sources[0].columns.is_chat:
            raise ConfigError(
                f"'{named[0][0]}' is for {sources[0].task} and '{name}' for {source.task}; a model is trained for one",
                where="data.mix",
                hint="set data.task, or leave one out",
            )


def _first_rows(data: DataSection) -> Source:
    """Enough of a stream to know what it is."""
    reader = PairReader(data.dataset, data)
    pairs = list(islice(reader.pairs(stream_rows(data.dataset, data.subset, data.revision)), 1000))
    if reader.columns is None or not pairs:
        raise DataError("holds no row with both a source and a target", where=data.dataset)
    return Source(pairs, reader.columns, reader.skipped)


def _divided(
    source: Source, given: Source | None, data: DataSection, seed: int, task: Task
) -> tuple[list[Pair], list[Pair]]:
    if given is None:
        return (source.pairs, []) if data.streaming else split(source, data.validation_split, seed)
    if given.task != task:
        raise ConfigError(
            f"the training data is for {task}, the validation data for {given.task}",
            where="data.validation",
            hint="set data.task and the columns",
        )
    train = list(source.pairs)
    random.Random(seed).shuffle(train)  # noqa: S311
    both = {p.key for p in given.pairs} & {p.key for p in train}
    if both:
        log.warning("%d of the validation set's inputs are in the training data too", len(both))
    return train, given.pairs


def _check_classes(source: Source) -> None:
    found = {p.target for p in source.pairs}
    if len(found) < 2:
        raise DataError(f"all rows are of the class '{next(iter(found))}'", where="data.target_column")
    if len(found) > max(50, len(source.pairs) // 2):
        raise DataError(
            f"{len(found)} different labels in {len(source.pairs)} rows are no classes",
            where="data.target_column",
            hint="is it the right column, or is data.task=generation meant?",
        )


def _labels(train: list[Pair], validation: list[Pair]) -> list[str]:
    found = {p.target for p in train}
    if unknown := {p.target for p in validation} - found:
        raise DataError(
            f"the validation data has classes that training has not: {', '.join(sorted(unknown)[:8])}",
            where="data.validation",
            hint=f"training has {', '.join(sorted(found)[:8])}",
        )
    numbers = all(text.lstrip("-").isdecimal() for text in found)
    return sorted(found, key=int) if numbers else sorted(found)


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (index < total % parts)


def _drawn(examples: list[Example], limit: int | None, seed: int) -> list[Example]:
    """As many examples as the limit allows, in their order, from the whole file: files are often sorted, and then
    the first ones are no sample."""
    if limit is None or len(examples) <= limit:
        return examples
    chosen = random.Random(seed).sample(range(len(examples)), limit)  # noqa: S311
    return [examples[i] for i in sorted(chosen)]


def stream_pairs(data: DataSection) -> Iterator[Pair]:
    """The training rows of a stream, one at a time."""
    return PairReader(data.dataset, data).pairs(stream_rows(data.dataset, data.subset, data.revision))

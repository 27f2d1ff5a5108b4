"""A whole check of a job's data: its sets one after the other, their near-duplicates, leakage, tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from hpcft.data.care import hashes
from hpcft.data.care.fields import text_of
from hpcft.data.care.near import Near, near_between, near_pairs
from hpcft.data.care.report import Compared, Overlap, Tokens, document, quantiles
from hpcft.data.care.survey import EXAMPLES, Survey, survey
from hpcft.data.kinds import PairReader
from hpcft.data.prompts import prompt_for
from hpcft.data.sources import Row, can_stream, read_rows, stream_rows
from hpcft.data.split import named_sets
from hpcft.errors import DataError
from hpcft.spec.job import ChecksSection, DataSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hpcft.data.encode import Encoded

# Rows that are made into tokens.
TOKEN_ROWS = 5_000
_NO_LIMIT = 1 << 30
# Rows that show whether a column has one text alone.
_FEW = 1_000
_SHOWN_CHARACTERS = 160


def reader(dataset: str, data: DataSection) -> Callable[[], Iterable[Row]]:
    """What reads a set's rows from the beginning, one at a time where its file allows it."""
    read = stream_rows if can_stream(dataset) else read_rows
    return lambda: read(dataset, data.subset, data.revision)


def check(
    data: DataSection,
    rules: ChecksSection,
    *,
    lang: str = "en",
    limit: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    model: str = "",
) -> list[dict[str, Any]]:
    """Check every set of a job's data, the training sets first, then the validation set against them.

    Args:
        data: what the job says of its data.
        rules: what is a fault.
        lang: of the recommendations.
        limit: rows of each set that are looked at.
        tokenizer, model: count tokens with this tokenizer, of the model of that name.

    Returns:
        A report for each set, as `report.document` makes it, with `part` (its name in a mix) and `role` (`train` or
        `validation`).

    Raises:
        DataError: a set cannot be read, or holds no row.
    """
    sets = [("train", part, path) for part, path in named_sets(data)]
    sets += [("validation", "", data.validation)] if data.validation is not None else []
    trained: list[tuple[Survey, list[str]]] = []
    reports = []
    for role, part, path in sets:
        read = reader(path, data)
        found = survey(read, path, data, rules, limit)
        texts = texts_of(found, read, rules.near_rows)
        near = near_duplicates(found, texts, rules.near_threshold) if rules.near_rows else None
        overlap = near_overlap = None
        if role == "validation":
            overlap = overlap_of([of for of, _ in trained], found, read)
            known = [text for _, own in trained for text in own]
            near_overlap = near_overlap_of(known, texts, rules.near_threshold) if rules.near_rows else None
        else:
            trained.append((found, texts))
        tokens = None if tokenizer is None else count_tokens(found, read, path, data, tokenizer, model)
        told = document(path, found, near, overlap, near_overlap, tokens, lang)
        reports.append({"role": role, "part": part, **told})
    return reports


def texts_of(found: Survey, read: Callable[[], Iterable[Row]], limit: int) -> list[str]:
    """What is compared of the first rows: all that differs between rows, but a label; one instruction that stands in
    every row would make them all alike."""
    fields = found.fields
    rows = [row for _, row in islice(read(), min(limit, found.rows))]
    told = [c for c in fields.texts if len({text_of(row.get(c)) for row in rows[:_FEW]}) > 1] or list(fields.texts)
    return ["\x1f".join(text_of(row.get(column)).strip() for column in told) for row in rows]


def near_duplicates(found: Survey, texts: Sequence[str], threshold: float) -> Compared:
    """Rows that are nearly one further up."""
    pairs = near_pairs(texts, threshold)
    other = 0
    if found.fields.task == "classification":
        other = sum(found.answer_numbers[p.first] != found.answer_numbers[p.second] for p in pairs)
    return _compared(pairs, texts, texts, other)


def near_overlap_of(trained: Sequence[str], texts: Sequence[str], threshold: float) -> Compared:
    """Validation rows that are nearly a training row."""
    return _compared(near_between(trained, texts, threshold), trained, texts, 0)


def _compared(pairs: list[Near], first: Sequence[str], second: Sequence[str], other: int) -> Compared:
    best = sorted(pairs, key=lambda pair: -pair.similarity)[:EXAMPLES]
    examples = tuple((_shown(first[p.first]), _shown(second[p.second]), p.similarity) for p in best)
    return Compared(len(second), len(pairs), other, examples)


def overlap_of(trained: Sequence[Survey], found: Survey, read: Callable[[], Iterable[Row]]) -> Overlap:
    """Validation rows whose input is in a training set."""
    places: set[int] = set()
    for each in trained:
        places |= {int(i) for i in hashes.common(each.input_numbers, found.input_numbers)}
    first = sorted(places)[:EXAMPLES]
    rows = enumerate(islice(read(), first[-1] + 1 if first else 0))
    examples = tuple(f"{where}: {_shown(found.fields.input(row))}" for i, (where, row) in rows if i in first)
    return Overlap(found.rows, len(places), examples)


def count_tokens(
    found: Survey,
    read: Callable[[], Iterable[Row]],
    name: str,
    data: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    model: str,
) -> Tokens | None:
    """Tokens of the rows, evenly drawn where there are many, and what `data.max_length` costs, both as training makes
    them; None where the columns are not known, so that there is no prompt."""
    from hpcft.data.encode import encode, encode_labels

    if found.fields.task is None:
        return None
    every = max(1, found.rows // TOKEN_ROWS)
    source = PairReader(name, data)
    pairs = list(source.pairs(row for i, row in enumerate(islice(read(), found.rows)) if i % every == 0))
    if not pairs or source.columns is None:
        return None
    prompt = prompt_for(data.prompt, source.columns)

    def encoded(max_length: int) -> Encoded:
        if found.fields.task == "classification":
            return encode_labels(pairs, tokenizer, sorted({p.target for p in pairs}), max_length)
        return encode(pairs, tokenizer, prompt, max_length)

    lengths = Counter(len(row["input_ids"]) for row in encoded(_NO_LIMIT).rows)
    try:
        cost = encoded(data.max_length).report
        truncated, dropped = cost.truncated_sources, cost.dropped_targets
    except DataError:
        truncated, dropped = 0, len(pairs)
    return Tokens(model, len(pairs), data.max_length, truncated, dropped, quantiles(lengths))


def _shown(text: str) -> str:
    return text[:_SHOWN_CHARACTERS].replace("\x1f", " | ").replace("\x1e", " → ")

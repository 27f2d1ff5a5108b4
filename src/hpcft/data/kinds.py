"""What the rows of a data set ask for: their task, which columns hold it, and each row as a pair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, NoReturn

from hpcft.data.sources import Row, read_rows
from hpcft.errors import ConfigError, DataError
from hpcft.spec.job import DataSection

Task = Literal["generation", "classification", "qa"]

# Columns that need not be named, in the order that they are looked for: source, context (may be absent), target.
LAYOUTS: tuple[tuple[Task, str, str | None, str], ...] = (
    ("generation", "mr", None, "ref"),
    ("generation", "meaning_representation", None, "human_reference"),
    ("generation", "dialogue", None, "summary"),
    ("generation", "dialogue", None, "section_text"),
    ("generation", "instruction", "input", "output"),
    ("generation", "input", None, "output"),
    ("generation", "prompt", None, "completion"),
    ("generation", "source", None, "target"),
    ("qa", "question", "context", "answers"),
    ("qa", "question", "context", "answer"),
    *(
        ("classification", first, second, target)
        for target in ("label", "labels", "class", "sentiment")
        for first, second in (
            ("premise", "hypothesis"),
            ("sentence1", "sentence2"),
            ("question1", "question2"),
            ("question", "sentence"),
            ("sentence", None),
            ("text", None),
            ("review", None),
            ("content", None),
        )
    ),
)
CHAT_COLUMNS = ("messages", "conversations")
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
# JSON can write one half of a UTF-16 pair (\ud800); no tokenizer takes it and no file can hold it.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Pair:
    """One row: what is given and what is to be answered.

    Attributes:
        source: the text, the question, the instruction.
        target: the answer that is learned; for a class its name.
        context: what the source is about, or the second sentence of a pair.
        turns: of a chat, what was said before the answer: (role, text).
        answers: all that are accepted, where there are several.
        part: the set of a mix that the row is from.
    """

    source: str
    target: str
    context: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    answers: tuple[str, ...] = ()
    part: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What is asked, without the answer."""
        return (self.source, self.context, self.turns)


@dataclass(frozen=True)
class Columns:
    """Where a set's texts are, and what they are for."""

    task: Task
    source: str
    context: str | None
    target: str

    @property
    def is_chat(self) -> bool:
        """The source's column holds whole conversations."""
        return self.source in CHAT_COLUMNS


@dataclass(frozen=True)
class Source:
    """Rows of one data set.

    Attributes:
        pairs: rows with both texts.
        columns: where they were found.
        skipped: rows left out because a text was empty.
    """

    pairs: list[Pair]
    columns: Columns
    skipped: int

    @property
    def input_column(self) -> str:
        """Column of the source."""
        return self.columns.source

    @property
    def target_column(self) -> str:
        """Column of the target."""
        return self.columns.target

    @property
    def task(self) -> Task:
        """What the rows ask for."""
        return self.columns.task


def read_source(dataset: str, data: DataSection) -> Source:
    """Read a whole data set.

    Args:
        dataset: name, hub id or path.
        data: columns, task, subset and revision as the job names them.

    Raises:
        DataError: it cannot be read, or a row is not as its columns promise; names the line.
        ConfigError: its columns are not known and not named.
    """
    reader = PairReader(dataset, data)
    pairs = list(reader.pairs(read_rows(dataset, data.subset, data.revision)))
    if reader.columns is None or not pairs:
        raise DataError("holds no row with both a source and a target", where=dataset)
    return Source(pairs, reader.columns, reader.skipped)


@dataclass
class PairReader:
    """Makes pairs of rows, and finds out with the first one what they are."""

    name: str
    data: DataSection
    columns: Columns | None = None
    skipped: int = 0
    _chat_problem: str = field(default="", init=False)

    def pairs(self, rows: Iterable[Row]) -> Iterator[Pair]:
        """The rows that have both texts; a conversation gives one pair for each answer in it."""
        for where, row in rows:
            if self.columns is None:
                self.columns = find_columns(row, self.name, self.data)
            found = _conversation(row, self.columns, where) if self.columns.is_chat else _pair(row, self.columns, where)
            if not found:
                self.skipped += 1
            yield from found


def find_columns(row: dict[str, Any], name: str, data: DataSection) -> Columns:
    """The columns of a set, from its first row and what the job says.

    Raises:
        ConfigError: a column is neither known nor named. DataError: a named one is not there.
    """
    found = [str(column) for column in row]
    chat = next((c for c in CHAT_COLUMNS if c in found), None)
    if (chat and data.input_column is None) or data.input_column in CHAT_COLUMNS:
        return Columns("generation", data.input_column or str(chat), None, data.input_column or str(chat))
    named = (("data.input_column", data.input_column), ("data.target_column", data.target_column))
    for key, column in (*named, ("data.context_column", data.context_column)):
        if column is not None:
            _there(column, found, name, key)
    fitting = [
        layout
        for layout in LAYOUTS
        if data.task in ("auto", layout[0])
        and (data.input_column or layout[1]) in found
        and (data.target_column or layout[3]) in found
        and (data.input_column in (None, layout[1]) or data.target_column in (None, layout[3]))
    ]
    guess = fitting[0] if fitting else None
    source = data.input_column or (guess[1] if guess else None)
    target = data.target_column or (guess[3] if guess else None)
    for given, key in ((source, "data.input_column"), (target, "data.target_column")):
        if given is None:
            raise ConfigError(
                f"which column of {name} to take is not known; it has {', '.join(found[:12])}",
                where=key,
                hint=f"--set {key}=NAME",
            )
    context = data.context_column
    if context is None and guess and guess[1] == source:
        # Also where the first row has none: in JSON lines each row may leave it out.
        context = guess[2]
    return Columns(_task(data, guess, row, str(target)), str(source), context, str(target))


def _there(column: str, found: list[str], name: str, key: str) -> None:
    if column not in found:
        near = get_close_matches(column, found, n=1)
        raise DataError(
            f"has no column '{column}'; it has {', '.join(found[:12])}",
            where=name,
            hint=f"--set {key}={near[0] if near else 'NAME'}",
        )


def _task(data: DataSection, guess: tuple[Task, str, str | None, str] | None, row: dict[str, Any], target: str) -> Task:
    if data.task != "auto":
        return data.task
    if guess is not None:
        return guess[0]
    value = row.get(target)
    if isinstance(value, bool | int):
        return "classification"
    return "qa" if isinstance(value, list | dict) else "generation"


def _pair(row: dict[str, Any], columns: Columns, where: str) -> list[Pair]:
    source = _text(row, columns.source, where)
    context = _checked(row.get(columns.context), columns.context, where) if columns.context else ""
    if columns.task == "classification":
        target = _label(row, columns.target, where)
        return [Pair(source, target, context)] if source and target else []
    if columns.task == "qa":
        answers = _answers(row, columns.target, where)
        return [Pair(source, answers[0], context, answers=answers)] if source and answers else []
    target = _text(row, columns.target, where)
    return [Pair(source, target, context)] if source and target else []


def _get(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f"has no '{column}'", where=where)
    return row[column]


def _text(row: dict[str, Any], column: str, where: str) -> str:
    return _checked(_get(row, column, where), column, where)


def _checked(value: Any, column: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"'{column}' is a {type(value).__name__}, not a text", where=where)
    if _HALF_CHARACTER.search(value):
        raise DataError(f"'{column}' has half of a two-part character in it", where=where)
    return value.strip()


def _label(row: dict[str, Any], column: str, where: str) -> str:
    value = _get(row, column, where)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    if value is not None and not isinstance(value, str):
        raise DataError(f"'{column}' is a {type(value).__name__}, neither a label's name nor its number", where=where)
    return _checked(value, column, where)


def _answers(row: dict[str, Any], column: str, where: str) -> tuple[str, ...]:
    """Accepted answers: one text, a list of them, SQuAD's {"text": […]}, or a list of {"text": …}."""
    value = _get(row, column, where)
    if isinstance(value, dict):
        value = value.get("text")
    items = value if isinstance(value, list) else [value]
    texts = [_checked(i.get("text") if isinstance(i, dict) else i, column, where) for i in items]
    return tuple(dict.fromkeys(text for text in texts if text))


def _conversation(row: dict[str, Any], columns: Columns, where: str) -> list[Pair]:
    turns: list[tuple[str, str]] = []
    pairs: list[Pair] = []
    messages = _get(row, columns.source, where)
    if not isinstance(messages, list):
        _no_message(columns.source, where)
    for message in messages:
        if not isinstance(message, dict):
            _no_message(columns.source, where)
        role = message.get("role", message.get("from"))
        text = _checked(message.get("content", message.get("value")), columns.source, where)
        if role not in _ROLES:
            raise DataError(f"'{columns.source}' has the role {role!r}; known are {', '.join(_ROLES)}", where=where)
        if _ROLES[role] == "assistant" and text and any(r == "user" for r, _ in turns):
            last = next(t for r, t in reversed(turns) if r == "user")
            pairs.append(Pair(last, text, turns=tuple(turns)))
        turns.append((_ROLES[role], text))
    return pairs


def _no_message(column: str, where: str) -> NoReturn:
    raise DataError(f"'{column}' is not a list of messages with role and content", where=where)

"""Which columns of a set hold what, and a row's texts by them, as they stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcft.data.kinds import Columns, Task, find_columns
from hpcft.errors import ConfigError
from hpcft.spec.job import DataSection


@dataclass(frozen=True)
class Fields:
    """The columns that are looked at.

    Attributes:
        task: what the rows ask for; None where the columns are not known, and then every text is looked at.
        inputs: columns that are given to the model.
        target: column of the answer or label.
        optional: of the inputs, the one that rows may leave empty, such as a context.
        chat: the input's column holds conversations, whose answers are in it.
    """

    task: Task | None
    inputs: tuple[str, ...]
    target: str | None
    optional: str | None = None
    chat: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns whose texts are checked: all but a label's."""
        answer = () if self.target is None or self.chat or self.task == "classification" else (self.target,)
        return (*self.inputs, *answer)

    def input(self, row: Mapping[str, Any]) -> str:
        """What is asked: the input columns as one text, stripped."""
        return "\x1f".join(text_of(row.get(column)).strip() for column in self.inputs)

    def answer(self, row: Mapping[str, Any]) -> str:
        """The answer or the label's name; of a chat the last thing that was answered."""
        if self.target is None:
            return ""
        if self.chat:
            return _last_answer(row.get(self.target))
        return text_of(row.get(self.target)).strip()


def find_fields(row: Mapping[str, Any], name: str, data: DataSection) -> Fields:
    """The columns of a set, from its first row and what the job says of them.

    Raises:
        DataError: a named column is not there.
    """
    try:
        found = find_columns(dict(row), name, data)
    except ConfigError:
        return Fields(None, tuple(k for k, v in row.items() if isinstance(v, str)) or tuple(row), None)
    return fields_of(found)


def fields_of(columns: Columns) -> Fields:
    """The same from columns that are known."""
    if columns.is_chat:
        return Fields(columns.task, (columns.source,), columns.target, chat=True)
    context = (columns.context,) if columns.context else ()
    return Fields(columns.task, (columns.source, *context), columns.target, columns.context)


def text_of(value: Any) -> str:
    """A value as one text: of a list its texts, of messages what was said."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, dict):
        inner = next((value[k] for k in ("content", "value", "text") if k in value), None)
        return text_of(inner) if inner is not None else json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, list | tuple):
        return "\n".join(text_of(each) for each in value)
    return str(value)


def _last_answer(messages: Any) -> str:
    if not isinstance(messages, list):
        return text_of(messages)
    said = [m for m in messages if isinstance(m, dict) and m.get("role", m.get("from")) in ("assistant", "gpt")]
    return text_of(said[-1]).strip() if said else ""

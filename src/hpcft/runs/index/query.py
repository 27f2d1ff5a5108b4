"""Asking the index: which runs, in which order, with which of their figures, one by one or by group."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcft.errors import UsageError
from hpcft.runs.index.scan import refresh
from hpcft.runs.index.store import FACT, open_for_reading, path_of, place, writer

# Columns of the table of runs by the names that users know; the rest are figures.
COLUMNS = {
    "run": "root",
    "name": "name",
    "group": "grp",
    "kind": "kind",
    "variant": "variant",
    "model": "model",
    "dataset": "dataset",
    "run_id": "run_id",
    "job_id": "job_id",
    "cluster": "cluster",
    "created": "created",
    "state": "state",
    "step": "step",
    "total_steps": "total_steps",
    "loss": "loss",
    "attempt": "attempt",
    "tags": "tags",
    "notes": "notes",
}
_TEXTS = {"run", "name", "group", "kind", "variant", "model", "dataset", "run_id", "job_id", "cluster", "state"}
_TEXTS |= {"tags", "notes"}
# What other programs of this kind call them.
ALIASES = {
    "id": "run",
    "created_at": "created",
    "model_name": "model",
    "model.name": "model",
    "dataset_name": "dataset",
    "data.dataset": "dataset",
    "accuracy": "final/validation_accuracy",
    "eval_accuracy": "final/validation_accuracy",
    "f1": "final/validation_f1_score",
    "eval_f1_score": "final/validation_f1_score",
    "eval_loss": "final/validation_loss",
    "runtime": "train/runtime_s",
    "train_runtime": "train/runtime_s",
    "tokens_per_sec": "train/throughput_tokens_per_sec",
    "cpu_percent": "system/cpu_percent",
    "memory_gb": "system/memory_gb",
}
_CONDITION = re.compile(r"\s*([\w./ -]*[\w./-])\s*(>=|<=|!=|==|=|>|<|!~|~)\s*(.*?)\s*")
_OPERATORS = {"=": "=", "==": "=", "!=": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<="}


@dataclass(frozen=True)
class Condition:
    """`key operator value`; `~` is "has in it", without case, and `glob` a pattern of the run's name."""

    key: str
    operator: str
    value: str


@dataclass(frozen=True)
class Query:
    """What is asked for.

    Attributes:
        where: all of them have to hold; a run without the figure does not fulfil one.
        sort: key to order by, and whether the largest comes first; runs without it come last.
        limit, offset: how many runs, after how many; None: all.
        show: keys whose values are wanted beside the columns.
    """

    where: tuple[Condition, ...] = ()
    sort: str = "created"
    descending: bool = True
    limit: int | None = None
    offset: int = 0
    show: tuple[str, ...] = ()


@dataclass
class Found:
    """The answer: runs in their order, and how many there are without the limit."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0


def condition(text: str) -> Condition:
    """A condition as it is typed.

    >>> condition("lora.r >= 8"), condition("name~rank")
    (Condition(key='lora.r', operator='>=', value='8'), Condition(key='name', operator='~', value='rank'))

    Raises:
        UsageError: it has no operator.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"'{text[:60]}' is no condition", where="--where", hint="such as lora.r>=8, variant=qlora or name~rank"
        )
    return Condition(match[1], match[2], match[3].strip("\"'"))


class Index:
    """The index of a results folder, brought up to date and open for questions.

    Args:
        results: the folder.
        fresh: whether to look for what has changed first.
        path: the index's file, where it is not the usual one.
    """

    def __init__(self, results: Path, *, fresh: bool = True, path: Path | None = None) -> None:
        self.results = results
        self.path = path or place(results)
        if fresh or not self.path.is_file():
            refresh(results, self.path)
        try:
            self._store = open_for_reading(self.path)
        except sqlite3.DatabaseError:
            refresh(results, self.path)
            self._store = open_for_reading(self.path)

    def close(self) -> None:
        """Close it."""
        self._store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def stamp(self) -> tuple[int, ...]:
        """Another one when the index is another: the times and sizes of its files."""
        found: list[int] = []
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            with suppress(OSError):
                about = path.stat()
                # The journal is made anew, and empty, by whoever opens the index.
                if about.st_size:
                    found += [about.st_ino, about.st_mtime_ns, about.st_size]
        return tuple(found)

    def ask(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows that a statement of SQL gives."""
        return self._store.execute(statement, values).fetchall()

    def keys(self) -> list[str]:
        """All figures and settings that any run has."""
        found = self._store.execute(
            "SELECT key FROM told, json_each(told.job, '$.config') AS each WHERE each.type != 'null' "
            "UNION SELECT key FROM told, json_each(told.metrics)"
        )
        return sorted(row[0] for row in found)

    def has(self, key: str) -> bool:
        """Whether any run has it."""
        name = ALIASES.get(key, key)
        if name in COLUMNS:
            return True
        return (
            self._store.execute(
                "SELECT 1 FROM facts WHERE key = ? AND value IS NOT NULL", (self.number(name),)
            ).fetchone()
            is not None
        )

    def known(self, key: str) -> str:
        """A key by the name that it stands under here.

        Raises:
            UsageError: nothing is called so; names the nearest.
        """
        if (column := ALIASES.get(key, key)) in COLUMNS:
            return column
        # Loaded only for what is not a column: a plain list needs none of it.
        from hpcft.spec.keys import SHORT_NAMES, fields

        short = SHORT_NAMES.get(key, "")
        for name in (ALIASES.get(key, key), ALIASES.get(short, short)):
            if name and (name in COLUMNS or name in fields() or name in ALIASES.values() or self.has(name)):
                return name
        from difflib import get_close_matches

        near = get_close_matches(key, [*COLUMNS, *ALIASES, *SHORT_NAMES, *self.keys(), *fields()], n=1, cutoff=0.5)
        raise UsageError(
            f"no run has anything called '{key[:60]}'",
            where=str(self.results),
            hint=f"did you mean {near[0]}? hpcft query --keys lists all" if near else "hpcft query --keys lists all",
        )

    def number(self, key: str) -> int:
        """The number of a key whose values stand by themselves; they are put there when it is asked for first.

        Returns:
            0 of what can be no key, or while another process writes.
        """
        query = "SELECT id FROM keys WHERE name = ?"
        found = self._store.execute(query, (key,)).fetchone()
        if found is None and '"' not in key and "\0" not in key:
            from hpcft.spec.keys import fields

            source = "config" if key in fields() else "metrics"
            with writer(self.path) as store:
                if store is not None:
                    store.execute("INSERT OR IGNORE INTO keys (name, source) VALUES (?, ?)", (key, source))
                    number = store.execute(query, (key,)).fetchone()[0]
                    store.execute(
                        f"INSERT OR IGNORE INTO facts SELECT ?1, run, {FACT[source]} FROM told",  # noqa: S608
                        (number, path_of(key, source)),
                    )
            found = self._store.execute(query, (key,)).fetchone()
        return int(found[0]) if found is not None else 0

    def find(self, query: Query) -> Found:
        """The runs that a query asks for.

        Returns:
            Each with `id` (the index's own), all of `COLUMNS`, and what was to be shown.

        Raises:
            UsageError: a key that nothing is called, or a value that cannot be compared so.
        """
        chosen = _Select(self)
        order = chosen.expression(self.known(query.sort))
        way = "DESC" if query.descending else "ASC"
        for each in query.where:
            chosen.require(each)
        # First which, then what of them: of the others no more is read than decides it.
        ids = f"SELECT runs.id, {order} AS place FROM runs{chosen.joins}{chosen.where}"  # noqa: S608 (values are bound)
        ids += f" ORDER BY {order} {way} NULLS LAST, runs.root"
        if query.limit is not None:
            ids += f" LIMIT {int(query.limit)} OFFSET {int(query.offset)}"
        shown = _Select(self)
        figures = {key: shown.expression(self.known(key)) for key in query.show}
        columns = ", ".join(["runs.id", *(f"runs.{column}" for column in COLUMNS.values()), *figures.values()])
        text = f"SELECT {columns} FROM ({ids}) AS chosen CROSS JOIN runs ON runs.id = chosen.id{shown.joins}"  # noqa: S608
        text += f" ORDER BY chosen.place {way} NULLS LAST, runs.root"
        found = Found()
        names = ("id", *COLUMNS, *figures)
        with closing(self._store.execute(text, [*chosen.values, *shown.values])) as rows:
            found.rows = [dict(zip(names, row, strict=True)) for row in rows]
        found.total = len(found.rows)
        if query.limit is not None:
            counted = _Select(self)
            for each in query.where:
                counted.require(each)
            count = f"SELECT count(*) FROM runs{counted.joins}{counted.where}"  # noqa: S608
            found.total = self._store.execute(count, counted.values).fetchone()[0]
        return found

    def facts(self, number: int) -> dict[str, Any]:
        """Everything that is known of one run beside its columns: settings that differ from their defaults, figures."""
        row = self._store.execute("SELECT job -> '$.config', metrics FROM told WHERE run = ?", (number,)).fetchone()
        return (
            {} if row is None else {k: v for text in row for k, v in json.loads(text or "{}").items() if v is not None}
        )


class _Select:
    """A statement under construction: joins, conditions and the values that are bound to them, in their order."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._joined: dict[str, str] = {}
        self.conditions: list[str] = []
        self._of_joins: list[Any] = []
        self._of_conditions: list[Any] = []

    @property
    def joins(self) -> str:
        """The tables beside the runs'."""
        return "".join(
            f" JOIN facts AS {name} ON {name}.key = ? AND {name}.run = runs.id" for name in self._joined.values()
        )

    @property
    def where(self) -> str:
        """The conditions."""
        return f" WHERE {' AND '.join(self.conditions)}" if self.conditions else ""

    @property
    def values(self) -> list[Any]:
        """What is bound, in the order of the question marks."""
        return [*self._of_joins, *self._of_conditions]

    def expression(self, key: str) -> str:
        """A key's value as SQL: the column, or the figure, or the setting's default."""
        if key in COLUMNS:
            return f"runs.{COLUMNS[key]}"
        if key not in self._joined:
            number = self._index.number(key)
            if not number:
                return "NULL"
            self._joined[key] = f"f{len(self._joined)}"
            self._of_joins.append(number)
        default = _default(key)
        inner = f"{self._joined[key]}.value"
        return inner if default is None else f"coalesce({inner}, {_literal(default)})"

    def require(self, each: Condition) -> None:
        """Add a condition."""
        key = self._index.known(each.key)
        value = self.expression(key)
        operator, number = _OPERATORS.get(each.operator, ""), _number(each.value)
        if each.operator == "glob":
            # The name alone or with its group's.
            self._add("(runs.root GLOB ? OR runs.name GLOB ?)", each.value, each.value)
        elif each.operator in ("~", "!~"):
            found = f"coalesce(instr(lower({value}), lower(?)) > 0, 0)"
            self._add(found if each.operator == "~" else f"NOT {found}", each.value)
        elif key == "tags" and operator in ("=", "!="):
            found = "EXISTS (SELECT 1 FROM json_each(runs.tags) WHERE value = ?)"
            self._add(found if operator == "=" else f"NOT {found}", each.value)
        elif key in _TEXTS:
            self._add(f"{value} {operator} ?", each.value.upper() if key == "state" else each.value)
        elif number is not None or each.value.lower() in ("true", "false"):
            # SQLite has 1 for true.
            self._add(f"{value} {operator} ?", float(each.value.lower() == "true") if number is None else number)
        elif operator in ("=", "!="):
            self._add(f"{value} {operator} ?", each.value)
        else:
            raise UsageError(
                f"'{each.value[:40]}' is no number, and {each.key} is compared with {each.operator}", where="--where"
            )

    def _add(self, text: str, *values: Any) -> None:
        self.conditions.append(text)
        self._of_conditions += values


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _default(key: str) -> Any:
    """What a setting is where a job says nothing of it."""
    from hpcft.spec.keys import fields

    field = fields().get(key)
    return None if field is None else field.get_default(call_default_factory=True)


def _literal(value: Any) -> str:
    """A default, which is ours, as SQL."""
    if isinstance(value, int | float):
        return repr(float(value))
    text = value if isinstance(value, str) else json.dumps(value)
    return "'" + text.replace("'", "''") + "'"


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 of a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def grouped(rows: Sequence[dict[str, Any]], by: Sequence[str], figures: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Runs by the values of some keys, such as all that differ in their seed alone.

    Returns:
        For each group: the values, `runs`, and for each figure `mean`, `std`, `min`, `max` and `n`, where any run has
        it; in the order in which the groups are met.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    for values, members in groups.items():
        told: dict[str, Any] = dict(zip(by, values, strict=True)) | {"runs": len(members)}
        for figure in figures:
            numbers = [float(m[figure]) for m in members if isinstance(m[figure], int | float)]
            if numbers:
                mean, std = spread(numbers)
                told[figure] = {"mean": mean, "std": std, "min": min(numbers), "max": max(numbers), "n": len(numbers)}
            else:
                told[figure] = None
        yield told

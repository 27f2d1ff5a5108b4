"""A set without the faults that can be taken out of it, written beside the one that it is made from."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hpcft.data.care import hashes
from hpcft.data.care.fields import Fields, find_fields, text_of
from hpcft.data.care.rules import EMPTY, ENCODING, LENGTH, faults, mended
from hpcft.data.care.survey import DUPLICATES, EXAMPLES
from hpcft.data.sources import Row
from hpcft.errors import DataError, UsageError
from hpcft.runs.files import FILE_MODE, explained
from hpcft.spec.job import ChecksSection, DataSection

FORMATS = (".csv", ".tsv", ".jsonl", ".json")
# What removes a row; the rest is put right in it.
_REMOVED = (EMPTY, ENCODING, LENGTH)


@dataclass
class Cleaned:
    """What cleaning did.

    Attributes:
        rows: read. kept: written. changed: written with another text than was read.
        removed: rows, by the first fault of each.
        examples: fault → (place, beginning of the text) of the first rows removed for it.
    """

    rows: int = 0
    kept: int = 0
    changed: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def remove(self, kind: str, where: str, text: str) -> None:
        """Count a row that is left out."""
        self.removed[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            shown.append((where, text[:160].replace("\x1f", " | ")))

    @property
    def facts(self) -> dict[str, Any]:
        """For JSON."""
        examples = {k: [{"where": w, "text": t} for w, t in v] for k, v in self.examples.items()}
        return {
            "rows": self.rows,
            "kept": self.kept,
            "changed": self.changed,
            "removed": dict(self.removed),
            "examples": examples,
        }


def clean(
    read: Callable[[], Iterable[Row]], name: str, data: DataSection, rules: ChecksSection, target: Path
) -> Cleaned:
    """Write the rows of a set that have no fault, or none any more.

    Texts lose tags, controls and superfluous whitespace; rows without a text, with broken characters, of a length
    outside of the rules, or that stand further up already are left out. A check of what is written finds none of
    these faults.

    Args:
        read: gives the rows.
        target: file to make, .csv, .tsv, .jsonl or .json; it appears when it is whole.

    Raises:
        DataError: the set cannot be read, or nothing of it would be left; no file is written then.
        UsageError: the file is there already, or has another ending.
    """
    if target.suffix.lower() not in FORMATS:
        raise UsageError(f"ends in '{target.suffix}'; one of {', '.join(FORMATS)}", where=str(target))
    if os.path.lexists(target):
        raise UsageError("is there already", where=str(target), hint="choose another name, or remove it")
    found = Cleaned()
    with _written(target) as write:
        for row in _kept(read(), name, data, rules, found):
            write(row)
        if not found.kept:
            reasons = ", ".join(f"{kind} {n:,}" for kind, n in found.removed.most_common()) or "it holds no row"
            raise DataError(
                f"nothing would be left: {reasons}", where=name, hint="see hpcft data validate; loosen checks.*"
            )
    return found


def _kept(
    rows: Iterable[Row], name: str, data: DataSection, rules: ChecksSection, found: Cleaned
) -> Iterator[dict[str, Any]]:
    fields: Fields | None = None
    seen = hashes.Seen()
    for where, row in rows:
        fields = fields or find_fields(row, name, data)
        found.rows += 1
        better = {k: _mended(v, rules) if k in fields.texts else v for k, v in row.items()}
        fault, text = _fault(row, better, fields, rules)
        if fault is None:
            number = hashes.digest(fields.input(better) + "\x1e" + fields.answer(better))
            fault, text = (None if seen.add(number) else DUPLICATES), fields.input(better)
        if fault is not None:
            found.remove(fault, where, text)
            continue
        found.kept += 1
        found.changed += better != row
        yield better


def _fault(row: dict[str, Any], better: dict[str, Any], fields: Fields, rules: ChecksSection) -> tuple[str | None, str]:
    """The first fault for which a row is left out, and the text that has it."""
    for column in fields.texts:
        before, after = text_of(row.get(column)), text_of(better.get(column))
        # What was not read rightly is not made right by taking something else out of it.
        kinds = {*faults(after, rules), *(k for k in faults(before, rules) if k == ENCODING)}
        for kind in _REMOVED:
            if kind in kinds and not (kind == EMPTY and column == fields.optional):
                return kind, before
    if fields.target is not None and not fields.answer(better) and not rules.allow_empty:
        return EMPTY, fields.input(row)
    return None, ""


def _mended(value: Any, rules: ChecksSection) -> Any:
    """A value with its texts mended; of lists and messages each."""
    if isinstance(value, str):
        return mended(value, rules)
    if isinstance(value, list):
        return [_mended(each, rules) for each in value]
    if isinstance(value, dict):
        return {k: _mended(v, rules) if k in ("content", "value", "text") else v for k, v in value.items()}
    return value


@contextmanager
def _written(target: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write rows into a file that appears when all of them are in it."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with explained(target, "write"):
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        try:
            with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
                writer = _Writer(file, target.suffix.lower())
                yield writer.row
                writer.end()
                file.flush()
                os.fsync(file.fileno())
            aside.rename(target)
        finally:
            aside.unlink(missing_ok=True)


class _Writer:
    """Rows in one of the formats that can be read again."""

    def __init__(self, file: IO[str], ending: str) -> None:
        self._file, self._ending = file, ending
        self._csv = csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
        self._columns: list[str] | None = None

    def row(self, row: dict[str, Any]) -> None:
        """Write one."""
        if self._ending in (".csv", ".tsv"):
            if self._columns is None:
                self._columns = list(row)
                self._csv.writerow(self._columns)
            if list(row) != self._columns:
                raise DataError("rows have different columns, which a table cannot hold", hint="write a .jsonl file")
            self._csv.writerow([v if isinstance(v, str) else _cell(v) for v in row.values()])
            return
        text = json.dumps(row, ensure_ascii=False, default=str)
        lead = "" if self._ending == ".jsonl" else "[\n" if self._columns is None else ",\n"
        self._columns = self._columns or []
        self._file.write(lead + text + ("\n" if self._ending == ".jsonl" else ""))

    def end(self) -> None:
        """Write what comes behind the last one."""
        if self._ending == ".json" and self._columns is not None:
            self._file.write("\n]\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise DataError("a column holds lists, which a table cannot", hint="write a .jsonl file")
    return str(value)

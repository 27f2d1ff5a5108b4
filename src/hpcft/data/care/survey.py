"""One pass over a set: faults of its texts, duplicates, distribution, lengths, and the hash that is its version."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from hpcft.data.care import hashes
from hpcft.data.care.fields import Fields, find_fields, text_of
from hpcft.data.care.rules import CODE_PAGE, EMPTY, ENCODING, HTML, LENGTH, faults, is_cut
from hpcft.data.sources import Row
from hpcft.errors import DataError
from hpcft.spec.job import ChecksSection, DataSection

DUPLICATES, CONFLICTS, CUT, CUT_AT_LIMIT = "duplicate_entries", "contradicting_labels", "cut_answers", "cut_at_length"
EXAMPLES = 5
_SHOWN_CHARACTERS = 160
# So many different answers are still classes.
_MOST_CLASSES = 50
# More of them are not counted one by one.
_MOST_COUNTED = 20_000
# Answers of fewer characters end where they like.
_LONG = 60
_ENDS = (".", "!", "?", "。", "！", "？", "…", '"', "'", ")", "]", "}", "”", "」", "）", ":", ";")


@dataclass
class Issue:
    """One kind of fault.

    Attributes:
        count: rows that have it.
        columns: texts that have it, by column.
        examples: (place, column, beginning of the text), of the first rows.
    """

    count: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class Survey:
    """What a pass over rows has seen.

    Attributes:
        columns: of the first row. rows: their number. sha256: of all rows in their order.
        partial: whether there were more, which were not looked at.
        lengths: characters → texts of that length, by column.
        answers: answer → rows; no new ones once there are very many.
        row_numbers, input_numbers, answer_numbers: a hash for each row.
    """

    fields: Fields
    rules: ChecksSection
    columns: tuple[str, ...] = ()
    rows: int = 0
    sha256: str = ""
    partial: bool = False
    issues: defaultdict[str, Issue] = field(default_factory=lambda: defaultdict(Issue))
    lengths: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    answers: Counter[str] = field(default_factory=Counter)
    answer_ends: Counter[int] = field(default_factory=Counter)
    row_numbers: Any = field(default_factory=hashes.numbers)
    input_numbers: Any = field(default_factory=hashes.numbers)
    answer_numbers: Any = field(default_factory=hashes.numbers)

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        """Look at one row."""
        found: dict[str, str] = {}
        for column in self.fields.texts:
            text = text_of(row.get(column))
            self.lengths[column][len(text.strip())] += 1
            for kind in faults(text, self.rules):
                if kind == EMPTY and column == self.fields.optional:
                    continue
                self._note(kind, where, column, text, new=kind not in found)
                found[kind] = column
        answer = self.fields.answer(row)
        if self.fields.target is not None and self.fields.target not in self.fields.texts and not answer:
            self._note(EMPTY, where, self.fields.target, "", new=EMPTY not in found)
        if answer:
            if answer in self.answers or len(self.answers) < _MOST_COUNTED:
                self.answers[answer] += 1
            if self.fields.task in ("generation", "qa"):
                self._look_for_a_cut(where, answer)
        asked = self.fields.input(row)
        self.row_numbers.append(hashes.digest(asked + "\x1e" + answer))
        self.input_numbers.append(hashes.digest(asked))
        self.answer_numbers.append(hashes.digest(answer))
        self.rows += 1

    def _look_for_a_cut(self, where: str, answer: str) -> None:
        if is_cut(answer):
            self._note(CUT, where, str(self.fields.target), answer)
        if len(answer) >= _LONG and not answer.endswith(_ENDS):
            self.answer_ends[len(answer)] += 1

    def _note(self, kind: str, where: str, column: str, text: str, *, new: bool = True) -> None:
        issue = self.issues[kind]
        issue.count += new
        issue.columns[column] += 1
        if new and len(issue.examples) < EXAMPLES:
            issue.examples.append((where, column, text[:_SHOWN_CHARACTERS]))

    @property
    def classes(self) -> Counter[str] | None:
        """How often each class, or each of a few answers, stands in the set; None where they are not classes."""
        distinct = len(self.answers)
        few = 1 <= distinct <= _MOST_CLASSES and self.rows >= 10 * distinct
        return self.answers if distinct and (self.fields.task == "classification" or few) else None


def survey(
    read: Callable[[], Iterable[Row]], name: str, data: DataSection, rules: ChecksSection, limit: int | None = None
) -> Survey:
    """Look at a whole set.

    Args:
        read: gives the rows from the beginning, each time that it is called: they are read again, as far as needed, to
            say where duplicates stand.
        limit: rows that are looked at.

    Raises:
        DataError: it cannot be read, or holds no row.
    """
    found: Survey | None = None
    whole = hashlib.sha256()
    for where, row in read():
        if found is None:
            found = Survey(find_fields(row, name, data), rules, tuple(row))
        if limit is not None and found.rows >= limit:
            found.partial = True
            break
        found.add(where, row)
        whole.update(canonical(row))
    if found is None:
        raise DataError("holds no row", where=name)
    found.sha256 = whole.hexdigest()
    _find_repeated(found, read)
    return found


def canonical(row: Mapping[str, Any]) -> bytes:
    """A row as bytes, the same for the same values in whatever order its columns stand."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=True, default=str, separators=(",", ":"))
    return text.encode() + b"\n"


def _find_repeated(found: Survey, read: Callable[[], Iterable[Row]]) -> None:
    places = {DUPLICATES: hashes.repeated(found.row_numbers)}
    if found.fields.task == "classification":
        places[CONFLICTS] = hashes.contradicted(found.input_numbers, found.answer_numbers)
    limit = _limit_of(found.answer_ends)
    if limit is not None:
        found.issues[CUT_AT_LIMIT] = Issue(found.answer_ends[limit], Counter({f"{limit} characters": 1}))
    wanted = {kind: [int(i) for i in at[:EXAMPLES]] for kind, at in places.items() if len(at)}
    if not wanted:
        return
    last = max(max(at) for at in wanted.values())
    shown = {i for at in wanted.values() for i in at}
    texts = {
        i: (where, found.fields.input(row)[:_SHOWN_CHARACTERS].replace("\x1f", " | "))
        for i, (where, row) in enumerate(islice(read(), last + 1))
        if i in shown
    }
    column = ", ".join(found.fields.inputs)
    for kind, at in wanted.items():
        examples = [(texts[i][0], column, texts[i][1]) for i in at if i in texts]
        found.issues[kind] = Issue(len(places[kind]), Counter({column: len(places[kind])}), examples)


def _limit_of(ends: Counter[int]) -> int | None:
    """The length at which answers were cut: the longest one, where many that end in mid-sentence have just it."""
    total = sum(ends.values())
    if not total:
        return None
    longest = max(ends)
    return longest if ends[longest] >= max(5, total / 20) else None


ORDER = (EMPTY, ENCODING, CUT, CUT_AT_LIMIT, CONFLICTS, LENGTH, CODE_PAGE, HTML, DUPLICATES)

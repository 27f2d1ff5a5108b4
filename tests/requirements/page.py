"""Which row of the requirements is held by which tests: read from their names, and written as a page.

    PYTHONPATH=tests python -m requirements.page [--write PAGE]

A test's name begins with the rows that it holds: `test_b33_…`, `test_a6_ta2_…`, `test_a8_to_a12_…`. What the rows are,
which of them are settled otherwise and which are not built yet stands in `rows.yaml`; writing the page takes those
that have a test by now from the list of the latter, so that no row loses its test unseen.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]
BENCHMARKS = TESTS.parent / "benchmarks"
ROWS = Path(__file__).with_name("rows.yaml")
_ROW = re.compile(r"([A-Z]+)(\d+)")
_SLOW = re.compile(r"\bpytest\.mark\.slow\b")


@dataclass(frozen=True)
class Part:
    """A part of the requirements: its rows in order, each with what it asks for in few words."""

    title: str
    rows: dict[str, str]


@dataclass(frozen=True)
class Table:
    """What `rows.yaml` says.

    Attributes:
        settled: row → why it needs no test.
        not_yet: row → what it comes with.
        lacking: row with tests → what they do not hold yet.
        benchmarks: file → the rows that it measures.
    """

    parts: dict[str, Part]
    settled: dict[str, str]
    not_yet: dict[str, str]
    lacking: dict[str, str]
    benchmarks: dict[str, list[str]]

    @property
    def rows(self) -> dict[str, str]:
        """All rows of all parts."""
        return {row: words for part in self.parts.values() for row, words in part.rows.items()}

    @property
    def measured(self) -> set[str]:
        """The rows that a benchmark measures."""
        return {row for rows in self.benchmarks.values() for row in rows}


@dataclass(frozen=True)
class Case:
    """A test by its name, the file that it is in, and whether it is one of the slow ones."""

    name: str
    file: Path
    slow: bool


def read_table() -> Table:
    """The table of this repository.

    Raises:
        ValueError: it names a row that is not among its parts'.
    """
    raw = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    parts = {name: Part(**part) for name, part in raw["parts"].items()}
    known = [row for part in parts.values() for row in part.rows]
    return Table(
        parts,
        raw["settled"],
        not_yet={row: why for why, rows in (raw["not_yet"] or {}).items() for row in rows_in(rows.split(), known)},
        lacking=raw["lacking"],
        benchmarks={file: rows_in(rows.split(), known) for file, rows in raw["benchmarks"].items()},
    )


def rows_in(words: list[str], known: list[str]) -> list[str]:
    """The rows at the beginning of some words.

    >>> rows_in("a1 a3 to a5 te1 and more a9".split(), ["A1", "A3", "A4", "A5", "A9", "TE1"])
    ['A1', 'A3', 'A4', 'A5', 'TE1']

    Raises:
        ValueError: a part that is known has no such row, or a range has no end.
    """
    parts = {_part(row) for row in known}
    found: list[str] = []
    to = False
    for word in (w.upper() for w in words):
        if word == "TO" and found and not to:
            to = True
            continue
        if not (match := _ROW.fullmatch(word)) or match[1] not in parts:
            break
        if word not in known:
            raise ValueError(f"there is no row {word}")
        span = known[known.index(found[-1] if to else word) : known.index(word) + 1]
        if {_part(row) for row in span} != {match[1]}:
            raise ValueError(f"{found[-1]} to {word} is no range")
        found += span[to:]
        to = False
    if to:
        raise ValueError(f"the range from {found[-1]} on has no end")
    return found


def _part(row: str) -> str:
    return row.rstrip("0123456789")


def read_tests(folder: Path = TESTS) -> list[Case]:
    """Every test below a folder, by reading and not by importing."""
    found = []
    for file in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        marked = any(_SLOW.search(ast.unparse(n)) for n in tree.body if isinstance(n, ast.Assign))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                slow = marked or any(_SLOW.match(ast.unparse(mark)) for mark in node.decorator_list)
                found.append(Case(node.name, file.relative_to(folder), slow))
    return found


def held_by(tests: list[Case], table: Table) -> tuple[dict[str, list[Case]], list[str]]:
    """Row → its tests, and what is wrong with the names of tests."""
    known, held, wrong = list(table.rows), dict[str, list[Case]](), list[str]()
    for test in tests:
        try:
            for row in rows_in(test.name.removeprefix("test_").split("_"), known):
                held.setdefault(row, []).append(test)
        except ValueError as error:
            wrong.append(f"{test.file}: {test.name}: {error}")
    return held, wrong


def faults(table: Table, tests: list[Case]) -> list[str]:
    """What does not go together: names of no row, rows that nothing holds, notes that are not true any more."""
    held, found = held_by(tests, table)
    for row, words in table.rows.items():
        if row in table.not_yet and row in held:
            found.append(f"{row} has a test now ({held[row][0].name}): run: make requirements")
        if not {row} & (held.keys() | table.settled.keys() | table.not_yet.keys() | table.measured):
            found.append(f"{row} ({words}) has no test: name one test_{row.lower()}_…, or say in rows.yaml why not")
        if row in table.lacking and row not in held:
            found.append(f"{row} has no test: it belongs to not_yet in rows.yaml, not to lacking")
    unknown = sorted((table.settled.keys() | table.lacking.keys()) - table.rows.keys())
    found += [f"there is no row {row}, which rows.yaml says something of" for row in unknown]
    there = {file.name for file in BENCHMARKS.glob("*.py")}
    found += [f"benchmarks/{name} is not in rows.yaml" for name in sorted(there - table.benchmarks.keys())]
    found += [f"benchmarks/{name} in rows.yaml is not there" for name in sorted(table.benchmarks.keys() - there)]
    return found


def page(table: Table, tests: list[Case]) -> str:
    """The page, in Markdown."""
    held, _ = held_by(tests, table)
    lines = [
        "# Requirements",
        "",
        "Made by `make requirements`: what each row asks for in few words, and the tests that hold it, which carry its",
        "number in their names. Slow ones, which `make test-all` runs, are marked so. T rows are faults of earlier",
        "programs that this one must not have.",
        "",
        "| part | | rows | tested or measured | settled otherwise | not yet |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in table.parts.items():
        tested = sum(row in held or row in table.measured for row in part.rows)
        settled = sum(row in table.settled for row in part.rows)
        open_ = sum(row in table.not_yet for row in part.rows)
        lines.append(f"| {name} | {part.title} | {len(part.rows)} | {tested} | {settled} | {open_} |")
    for name, part in table.parts.items():
        lines += ["", f"## {name}. {part.title}", "", "| row | what | held by |", "|---|---|---|"]
        lines += [f"| {row} | {words} | {_holders(row, table, held)} |" for row, words in part.rows.items()]
    lines += ["", "## Benchmarks", "", "What is measured and not tested; `docs/measured.md` has what came of it."]
    lines += ["", "| benchmark | rows |", "|---|---|"]
    for file, rows in table.benchmarks.items():
        told = ", ".join(f"{row} ({table.rows[row]})" for row in rows) or "of no row"
        lines.append(f"| [{file}](../benchmarks/{file}) | {told} |")
    return "\n".join([*lines, ""])


def _holders(row: str, table: Table, held: dict[str, list[Case]]) -> str:
    found = [f"settled otherwise: {table.settled[row]}"] if row in table.settled else []
    files: dict[Path, list[str]] = {}
    for test in held.get(row, []):
        files.setdefault(test.file, []).append(f"`{test.name}`" + (" (slow)" if test.slow else ""))
    found += [f"[{file}](../tests/{file}): {', '.join(names)}" for file, names in files.items()]
    found += [f"[{file}](../benchmarks/{file})" for file, rows in table.benchmarks.items() if row in rows]
    found += [f"not yet: {table.not_yet[row]}"] if row in table.not_yet else []
    found += [f"still to come: {table.lacking[row]}"] if row in table.lacking else []
    return "<br>".join(found)


def without(text: str, held: Collection[str], known: list[str]) -> str:
    """The text of `rows.yaml` without the rows of not_yet that have a test."""
    head, mark, rest = text.partition("\nnot_yet:\n")
    block, end, tail = rest.partition("\n\n")
    lines = []
    for line in block.splitlines():
        why, _, words = line.partition(": ")
        rows = rows_in(words.split(), known)
        left = [row for row in rows if row not in held]
        if left:
            lines.append(line if left == rows else f"{why}: {_in_words(left, known)}")
    return head + mark + "\n".join(lines) + end + tail


def _in_words(rows: list[str], known: list[str]) -> str:
    spans: list[list[str]] = []
    for row in rows:
        before = known[known.index(row) - 1]
        if spans and spans[-1][-1] == before and _part(before) == _part(row):
            spans[-1].append(row)
        else:
            spans.append([row])
    return " ".join(f"{span[0]} to {span[-1]}" if len(span) > 2 else " ".join(span) for span in spans)


def main() -> int:
    """Write the page; 1 when something does not go together."""
    table, tests = read_table(), read_tests()
    if "--write" in sys.argv:
        text = without(ROWS.read_text(encoding="utf-8"), held_by(tests, table)[0], list(table.rows))
        ROWS.write_text(text, encoding="utf-8")
        table = read_table()
        Path(sys.argv[sys.argv.index("--write") + 1]).write_text(page(table, tests), encoding="utf-8")
    else:
        print(page(table, tests), end="")
    wrong = faults(table, tests)
    print("".join(f"{line}\n" for line in wrong), end="", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

"""Reading pairs of source and target: files, the hub, and the set that this package makes itself."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hpcft.data.e2e import make_rows
from hpcft.errors import ConfigError, DataError, UnavailableError
from hpcft.spec.identifiers import user_path

QUICKSTART = "quickstart"
_QUICKSTART_INPUTS = 240

# Known names → hub ids.
HUB_NAMES = {"e2e_nlg": "tuetschek/e2e_nlg", "samsum": "knkarthick/samsum"}
# Layouts that need no column to be named, in the order that they are looked for.
LAYOUTS = (
    ("mr", "ref"),
    ("meaning_representation", "human_reference"),
    ("dialogue", "summary"),
    ("instruction", "output"),
    ("input", "output"),
    ("prompt", "completion"),
    ("source", "target"),
)
_FIELD_LIMIT = 64 * 1024 * 1024
# JSON can write one half of a UTF-16 pair (\ud800); no tokenizer takes it and no file can hold it.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Pair:
    """One row: what is given and what is to be answered."""

    source: str
    target: str


@dataclass(frozen=True)
class Source:
    """Rows of one data set.

    Attributes:
        pairs: rows with both texts.
        input_column, target_column: where they were found.
        skipped: rows left out because a text was empty.
    """

    pairs: list[Pair]
    input_column: str
    target_column: str
    skipped: int


def read_pairs(dataset: str, input_column: str | None, target_column: str | None) -> Source:
    """Read a data set.

    Args:
        dataset: `quickstart`, a known name, a path of a .csv, .tsv, .jsonl or .json file, or a hub id.
        input_column, target_column: columns; guessed for known layouts.

    Raises:
        DataError: a file that is missing, empty, broken or without the columns; names the line.
        UnavailableError: a hub set that is neither cached nor reachable.
    """
    if dataset == QUICKSTART:
        rows: Iterator[tuple[str, dict[str, Any]]] = (
            (f"row {i}", {"mr": r.mr, "ref": r.ref}) for i, r in enumerate(make_rows(_QUICKSTART_INPUTS, 0), 1)
        )
        return _pairs(rows, dataset, input_column, target_column)
    if is_hub(dataset):
        return _pairs(_read_hub(HUB_NAMES.get(dataset, dataset)), dataset, input_column, target_column)
    path = user_path(dataset)
    if _is_file_name(path):
        return _pairs(_read_file(path), str(path), input_column, target_column)
    near = get_close_matches(dataset, [QUICKSTART, *HUB_NAMES], n=1)
    raise DataError(
        f"there is no data set or file '{dataset[:100]}'",
        where="data.dataset",
        hint=(f"did you mean '{near[0]}'? " if near else "")
        + f"known names: {QUICKSTART}, {', '.join(HUB_NAMES)}; or the path of a .csv, .tsv, .jsonl or .json file",
    )


def is_hub(dataset: str) -> bool:
    """Whether a data set would come from the hub. A known name does, also beside a folder of that name."""
    if dataset in HUB_NAMES:
        return True
    return bool(_HUB_ID.fullmatch(dataset)) and not _is_file_name(Path(dataset))


def _is_file_name(path: Path) -> bool:
    """Meant as a file: by its ending, or since it is there. `lexists` says no to a name that is too long, where
    `Path.exists` raises."""
    return path.suffix.lower() in _READERS or os.path.lexists(path)


def _read_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.is_dir():
        raise DataError("is a folder; name a .csv, .tsv, .jsonl or .json file in it", where=str(path))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"ends in '{path.suffix}'; {', '.join(_READERS)} can be read", where=str(path))
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        siblings = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        raise DataError(
            "there is no such file", where=str(path), hint=f"did you mean {near[0]}?" if near else None
        ) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"is not UTF-8 text: byte {raw[error.start]:#04x} at offset {error.start}",
            where=f"{path}:{line}",
            hint="convert it, for example with: iconv -f LATIN1 -t UTF-8",
        ) from error
    if "\0" in text:
        raise DataError("has a NUL character in it", where=f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}")
    if not text.strip():
        raise DataError("is empty", where=str(path))
    yield from reader(path, text)


def _read_csv(path: Path, text: str, delimiter: str = ",") -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    began = 1
    try:
        for row in reader:
            where = f"{path}:{began}"
            began = reader.line_num + 1
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
            elif len(row) != len(header):
                raise DataError(f"has {len(row)} fields; the header has {len(header)}", where=where)
            else:
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"is broken: {error}", where=f"{path}:{began}", hint="is a quote left open?") from error


def _read_tsv(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return _read_csv(path, text, "\t")


def _read_jsonl(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines(): a JSON text may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"is not a JSON object: {error}", where=where) from error
        if not isinstance(row, dict):
            raise DataError(f"is a {type(row).__name__}, not a JSON object", where=where)
        yield where, row


def _read_json(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg}", where=f"{path}:{error.lineno}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, brackets nested a thousand deep: Python gives no line for these.
        raise DataError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("is not a list of JSON objects", where=str(path))
    yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows, 1))


_Reader = Callable[[Path, str], Iterator[tuple[str, dict[str, Any]]]]
_READERS: dict[str, _Reader] = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".json": _read_json}


def _read_hub(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        try:
            rows = load_dataset(name, split="train")
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            # The hub keeps a converted copy of sets that were made by a script, which is not run any more.
            rows = load_dataset(name, split="train", revision="refs/convert/parquet")
    except Exception as error:
        # The hub's client raises errors of half a dozen libraries for "not there" and "not reachable".
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        state = "the job has no internet and it is not in the cache" if HF_HUB_OFFLINE else said
        raise UnavailableError(
            f"the data set '{name}' cannot be had from the hub: {state}",
            where="data.dataset",
            hint="use a local file (--dataset FILE.csv), or to try the tool out: --dataset quickstart",
        ) from error
    yield from ((f"{name}, row {i}", dict(row)) for i, row in enumerate(rows, 1))


def _pairs(
    rows: Iterator[tuple[str, dict[str, Any]]], name: str, input_column: str | None, target_column: str | None
) -> Source:
    columns: tuple[str, str] | None = None
    pairs: list[Pair] = []
    skipped = 0
    for where, row in rows:
        if columns is None:
            columns = _columns(list(row), name, input_column, target_column)
        texts = []
        for column in columns:
            value = row.get(column)
            if column not in row:
                raise DataError(f"has no '{column}'", where=where)
            if value is not None and not isinstance(value, str):
                raise DataError(f"'{column}' is a {type(value).__name__}, not a text", where=where)
            if value is not None and _HALF_CHARACTER.search(value):
                raise DataError(f"'{column}' has half of a two-part character in it", where=where)
            texts.append((value or "").strip())
        extra = row.get("input") if columns[0] == "instruction" else None
        if isinstance(extra, str) and extra.strip():
            texts[0] = f"{texts[0]}\n\n{extra.strip()}"
        if all(texts):
            pairs.append(Pair(texts[0], texts[1]))
        else:
            skipped += 1
    if columns is None or not pairs:
        raise DataError("holds no row with both a source and a target", where=name)
    return Source(pairs, columns[0], columns[1], skipped)


def _columns(found: list[str], name: str, input_column: str | None, target_column: str | None) -> tuple[str, str]:
    guess = next(((a, b) for a, b in LAYOUTS if a in found and b in found), (None, None))
    chosen = (input_column or guess[0], target_column or guess[1])
    for given, key in zip(chosen, ("data.input_column", "data.target_column"), strict=True):
        if given is None:
            raise ConfigError(
                f"which column of {name} to take is not known; it has {', '.join(map(str, found[:12]))}",
                where=key,
                hint=f"--set {key}=NAME",
            )
        if given not in found:
            near = get_close_matches(given, found, n=1)
            raise DataError(
                f"has no column '{given}'; it has {', '.join(map(str, found[:12]))}",
                where=name,
                hint=f"--set {key}={near[0] if near else 'NAME'}",
            )
    return str(chosen[0]), str(chosen[1])

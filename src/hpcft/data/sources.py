"""Reading rows: files, the hub, and the set that this package makes itself."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

from hpcft.data.e2e import make_notices, make_rows
from hpcft.errors import DataError, UnavailableError
from hpcft.spec.identifiers import user_path

QUICKSTART = "quickstart"
NOTICES = "quickstart-notices"
# Sets that this package makes.
MADE = (QUICKSTART, NOTICES)
_QUICKSTART_INPUTS, _NOTICES = 240, 600
_ASKED = "Write a short notice about this venue."

# Known names → hub ids.
HUB_NAMES = {"e2e_nlg": "tuetschek/e2e_nlg", "samsum": "knkarthick/samsum"}
_FIELD_LIMIT = 64 * 1024 * 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


Row = tuple[str, dict[str, Any]]


def read_rows(dataset: str, subset: str | None = None, revision: str | None = None) -> Iterator[Row]:
    """Rows of a data set, each with the place where it stands, for errors.

    Args:
        dataset: `quickstart`, `quickstart-notices`, a known name, a path of a .csv, .tsv, .jsonl or .json file, or
            a hub id.
        subset: configuration of a hub set.
        revision: commit, tag or branch of a hub set.

    Raises:
        DataError: a file that is missing, empty or broken; names the line.
        UnavailableError: a hub set that is neither cached nor reachable.
    """
    if dataset == NOTICES:
        short = make_notices(_NOTICES, 1)
        return ((f"row {i}", {"instruction": _ASKED, "input": r.mr, "output": r.ref}) for i, r in enumerate(short, 1))
    if dataset == QUICKSTART:
        made = make_rows(_QUICKSTART_INPUTS, 0)
        return ((f"row {i}", {"mr": r.mr, "ref": r.ref}) for i, r in enumerate(made, 1))
    if is_hub(dataset):
        return _read_hub(HUB_NAMES.get(dataset, dataset), subset, revision)
    path = user_path(dataset)
    if _is_file_name(path):
        return _read_file(path)
    near = get_close_matches(dataset, [*MADE, *HUB_NAMES], n=1)
    raise DataError(
        f"there is no data set or file '{dataset[:100]}'",
        where="data.dataset",
        hint=(f"did you mean '{near[0]}'? " if near else "")
        + f"known names: {', '.join((*MADE, *HUB_NAMES))}; or the path of a .csv, .tsv, .jsonl or .json file",
    )


def can_stream(dataset: str) -> bool:
    """Whether a set can be read by rows: a .json file is one value, and is read whole."""
    return is_hub(dataset) or dataset in MADE or user_path(dataset).suffix.lower() in (".csv", ".tsv", ".jsonl")


def stream_rows(dataset: str, subset: str | None = None, revision: str | None = None) -> Iterator[Row]:
    """The same rows without ever holding more than one of them: for sets that do not fit into memory.

    Raises:
        DataError: also for a .json file, which is one value and cannot be read by rows.
    """
    if is_hub(dataset) or dataset in MADE:
        return (
            _read_hub(HUB_NAMES.get(dataset, dataset), subset, revision, streaming=True)
            if is_hub(dataset)
            else (read_rows(dataset))
        )
    path = user_path(dataset)
    if path.suffix.lower() == ".json":
        raise DataError("is one JSON value and cannot be read by rows", where=str(path), hint="write it as .jsonl")
    return _stream_file(path)


def _stream_file(path: Path) -> Iterator[Row]:
    reader = _reader_of(path)
    try:
        with path.open(encoding="utf-8-sig", newline=_NEWLINE[path.suffix.lower()]) as file:
            yield from reader(path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text: {error.reason}", where=str(path), hint=_RECODE) from error
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def is_hub(dataset: str) -> bool:
    """Whether a data set would come from the hub. A known name does, also beside a folder of that name."""
    if dataset in HUB_NAMES:
        return True
    return bool(_HUB_ID.fullmatch(dataset)) and not _is_file_name(Path(dataset))


def cache_of(dataset: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of a hub set in the library's cache.

    Args:
        environ: of the job, which says where its caches are.
    """
    caches = Path(environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    home = Path(environ.get("HF_HOME") or caches / "huggingface")
    owner, _, name = HUB_NAMES.get(dataset, dataset).rpartition("/")
    # The library's folder has the name in snake case: a capital after a small letter begins a word.
    snake = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)).lower()
    return Path(environ.get("HF_DATASETS_CACHE") or home / "datasets") / "___".join(filter(None, (owner, snake)))


def is_cached(dataset: str, subset: str | None = None, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a hub set was loaded before with the same cache, so that it can be loaded without a network."""
    return any(cache_of(dataset, environ).glob(f"{subset or '*'}/*/*/dataset_info.json"))


def _is_file_name(path: Path) -> bool:
    """Meant as a file: by its ending, or since it is there. `lexists` says no to a name that is too long, where
    `Path.exists` raises."""
    return path.suffix.lower() in _READERS or os.path.lexists(path)


def _reader_of(path: Path) -> _Reader:
    if path.is_dir():
        raise DataError("is a folder; name a .csv, .tsv, .jsonl or .json file in it", where=str(path))
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"ends in '{path.suffix}'; {', '.join(_READERS)} can be read", where=str(path))
    return reader


def _missing(path: Path) -> DataError:
    siblings = [p.name for p in path.parent.glob("*") if p.is_file()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    return DataError("there is no such file", where=str(path), hint=f"did you mean {near[0]}?" if near else None)


def _read_file(path: Path) -> Iterator[Row]:
    reader = _reader_of(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"is not UTF-8 text: byte {raw[error.start]:#04x} at offset {error.start}",
            where=f"{path}:{line}",
            hint=_RECODE,
        ) from error
    if "\0" in text:
        raise DataError("has a NUL character in it", where=f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}")
    if not text.strip():
        raise DataError("is empty", where=str(path))
    yield from reader(path, io.StringIO(text, newline=_NEWLINE[path.suffix.lower()]))


def _read_csv(path: Path, file: IO[str], delimiter: str = ",") -> Iterator[Row]:
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
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


def _read_tsv(path: Path, file: IO[str]) -> Iterator[Row]:
    return _read_csv(path, file, "\t")


def _read_jsonl(path: Path, file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
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


def _read_json(path: Path, file: IO[str]) -> Iterator[Row]:
    try:
        rows = json.load(file)
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg}", where=f"{path}:{error.lineno}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, brackets nested a thousand deep: Python gives no line for these.
        raise DataError(f"is not JSON: {error}", where=str(path)) from error
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        yield from _squad(path, rows["data"])
        return
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("is not a list of JSON objects", where=str(path))
    yield from ((f"{path}, row {i}", row) for i, row in enumerate(rows, 1))


def _squad(path: Path, articles: list[Any]) -> Iterator[Row]:
    """Questions of SQuAD's nested form as flat rows: `question`, `context`, `answers`."""
    if all(isinstance(a, dict) and "paragraphs" not in a for a in articles):
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(articles, 1))
        return
    try:
        for number, article in enumerate(articles, 1):
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    answers = [answer["text"] for answer in entry.get("answers", [])]
                    row = {"question": entry["question"], "context": paragraph["context"], "answers": answers}
                    yield f"{path}, article {number}, question {entry.get('id', '')}", row
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"article {number} is not of SQuAD's form: {error!r} is missing or of another kind", where=str(path)
        ) from error


_Reader = Callable[[Path, IO[str]], Iterator[Row]]
_READERS: dict[str, _Reader] = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".json": _read_json}
# A CSV field may hold any line end; a JSON text may hold U+2028 and its like unescaped, so its lines end at \n alone.
_NEWLINE = {".csv": "", ".tsv": "", ".jsonl": "\n", ".json": None}
_RECODE = "convert it, for example with: iconv -f LATIN1 -t UTF-8"


def _damaged_copy(name: str, subset: str | None) -> tuple[Path, str] | None:
    """The folder of a hub set's copy in the cache that cannot be read, and what is wrong with it."""
    import pyarrow

    for info in cache_of(name).glob(f"{subset or '*'}/*/*/dataset_info.json"):
        try:
            json.loads(info.read_text(encoding="utf-8"))
            tables = list(info.parent.glob("*.arrow"))
            for table in tables:
                with pyarrow.memory_map(str(table)) as file, pyarrow.ipc.open_stream(file) as stream:
                    for _ in stream:
                        pass
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            return info.parent, str(error).splitlines()[0]
        if not tables:
            return info.parent, "its rows are missing"
    return None


def _read_hub(name: str, subset: str | None, revision: str | None, *, streaming: bool = False) -> Iterator[Row]:
    from datasets import load_dataset
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        try:
            rows = load_dataset(name, subset, split="train", revision=revision, streaming=streaming)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            # The hub keeps a converted copy of sets that were made by a script, which is not run any more.
            rows = load_dataset(name, subset, split="train", revision="refs/convert/parquet", streaming=streaming)
    except Exception as error:
        if (damaged := _damaged_copy(name, subset)) is not None:
            raise DataError(
                f"is a damaged copy of the data set '{name}': {damaged[1]}",
                where=str(damaged[0]),
                hint="remove that folder and fetch the set again, where there is internet: hpcft fetch",
            ) from error
        # The hub's client raises errors of half a dozen libraries for "not there" and "not reachable".
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        state = "the job has no internet and it is not in the cache" if HF_HUB_OFFLINE else said
        raise UnavailableError(
            f"the data set '{name}' cannot be had from the hub: {state}",
            where="data.dataset",
            hint="use a local file (--dataset FILE.csv), or to try the tool out: --dataset quickstart",
        ) from error
    # Classes are stored as numbers with their names beside the rows; -1 stands for "not told".
    names = {k: f.names for k, f in (rows.features or {}).items() if hasattr(f, "names")}
    for i, row in enumerate(rows, 1):
        told = {k: (names[k][v] if v >= 0 else None) for k, v in row.items() if k in names and isinstance(v, int)}
        yield f"{name}, row {i}", {**row, **told}

"""Versions of data sets by content: the same rows are the same version, wherever they lie and whoever reads them.

`results/data_versions/<set>/<first 16 digits of the SHA-256>.json`, a file each, made once and never changed; its time
of change says when it was used last. So any number of jobs can record versions at once without a lock.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, UsageError
from hpcft.runs.files import FILE_MODE, explained, make_private, read_fields, write_json
from hpcft.spec.identifiers import identifier_fault

_DIGITS = 16


@dataclass(frozen=True)
class Version:
    """One content of a data set.

    Attributes:
        dataset: name of the set, from its file's or hub's name.
        version: the beginning of the hash. sha256: of all rows.
        name: what its maker called it; made up when absent.
        source: where it was read: path or hub id, subset, revision.
        num_samples: rows. file_size_mb: of the file, where it is one.
        cleaning: what `hpcft data clean` did to make it.
        report: what a check found.
        kept: file beside it that holds the rows; None where they were not kept.
        created_at, used_at: seconds since the epoch; used_at is not in its file.
    """

    dataset: str
    version: str
    sha256: str
    name: str
    description: str
    source: dict[str, Any]
    created_at: float
    num_samples: int
    file_size_mb: float | None = None
    cleaning: dict[str, Any] | None = None
    kept: str | None = None
    report: dict[str, Any] = field(default_factory=dict)
    used_at: float = 0.0


def folder(results: Path) -> Path:
    """Where the versions of a results folder are."""
    return results / "data_versions"


def set_name(dataset: str) -> str:
    """The name of a set: its file's without its ending, or its hub id."""
    path = Path(dataset)
    stem = path.stem if path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".json") else dataset
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:64] or "data"


def version_of(sha256: str) -> str:
    """What a version is called."""
    return sha256[:_DIGITS]


def record(
    results: Path,
    report: dict[str, Any],
    source: dict[str, Any],
    *,
    dataset: str | None = None,
    name: str | None = None,
    description: str = "",
    cleaning: dict[str, Any] | None = None,
    keep: Path | None = None,
) -> tuple[Version, bool]:
    """Record the version that a report is of; one that is known stays as it is.

    Args:
        report: what `report.document` made.
        source: where the rows are, with the key `path` for a file's.
        dataset: name of the set; made of the source when absent.
        name: of the version. keep: file whose rows are copied beside it.

    Returns:
        The version, and whether it is new.

    Raises:
        UsageError: another version has this name. NotAllowedError: it cannot be written.
    """
    where = set_name(str(source.get("dataset", ""))) if dataset is None else dataset
    if fault := identifier_fault(where):
        raise UsageError(f"the name '{where[:60]}' {fault}", where="--as")
    home = folder(results) / where
    known = {v.version: v for v in _read(home)}
    version = version_of(report["sha256"])
    if name is not None:
        if fault := identifier_fault(name):
            raise UsageError(f"the name '{name[:60]}' {fault}", where="--name")
        if any(v.name == name and v.version != version for v in known.values()):
            raise UsageError(
                f"another version of '{where}' is called '{name}'", where="--name", hint="hpcft data versions"
            )
    path = home / f"{version}.json"
    before = known.get(version)
    if before is not None and (keep is None or before.kept is not None):
        with suppress(OSError):
            os.utime(path)
        return before, False
    with explained(home, "keep the version"):
        make_private(home)
        kept = None if keep is None else _copy(keep, home / f"{version}.rows{keep.suffix.lower()}")
    if before is not None:
        made = replace(before, kept=kept)
        _write(path, made)
        return made, False
    file = source.get("path")
    size = Path(file).stat().st_size / 1e6 if file and Path(file).is_file() else None
    made = Version(
        dataset=where,
        version=version,
        sha256=report["sha256"],
        name=name or f"{where}_{report['total_samples']}",
        description=description,
        source=source,
        created_at=time.time(),
        num_samples=int(report["total_samples"]),
        file_size_mb=None if size is None else round(size, 3),
        cleaning=cleaning,
        kept=kept,
        report=report,
    )
    _write(path, made)
    return made, True


def _write(path: Path, version: Version) -> None:
    write_json(path, {k: v for k, v in asdict(version).items() if k != "used_at"})


def _copy(file: Path, target: Path) -> str:
    """Copy a file into place, whole, for its owner alone; the copy's name."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(file, aside)
        aside.chmod(FILE_MODE)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target.name


def versions(results: Path, dataset: str | None = None) -> list[Version]:
    """The versions of a set, or of all sets, oldest first."""
    home = folder(results)
    names = sorted(p.name for p in home.iterdir() if p.is_dir()) if home.is_dir() else []
    if dataset is not None:
        names = [n for n in names if n in (dataset, set_name(dataset))]
    return sorted((v for n in names for v in _read(home / n)), key=lambda v: (v.dataset, v.created_at))


def _read(home: Path) -> list[Version]:
    found = []
    for path in home.glob("[0-9a-f]" * _DIGITS + ".json"):
        try:
            version = read_fields(path, Version)
        except DataError:
            continue
        if version is not None:
            found.append(Version(**{**version.__dict__, "used_at": path.stat().st_mtime}))
    return found


def current(found: list[Version]) -> Version | None:
    """The version that was recorded or used last."""
    return max(found, key=lambda v: v.used_at, default=None)


def find_version(text: str, results: Path) -> Version | None:
    """The version that a user means by `set@version`, the beginning of its hash, or its name.

    Raises:
        UsageError: several fit.
    """
    dataset, mark, wanted = text.rpartition("@")
    among = versions(results, dataset if mark else None)
    for exact in (True, False):
        fits = [
            v for v in among if v.name == wanted or (not exact and len(wanted) >= 4 and v.sha256.startswith(wanted))
        ]
        if len(fits) == 1:
            return fits[0]
        if fits:
            names = ", ".join(f"{v.dataset}@{v.version}" for v in fits[:5])
            raise UsageError(f"'{text[:60]}' fits {len(fits)} versions: {names}", hint="write more of it")
    return None


def kept_rows(version: Version, results: Path) -> Path | None:
    """The file with a version's rows: the copy that was kept, or the file that it was read from."""
    if version.kept is not None:
        copy = folder(results) / version.dataset / version.kept
        if copy.is_file():
            return copy
    path = version.source.get("path")
    return Path(path) if path and Path(path).is_file() else None


def as_facts(version: Version) -> dict[str, Any]:
    """For JSON, without the report."""
    return json.loads(json.dumps({k: v for k, v in asdict(version).items() if k != "report"}))

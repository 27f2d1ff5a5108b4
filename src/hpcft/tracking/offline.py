"""Read what wandb has written on disk (`run-<id>.wandb`), to compare it with the run's own event log.

The format, as wandb 0.31 writes it (online runs too): the 7 bytes `:W&B`, 0xBEE1 and a version; then blocks of
32 KiB. A block holds chunks: CRC-32 of type and data, length, type (whole, first, middle or last part of a record),
data; less than 7 bytes at a block's end are left empty. A record is a protobuf message of wandb's.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcft.errors import DataError

HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32768
CHUNK = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_FOLDER = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-")


@dataclass
class OfflineArtifact:
    """An artifact as it was logged: `files` are the paths in it with their sizes in bytes."""

    name: str
    type: str
    metadata: dict[str, Any]
    files: dict[str, int]


@dataclass
class OfflineRun:
    """What wandb has recorded of a run.

    Attributes:
        run_id, project, entity, name, job_type: None where the file ends before them; without an entity the user's.
        config, summary: without wandb's own `_` keys; so are the points of `history`.
        exit_code: None while the run goes on, and for ever when it was killed.
        system: wandb's own records of the machine's load, in their order.
        torn: byte offset of an unfinished record at the end, left by a writer that was killed or writes now.
    """

    run_id: str | None = None
    project: str | None = None
    entity: str | None = None
    name: str | None = None
    job_type: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[OfflineArtifact] = field(default_factory=list)
    system: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    torn: int | None = None


def split_records(content: bytes, where: str) -> tuple[list[bytes], int | None]:
    """Put the records of a file together.

    Args:
        content: the whole file.
        where: its name, for errors.

    Returns:
        The records that are whole, and the offset where an unfinished one begins (None: there is none).

    Raises:
        DataError: another kind of file, a wrong checksum, parts in an impossible order.
    """
    if not content.startswith(HEADER):
        if HEADER.startswith(content):
            return [], 0
        raise DataError("is not a wandb file, or of a version that is not known", where=where)
    records: list[bytes] = []
    parts: list[bytes] = []
    begin = offset = len(HEADER)
    while offset < len(content):
        room = BLOCK - offset % BLOCK
        if room < CHUNK.size:
            offset += room
            continue
        if not parts:
            begin = offset
        data_at = offset + CHUNK.size
        if data_at > len(content):
            return records, begin
        # A power cut can leave a file that is longer than what was written into it.
        if not any(content[offset:data_at]) and content.count(0, offset) == len(content) - offset:
            return records, begin
        checksum, length, kind = CHUNK.unpack_from(content, offset)
        data = content[data_at : data_at + length]
        if len(data) < length:
            return records, begin
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            raise DataError(f"is damaged: wrong checksum at byte {offset}", where=where)
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or bool(parts) != (kind in (MIDDLE, LAST)):
            raise DataError(f"is damaged: a part out of order at byte {offset}", where=where)
        parts.append(data)
        if kind in (WHOLE, LAST):
            records.append(b"".join(parts))
            parts = []
        offset = data_at + length
    return records, begin if parts else None


def read_offline(path: Path) -> OfflineRun:
    """Read one `run-<id>.wandb`, of a run that ended, was killed, or still goes on.

    Raises:
        DataError: the file is damaged, beyond an unfinished record at its end.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

    contents, torn = split_records(path.read_bytes(), str(path))
    run = OfflineRun(torn=torn)
    for number, content in enumerate(contents, 1):
        try:
            record = Record.FromString(content)
        except DecodeError as error:
            raise DataError(f"record {number} cannot be read: {error}", where=str(path)) from error
        _take(run, record)
    return run


def find_offline_runs(folder: Path) -> dict[str, list[Path]]:
    """All `run-<id>.wandb` below a folder: for each run id its files, one an attempt, oldest first."""
    found: defaultdict[str, list[tuple[str, Path]]] = defaultdict(list)
    for path in folder.rglob("run-*.wandb"):
        if match := _FOLDER.match(path.parent.name):
            found[path.stem.removeprefix("run-")].append((match.group(1), path))
    return {run_id: [path for _, path in sorted(paths)] for run_id, paths in sorted(found.items())}


def merge(fragments: Sequence[OfflineRun]) -> OfflineRun:
    """One run of the files of its attempts, oldest first.

    A point whose step a later attempt did again is left out, so that the curve is the one of the weights that were
    kept. `exit_code` and `torn` are those of the last attempt.

    Raises:
        DataError: no fragment, or fragments of several runs.
    """
    if not fragments or len(ids := {f.run_id for f in fragments} - {None}) > 1:
        raise DataError(f"these are not the attempts of one run: {sorted(map(str, ids)) if fragments else 'none'}")
    merged = OfflineRun()
    for fragment in fragments:
        again = min((point["step"] for point in fragment.history if "step" in point), default=None)
        if again is not None:
            merged.history = [p for p in merged.history if p.get("step", again - 1) < again]
        merged.history += fragment.history
        merged.run_id = fragment.run_id or merged.run_id
        merged.project = fragment.project or merged.project
        merged.entity = fragment.entity or merged.entity
        merged.name = fragment.name or merged.name
        merged.job_type = fragment.job_type or merged.job_type
        merged.config |= fragment.config
        merged.summary |= fragment.summary
        merged.artifacts += fragment.artifacts
        merged.system += fragment.system
        merged.exit_code, merged.torn = fragment.exit_code, fragment.torn
    return merged


def _take(run: OfflineRun, record: Any) -> None:
    """Add one protobuf record to the run; kinds that say nothing about it (telemetry, …) are passed over."""
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run.run_id, run.project, run.entity = record.run.run_id, record.run.project, record.run.entity or None
        run.name, run.job_type = record.run.display_name, record.run.job_type
        run.config |= _values(record.run.config.update)
    elif kind == "config":
        run.config |= _values(record.config.update)
    elif kind == "history":
        run.history.append(_values(record.history.item))
    elif kind == "summary":
        run.summary |= _values(record.summary.update)
    elif kind == "artifact":
        logged = record.artifact
        files = {entry.path: int(entry.size) for entry in logged.manifest.contents}
        metadata = json.loads(logged.metadata or "{}")
        run.artifacts.append(OfflineArtifact(logged.name, logged.type, metadata, files))
    elif kind == "stats":
        run.system.append(record.stats)
    elif kind == "exit":
        run.exit_code = int(record.exit.exit_code)


def _values(items: Iterable[Any]) -> dict[str, Any]:
    """Keys and values of a protobuf list of them; a nested key is joined by dots, as wandb shows it."""
    keyed = ((".".join(item.nested_key) or item.key, item.value_json) for item in items)
    return {key: json.loads(value) for key, value in keyed if not key.startswith("_")}

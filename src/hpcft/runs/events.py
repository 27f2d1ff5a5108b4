r"""Append-only logs: one JSON record a line, numbered, each with a checksum. One writer a file, but for the journals
that any client may add a record to: these are locked for the moment.

A line is `{"seq":3,"t":1767225600.0,"kind":"step",…,"crc":"9ae0daaf"}`; the checksum is the CRC-32 of the text
before `,"crc"`. A killed writer leaves whole lines and at most one torn one, at the end; readers step over
what is damaged and report it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hpcft.errors import NotAllowedError
from hpcft.runs.files import FILE_MODE, explained, is_torn, without_nan, write_all

_MARK = b',"crc":"'
# What json.loads comes to, without its looks at the encoding and around the text.
_parse = json.JSONDecoder().raw_decode


def encode(record: dict[str, Any]) -> bytes:
    """One record as a line with its checksum."""
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return b'%s%s%08x"}\n' % (body, _MARK, zlib.crc32(body))


def checked(line: bytes) -> str | None:
    """The JSON text of a line's record, without its checksum, or None when the line is damaged."""
    body, mark, tail = line.rstrip(b"\n").rpartition(_MARK)
    if not mark or tail != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        return body.decode() + "}"
    except UnicodeDecodeError:
        return None


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line, without its checksum, or None when the line is damaged."""
    text = checked(line)
    return None if text is None else parse(text)


def parse(text: str) -> dict[str, Any] | None:
    """The mapping that a JSON text holds, or None."""
    try:
        record, end = _parse(text)
    except ValueError:
        return None
    return record if end == len(text) and isinstance(record, dict) else None


@dataclass
class Log:
    """What a log file holds.

    Attributes:
        records: the whole ones, in file order.
        damaged: line numbers (from 1) that failed their checksum.
        torn: bytes after the last line end, left by a writer that was killed (or is writing now).
        end: offset behind the last whole line, to go on reading from.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    torn: int = 0
    end: int = 0


def read_log(path: Path, offset: int = 0) -> Log:
    """Read a log from a byte offset that an earlier `Log.end` gave. No file: an empty log."""
    log = Log(end=offset)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
    except FileNotFoundError:
        return log
    whole, _, rest = content.rpartition(b"\n")
    log.torn = len(rest)
    log.end = offset + len(content) - len(rest)
    for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
        record = decode(line)
        if record is None:
            log.damaged.append(number)
        else:
            log.records.append(record)
    return log


def _last(log: Log) -> int:
    return max((int(record.get("seq", 0)) for record in log.records), default=0)


class EventLog:
    """The writer. Each record is handed to the kernel at once, so a killed process loses none, and flushed to
    the disk every `sync_seconds` by a thread of its own, so that a slow disk does not slow a training step.

    Args:
        path: file to append to; made with mode 0600.
        sync_seconds: longest time that a record waits for the disk; 0: each record is flushed as it is written, and
            other processes may write to the file too.
    """

    def __init__(self, path: Path, sync_seconds: float = 5.0) -> None:
        self.path = path
        existing = read_log(path)
        self._next = 1 + _last(existing)
        self._end = existing.end
        with explained(path, "write the log"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
        # Whether the last line may be torn: by a writer that was killed, or by a disk that was full.
        self._in_doubt = True
        self._lock = threading.Lock()
        self._dirty = False
        self._sync_each = sync_seconds == 0
        self._stop = threading.Event()
        self._flusher: threading.Thread | None = None
        if not self._sync_each:
            self._flusher = threading.Thread(target=self._flush_often, args=(sync_seconds,), daemon=True)
            self._flusher.start()

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one record.

        Raises:
            NotAllowedError: no space left, quota used up. What was written before is safe.
        """
        with self._lock, self._alone():
            record = {"seq": self._next, "t": round(time.time(), 3), "kind": kind, **without_nan(fields)}
            line = encode(record)
            with explained(self.path, "write the log"):
                if self._in_doubt:
                    # A line end of its own keeps a torn tail from spoiling the next record.
                    line = b"\n" * is_torn(self._fd) + line
                self._in_doubt = True
                write_all(self._fd, line)
                self._in_doubt = False
            self._next += 1
            self._dirty = True
        if self._sync_each:
            self.sync()
        return record

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes off a file that they write to as well, and number on from their records."""
        if not self._sync_each:
            yield
            return
        # A disk without locks: two records may get one number, and on a network disk one may be lost.
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            news = read_log(self.path, self._end)
            self._next, self._end, self._in_doubt = max(self._next, 1 + _last(news)), news.end, True
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def sync(self) -> None:
        """Flush to the disk.

        Raises:
            NotAllowedError: the disk does not take it; the next call tries again.
        """
        with self._lock:
            if self._dirty:
                with explained(self.path, "write the log"):
                    os.fdatasync(self._fd)
                self._dirty = False

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        try:
            self.sync()
        finally:
            os.close(self._fd)

    def _flush_often(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            # Nobody hears it here; the disk may take it next time, and closing the log tells.
            with suppress(NotAllowedError):
                self.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

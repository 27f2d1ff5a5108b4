"""The append-only log: nothing acknowledged is lost, nothing damaged is believed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sweeps import sweep_folder

from hpcft.errors import NotAllowedError
from hpcft.runs.events import EventLog, decode, encode, read_log
from hpcft.runs.sweep import Trial

scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=30)
records = st.dictionaries(st.text(min_size=1, max_size=10), scalars | st.lists(scalars, max_size=3), min_size=1)


@given(records)
def test_a_record_comes_back_as_it_was(record: dict[str, object]) -> None:
    line = encode(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == record
    assert {k: v for k, v in json.loads(line).items() if k != "crc"} == {k: v for k, v in record.items() if k != "crc"}


@given(records, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(record: dict[str, object], place: int, change: int) -> None:
    line = bytearray(encode(record).rstrip(b"\n"))
    line[place % len(line)] ^= change
    assert decode(bytes(line)) is None


def test_sequence_numbers_go_on_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with EventLog(path) as log:
            log.append("a", x=1)
            log.append("b")
    assert [r["seq"] for r in read_log(path).records] == [1, 2, 3, 4]
    assert path.stat().st_mode & 0o777 == 0o600


def test_records_of_two_clients_of_one_journal_get_numbers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    with EventLog(path, sync_seconds=0) as one, EventLog(path, sync_seconds=0) as other:
        for log in (one, other, other, one):
            log.append("marked")
    assert [r["seq"] for r in read_log(path).records] == [1, 2, 3, 4]


def test_a_torn_tail_is_reported_and_spoils_nothing_after_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append("a")
    with path.open("ab") as file:
        file.write(b'{"seq":2,"t":1')
    assert read_log(path).torn == 14
    with EventLog(path) as log:
        log.append("b")
    found = read_log(path)
    assert [r["kind"] for r in found.records] == ["a", "b"]
    assert found.damaged == [2]


def test_a_line_that_a_full_disk_tore_spoils_nothing_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write, room = tmp_path / "events.jsonl", os.write, [20, 0]

    def full(fd: int, content: bytes) -> int:
        if not room:
            return write(fd, content)
        if taken := room.pop(0):
            return write(fd, content[:taken])
        raise OSError(errno.ENOSPC, "No space left on device")

    with EventLog(path) as log:
        log.append("a")
        for _ in range(2):
            monkeypatch.setattr(os, "write", full)
            with pytest.raises(NotAllowedError, match="no space left"):
                log.append("b")
            # A second time without a single byte.
            room[:] = [0]
        room.clear()
        log.append("c")
        log.append("d")
    found = read_log(path)
    assert [(r["seq"], r["kind"]) for r in found.records] == [(1, "a"), (2, "c"), (3, "d")]
    assert (found.damaged, found.torn) == ([2], 0)


def test_a_disk_that_does_not_flush_once_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, failures, flushed = os.fdatasync, [OSError(errno.EIO, "Input/output error")], []

    def once(fd: int) -> None:
        if failures:
            raise failures.pop()
        flush(fd)
        flushed.append(fd)

    monkeypatch.setattr(os, "fdatasync", once)
    with EventLog(tmp_path / "events.jsonl", sync_seconds=0.02) as log:
        log.append("a")
        end = time.monotonic() + 10
        while not flushed:
            assert time.monotonic() < end, "the thread has ended"
            time.sleep(0.02)
    failures.append(OSError(errno.EIO, "Input/output error"))
    with EventLog(tmp_path / "client.jsonl", sync_seconds=0) as log:
        with pytest.raises(NotAllowedError, match="Input/output error"):
            log.append("a")
        log.append("b")


def test_a_manifest_is_written_whole_where_a_write_takes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, write = sweep_folder(tmp_path, 2), os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:7]))
    sweep.append([Trial(number, {"lora.r": 4}) for number in (2, 3)])
    assert [t.number for t in sweep.trials()] == [0, 1, 2, 3]


def test_reading_goes_on_from_a_cursor(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append("a")
        first = read_log(path)
        log.append("b")
        second = read_log(path, first.end)
    assert [r["kind"] for r in second.records] == ["b"]


def test_nan_and_infinity_are_kept_as_words(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.append("step", loss=float("nan"), norm=float("inf"))
    (record,) = read_log(path).records
    assert (record["loss"], record["norm"]) == ("nan", "inf")


def test_r3_sigkill_loses_no_acknowledged_record(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = (
        "import sys\nfrom pathlib import Path\nfrom hpcft.runs.events import EventLog\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "while True: print(log.append('step', loss=1.5)['seq'], flush=True)\n"
    )
    for turn in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        time.sleep(0.3 + 0.1 * turn)
        os.kill(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        lines = process.stdout.read().split(b"\n")
        process.wait()
        acknowledged = int(lines[-2]) if len(lines) > 1 else 0
        assert max((r["seq"] for r in read_log(path).records), default=0) >= acknowledged

"""The reader of wandb's files: blocks, torn tails, damage, attempts."""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking.wandb_file import written

from hpcft.errors import DataError
from hpcft.tracking.offline import (
    BLOCK,
    CHUNK,
    HEADER,
    LAST,
    OfflineRun,
    find_offline_runs,
    merge,
    read_offline,
    split_records,
)

# Lengths around a block's, so that records begin and end on every side of a border.
RECORDS = st.lists(
    st.builds(
        lambda size, byte: bytes([byte]) * size,
        st.one_of(st.integers(1, 40), st.integers(BLOCK - 40, BLOCK + 40), st.integers(2 * BLOCK - 40, 2 * BLOCK + 40)),
        st.integers(1, 255),
    ),
    max_size=6,
)


@given(RECORDS)
def test_records_are_read_as_written_across_the_borders_of_blocks(records: list[bytes]) -> None:
    assert split_records(written(records), "x") == (records, None)


@given(RECORDS, st.data())
def test_a_file_cut_off_anywhere_gives_the_records_that_are_whole(records: list[bytes], data: st.DataObject) -> None:
    content = written(records)
    cut = data.draw(st.integers(0, len(content)))
    found, torn = split_records(content[:cut], "x")
    assert found == records[: len(found)]
    # What was read and what is torn make up the file.
    assert len(written(found)) == cut if torn is None else torn <= cut
    if cut == len(content):
        assert found == records


@given(RECORDS.filter(bool), st.data())
def test_a_changed_byte_never_gives_a_wrong_record(records: list[bytes], data: st.DataObject) -> None:
    content = bytearray(written(records))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found, _ = split_records(bytes(content), "x")
    except DataError:
        return
    assert found == records[: len(found)]


def test_a_wrong_checksum_names_its_offset() -> None:
    content = bytearray(written([b"one", b"two"]))
    second = len(HEADER) + CHUNK.size + 3
    content[second + CHUNK.size] ^= 1
    with pytest.raises(DataError, match=f"wrong checksum at byte {second}"):
        split_records(bytes(content), "run-x.wandb")


def test_parts_out_of_order_are_damage() -> None:
    data = b"part"
    lone = HEADER + CHUNK.pack(zlib.crc32(bytes([LAST]) + data), len(data), LAST) + data
    with pytest.raises(DataError, match="out of order at byte 7"):
        split_records(lone, "x")


def test_another_kind_of_file_is_refused_and_an_empty_one_is_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b"")
    assert read_offline(path) == OfflineRun(torn=0)
    path.write_bytes(b"SQLite format 3")
    with pytest.raises(DataError, match="is not a wandb file"):
        read_offline(path)


def test_zeros_left_by_a_power_cut_are_a_torn_tail() -> None:
    content = written([b"one"])
    assert split_records(content + bytes(4096), "x") == ([b"one"], len(content))


def test_a_long_file_is_read_in_a_time_that_grows_as_its_length() -> None:
    records = [bytes([number % 255 + 1]) * 200 for number in range(20_000)]
    content = written(records)
    begin = time.process_time()
    assert split_records(content, "x") == (records, None)
    # Looking at all that follows at each record took ten seconds.
    assert time.process_time() - begin < 2


def test_a_record_that_is_no_message_of_wandbs_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(written([b"\xff\xff\xff"]))
    with pytest.raises(DataError, match="record 1 cannot be read"):
        read_offline(path)


def test_the_files_of_a_runs_attempts_are_found_in_order(tmp_path: Path) -> None:
    names = ["offline-run-20261120_090000-r7", "run-20261120_080000-r7", "offline-run-20261119_235959-a-b"]
    for name in names:
        folder = tmp_path / "wandb" / name
        folder.mkdir(parents=True)
        (folder / f"run-{name.split('-', 2 if name.startswith('run') else 3)[-1]}.wandb").touch()
    found = find_offline_runs(tmp_path)
    assert {run_id: [p.parent.name for p in paths] for run_id, paths in found.items()} == {
        "a-b": ["offline-run-20261119_235959-a-b"],
        "r7": ["run-20261120_080000-r7", "offline-run-20261120_090000-r7"],
    }


def test_a_merged_run_has_a_repeated_step_once_from_the_later_attempt() -> None:
    first = OfflineRun("r7", history=[{"step": s, "train/loss": 1.0} for s in (10, 20, 30)], torn=99)
    second = OfflineRun("r7", history=[{"step": s, "train/loss": 2.0} for s in (20, 30, 40)], exit_code=0)
    merged = merge([first, second])
    assert [(p["step"], p["train/loss"]) for p in merged.history] == [(10, 1.0), (20, 2.0), (30, 2.0), (40, 2.0)]
    assert (merged.exit_code, merged.torn) == (0, None)


def test_an_attempt_that_was_killed_before_its_first_record_takes_nothing_away() -> None:
    first = OfflineRun("r7", "project", "lab", "name", "training", {"a": 1}, [{"step": 1}], {"b": 2})
    merged = merge([first, OfflineRun(torn=0)])
    assert (merged.run_id, merged.history, merged.config, merged.torn) == ("r7", [{"step": 1}], {"a": 1}, 0)


def test_fragments_of_different_runs_are_not_merged() -> None:
    with pytest.raises(DataError, match="not the attempts of one run"):
        merge([OfflineRun("a"), OfflineRun("b")])
    with pytest.raises(DataError):
        merge([])

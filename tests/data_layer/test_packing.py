"""Rows laid end to end, windows of rows, and streams."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.data.collate import Collator, FlatCollator, LabelCollator
from hpcft.data.e2e import make_rows
from hpcft.data.encode import IGNORED
from hpcft.data.kinds import Pair
from hpcft.data.packing import pack
from hpcft.data.sources import stream_rows
from hpcft.data.split import load, stream_pairs
from hpcft.data.stream import RowStream
from hpcft.errors import DataError
from hpcft.spec.job import DataSection


def row(*ids: int, answer: int = 1) -> dict[str, Any]:
    return {"input_ids": list(ids), "labels": [IGNORED] * (len(ids) - answer) + list(ids[-answer:])}


rows_strategy = st.lists(st.integers(2, 32), min_size=1, max_size=60).map(
    lambda lengths: [row(*range(100 * i, 100 * i + n)) for i, n in enumerate(lengths)]
)


def test_rows_of_a_batch_stand_end_to_end_and_positions_begin_again() -> None:
    batch = FlatCollator()([row(1, 2, 3), row(4, 5)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 3, IGNORED, 5]]
    assert "attention_mask" not in batch


def test_nothing_is_learned_across_rows() -> None:
    batch = FlatCollator()([row(1, 2, answer=2), row(3, 4, answer=2)])
    assert batch["labels"].tolist() == [[IGNORED, 2, IGNORED, 4]]


@given(rows_strategy)
def test_packing_loses_no_token_and_overfills_no_window(rows: list[dict[str, Any]]) -> None:
    windows = pack(rows, 32)
    assert sorted(t for w in windows for t in w["input_ids"]) == sorted(t for r in rows for t in r["input_ids"])
    for window in windows:
        assert len(window["input_ids"]) == len(window["labels"]) == len(window["position_ids"]) <= 32
        starts = [i for i, p in enumerate(window["position_ids"]) if p == 0]
        ends = [*starts[1:], len(window["input_ids"])]
        for start, end in zip(starts, ends, strict=True):
            assert window["position_ids"][start:end] == list(range(end - start))
            assert {"input_ids": window["input_ids"][start:end], "labels": window["labels"][start:end]} in rows


@given(rows_strategy)
def test_packing_is_the_same_for_the_same_rows(rows: list[dict[str, Any]]) -> None:
    assert pack(rows, 32) == pack(rows, 32)


def test_g12_windows_are_full_on_rows_of_mixed_lengths() -> None:
    rng = random.Random(1)
    rows = [row(*range(2, 2 + rng.randint(10, 700))) for _ in range(3000)]
    windows = pack(rows, 2048)
    filled = sorted(len(w["input_ids"]) for w in windows)
    # The last rows of all have nothing left to stand with.
    assert sum(filled[2:]) / (2048 * len(filled[2:])) >= 0.999


def test_rows_of_nearly_one_length_take_one_window_more_than_the_fewest_possible() -> None:
    rows = [row(*range(2, 2 + len(r.mr) // 3)) for r in make_rows(2000, 1)]
    assert len(pack(rows, 1024)) <= -(-sum(len(r["input_ids"]) for r in rows) // 1024) + 1


def test_windows_go_through_the_collator_that_lays_rows() -> None:
    windows = pack([row(1, 2, 3), row(4, 5)], 5)
    assert FlatCollator()(windows)["position_ids"].tolist() == [[0, 1, 2, 0, 1]]


def test_a_classifier_s_batch_has_one_class_a_row() -> None:
    batch = LabelCollator(9)([{"input_ids": [1, 2], "labels": 0}, {"input_ids": [3], "labels": 1}])
    assert batch["input_ids"].tolist() == [[1, 2], [3, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [0, 1]


def test_padding_is_told_by_lengths_even_where_it_is_a_real_token() -> None:
    batch = Collator(3)([row(1, 2, 3), row(4, 3)])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 3], [IGNORED, 3, IGNORED]]


def stream_of(count: int, buffer: int = 8, seed: int = 1) -> RowStream:
    return RowStream(
        lambda: (Pair(str(i), "x") for i in range(count)),
        lambda pairs: [{"input_ids": [int(pairs[0].source)]}],
        seed,
        buffer,
    )


def ids(rows: Any) -> list[int]:
    return [r["input_ids"][0] for r in rows]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4))
def test_a_stream_gives_each_row_once_a_pass_and_again_in_the_same_order(count: int, buffer: int, passes: int) -> None:
    rows = stream_of(count, buffer)
    found = ids(islice(rows, passes * count))
    for number in range(passes):
        assert sorted(found[number * count : (number + 1) * count]) == list(range(count))
    assert ids(islice(rows, passes * count)) == found


def test_a_stream_is_shuffled_otherwise_in_each_pass_and_for_each_seed() -> None:
    found = ids(islice(stream_of(50), 100))
    assert found[:50] != list(range(50))
    assert found[:50] != found[50:] != ids(islice(stream_of(50, seed=2), 50))


def test_a_stream_of_which_no_row_fits_ends_with_the_reason() -> None:
    with pytest.raises(DataError, match="no row of the stream fits"):
        next(iter(RowStream(lambda: iter([Pair("a", "x")]), lambda pairs: [], 1)))


def test_a_stream_reads_no_further_than_it_must(tmp_path: Path) -> None:
    """What stands behind the first rows is broken, and nobody sees it before it is reached."""
    path = tmp_path / "big.jsonl"
    path.write_text("".join(json.dumps({"mr": f"m{i}", "ref": "r"}) + "\n" for i in range(3000)) + "broken\n")
    rows = stream_rows(str(path))
    assert next(rows)[1]["mr"] == "m0"
    with pytest.raises(DataError, match=r"big\.jsonl:3001"):
        list(rows)


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_are_streamed_with_fields_of_several_lines(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    path.write_text(f'mr{separator}ref\n"one\r\ntwo"{separator}b\n', newline="")
    assert [r for _, r in stream_rows(str(path))] == [{"mr": "one\r\ntwo", "ref": "b"}]


def test_a_json_value_cannot_be_streamed_and_the_message_says_what_can(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"write it as \.jsonl"):
        stream_rows(str(tmp_path / "a.json"))


def test_a_streamed_job_knows_its_task_from_the_first_rows(tmp_path: Path) -> None:
    train, validation = tmp_path / "t.csv", tmp_path / "v.csv"
    train.write_text("sentence,label\n" + "".join(f"s{i},{i % 3}\n" for i in range(30)))
    validation.write_text("sentence,label\nx,1\ny,2\n")
    section = DataSection(dataset=str(train), validation=str(validation), streaming=True)
    data = load(section, 1)
    assert (data.task, data.labels, data.train) == ("classification", ["0", "1", "2"], [])
    assert len(list(islice(stream_pairs(section), 100))) == 30


def test_a_row_that_is_longer_than_a_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="a row of 9 tokens does not fit a window of 8"):
        pack([row(*range(9))], 8)

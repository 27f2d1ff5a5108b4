"""Training and validation rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.data.e2e import make_rows, write_csv
from hpcft.data.kinds import Columns, Pair, Source
from hpcft.data.split import group, load, split
from hpcft.errors import DataError
from hpcft.spec.job import DataSection

QUICKSTART = DataSection(dataset="quickstart", train_samples=0)


def source_of(pairs: list[Pair]) -> Source:
    return Source(pairs, Columns("generation", "mr", None, "ref"), 0)


pairs_strategy = st.lists(
    st.builds(Pair, st.sampled_from([f"in{i}" for i in range(12)]), st.sampled_from("abcdef")),
    min_size=1,
    max_size=60,
)


@given(pairs_strategy, st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_tb6_no_input_stands_in_both_and_no_row_is_lost(pairs: list[Pair], share: float, seed: int) -> None:
    distinct = len({p.source for p in pairs})
    if distinct < 2:
        with pytest.raises(DataError, match="too few"):
            split(source_of(pairs), share, seed)
        return
    train, validation = split(source_of(pairs), share, seed)
    assert train
    assert validation
    assert not {p.source for p in train} & {p.source for p in validation}
    assert sorted(map(repr, train + validation)) == sorted(map(repr, pairs))
    held_out = len({p.source for p in validation})
    assert held_out == min(distinct - 1, max(1, round(distinct * share)))


def test_tb6_all_references_of_an_input_stand_together() -> None:
    rows = [Pair("a", "1"), Pair("b", "2"), Pair("a", "3"), Pair("a", "1")]
    assert [(e.source, e.references) for e in group(rows)] == [("a", ("1", "3")), ("b", ("2",))]


def test_tb6_validation_has_every_reference_of_its_inputs() -> None:
    data = load(QUICKSTART, 42)
    assert all(len(e.references) >= 2 for e in data.validation)
    by_input = {e.source: e.references for e in data.validation}
    for pair in data.validation_pairs:
        assert pair.target in by_input[pair.source]
    assert sum(len(e.references) for e in data.validation) == len(data.validation_pairs)


def test_the_share_is_one_of_distinct_inputs() -> None:
    data = load(QUICKSTART.model_copy(update={"validation_split": 0.25, "eval_samples": 1000}), 1)
    inputs = len({p.source for p in data.train}) + len(data.validation)
    assert len(data.validation) == round(inputs * 0.25)


def test_limits_are_kept() -> None:
    data = load(DataSection(dataset="quickstart", train_samples=17, eval_samples=5), 0)
    assert len(data.train) == 17
    assert len(data.validation) == 5
    assert {p.source for p in data.validation_pairs} == {e.source for e in data.validation}


def test_a_limit_changes_neither_the_division_nor_the_order() -> None:
    full = load(DataSection(dataset="quickstart", train_samples=0, eval_samples=1000), 3)
    some = load(DataSection(dataset="quickstart", train_samples=50, eval_samples=8), 3)
    assert some.train == full.train[:50]
    assert {e.source for e in some.validation} <= {e.source for e in full.validation}


def test_the_validation_inputs_that_a_limit_leaves_are_drawn_from_the_whole_file(tmp_path: Path) -> None:
    """Files are often sorted: the first inputs of the file are no sample of it."""
    lines = ["source,target", *(f"{i:04d},t" for i in range(1000))]
    (tmp_path / "sorted.csv").write_text("\n".join(lines) + "\n")
    data = load(DataSection(dataset=str(tmp_path / "sorted.csv"), eval_samples=20), 0)
    chosen = [int(e.source) for e in data.validation]
    assert len(chosen) == 20
    assert min(chosen) < 300
    assert max(chosen) > 700


def test_the_seed_decides_and_nothing_else() -> None:
    assert load(QUICKSTART, 5) == load(QUICKSTART, 5)
    assert load(QUICKSTART, 5).train != load(QUICKSTART, 6).train
    code = (
        "from hpcft.data.split import load; from hpcft.spec.job import DataSection; "
        "print(load(DataSection(dataset='quickstart', train_samples=40), 5).sha256)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for value in ("0", "123")
    }
    assert found == {load(DataSection(dataset="quickstart", train_samples=40), 5).sha256}


def test_the_hash_is_that_of_the_rows_not_of_the_file(tmp_path: Path) -> None:
    rows = make_rows(20, 0)
    write_csv(tmp_path / "one.csv", rows)
    write_csv(tmp_path / "two.csv", rows)
    write_csv(tmp_path / "other.csv", rows[:-1])
    one, two, other = (
        load(DataSection(dataset=str(tmp_path / f"{name}.csv")), 0).sha256 for name in ("one", "two", "other")
    )
    assert one == two != other
    assert len(one) == 64


def test_too_few_inputs_are_said_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("mr,ref\na,b\na,c\n")
    with pytest.raises(DataError, match="1 distinct input"):
        load(DataSection(dataset=str(path)), 0)


def test_rows_without_a_text_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("mr,ref\na,b\nc,\n ,d\ne,f\n")
    data = load(DataSection(dataset=str(path)), 0)
    assert data.skipped == 2
    assert len(data.train) + len(data.validation_pairs) == 2


def test_the_prompt_follows_the_columns() -> None:
    assert load(QUICKSTART, 0).prompt.name == "e2e"
    assert load(QUICKSTART.model_copy(update={"prompt": "plain"}), 0).prompt.name == "plain"

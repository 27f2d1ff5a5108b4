"""The data set that the package makes itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcft.data.e2e import VENUES, Row, make_notices, make_rows, write_csv
from hpcft.data.kinds import read_source
from hpcft.spec.job import DataSection

SLOTS = ["name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near"]


def slots(mr: str) -> dict[str, str]:
    return dict(re.findall(r"(\w[\w ]*)\[([^\]]*)\]", mr))


def test_the_same_seed_makes_the_same_rows_in_any_process() -> None:
    code = (
        "import hashlib; from hpcft.data.e2e import make_rows; "
        "print(hashlib.sha256(repr(make_rows(50, 7)).encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
    assert make_rows(50, 7) != make_rows(50, 8)


@pytest.mark.parametrize("inputs", [1, 2, 240])
def test_each_input_has_several_references_that_differ_and_stand_together(inputs: int) -> None:
    rows = make_rows(inputs, 0)
    assert len(dict.fromkeys(row.mr for row in rows)) == inputs
    seen: dict[str, list[str]] = {}
    previous = None
    for row in rows:
        assert row.mr == previous or row.mr not in seen, "an input comes again further down"
        seen.setdefault(row.mr, []).append(row.ref)
        previous = row.mr
    assert all(len(refs) >= 2 and len(set(refs)) == len(refs) for refs in seen.values())


def test_meaning_representations_have_the_slots_of_e2e_in_their_order() -> None:
    for row in make_rows(200, 1):
        found = list(slots(row.mr))
        assert found[:2] == ["name", "eatType"]
        assert found == [slot for slot in SLOTS if slot in found]
        assert row.mr == ", ".join(f"{k}[{v}]" for k, v in slots(row.mr).items())


def test_a_sentence_says_every_value_and_nothing_else() -> None:
    for row in make_rows(300, 2):
        told = slots(row.mr)
        assert row.ref[0].isupper()
        assert row.ref.endswith(".")
        for slot, value in told.items():
            if slot != "familyFriendly":
                assert value in row.ref, (slot, row)
        family_words = re.findall(r"[Ff]amil|[Cc]hildren|adults", row.ref)
        assert bool(family_words) == ("familyFriendly" in told), row


def test_names_of_venues_are_distinct() -> None:
    assert len(set(VENUES)) == len(VENUES)


def test_a_written_file_reads_back_as_the_same_rows(tmp_path: Path) -> None:
    rows = [*make_rows(20, 0), Row('name[A "quoted", name]', "Two\nlines, £20.")]
    path = tmp_path / "rows.csv"
    write_csv(path, rows)
    source = read_source(str(path), DataSection())
    assert [(p.source, p.target) for p in source.pairs] == [(r.mr, r.ref) for r in rows]


def test_a_notice_says_what_its_input_says() -> None:
    rows = make_notices(200, 3)
    assert rows == make_notices(200, 3)
    assert rows != make_notices(200, 4)
    assert len({row.mr for row in rows}) == 200
    for row in rows:
        told = slots(row.mr)
        told.pop("familyFriendly", None)
        assert all(value in row.ref for value in told.values()), row


def test_notices_are_a_set_of_their_own() -> None:
    found = read_source("quickstart-notices", DataSection())
    assert found.task == "generation"
    assert (found.columns.source, found.columns.context) == ("instruction", "input")
    assert len(found.pairs) == 600
    assert found.skipped == 0

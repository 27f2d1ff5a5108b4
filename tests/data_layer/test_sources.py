"""Reading rows, and what is said about files that cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.fake_hub import FakeHub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcft.data.kinds import Pair, read_source
from hpcft.data.sources import HUB_NAMES, is_hub
from hpcft.errors import ConfigError, DataError, HpcftError, UnavailableError
from hpcft.spec.job import DataSection


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def read(path: str, **columns: str) -> list[tuple[str, str]]:
    source = read_source(path, DataSection(**columns))
    return [(p.source, p.target) for p in source.pairs]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("mr,ref", ("mr", "ref")),
        ("meaning_representation,human_reference", ("meaning_representation", "human_reference")),
        ("id,dialogue,summary", ("dialogue", "summary")),
        ("output,instruction", ("instruction", "output")),
        ("input,output", ("input", "output")),
        ("prompt,completion", ("prompt", "completion")),
        ("target,source", ("source", "target")),
    ],
)
def test_known_layouts_need_no_column_names(file: Any, header: str, columns: tuple[str, str]) -> None:
    names = header.split(",")
    path = file("x.csv", header + "\n" + ",".join(f"<{n}>" for n in names) + "\n")
    source = read_source(path, DataSection())
    assert (source.input_column, source.target_column) == columns
    assert source.pairs == [Pair(f"<{columns[0]}>", f"<{columns[1]}>")]


def test_formats_give_the_same_pairs(file: Any) -> None:
    rows = [{"mr": "name[A]", "ref": "A, B\nC"}, {"mr": "name[Ü]", "ref": "£ “x”"}]
    paths = [
        file("a.csv", 'mr,ref\nname[A],"A, B\nC"\nname[Ü],£ “x”\n'),
        file("a.tsv", 'mr\tref\nname[A]\t"A, B\nC"\nname[Ü]\t£ “x”\n'),
        file("a.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)),
        file("a.json", json.dumps(rows, indent=1)),
    ]
    assert {tuple(read(p)) for p in paths} == {(("name[A]", "A, B\nC"), ("name[Ü]", "£ “x”"))}


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(file: Any) -> None:
    assert read(file("a.csv", b"\xef\xbb\xbfmr,ref\r\na,b\r\n")) == [("a", "b")]
    assert read(file("a.jsonl", b'\xef\xbb\xbf{"mr":"a","ref":"b"}\r\n\r\n')) == [("a", "b")]


def test_columns_can_be_named(file: Any) -> None:
    path = file("a.csv", "q,a,mr,ref\n1,2,3,4\n")
    assert read(path, input_column="q", target_column="a") == [("1", "2")]
    assert read(path, target_column="a") == [("3", "2")]


def test_an_instruction_takes_its_input_along(file: Any) -> None:
    rows = [
        {"instruction": "Add", "input": "1 2", "output": "3"},
        {"instruction": "Say hi", "input": "", "output": "hi"},
    ]
    pairs = read_source(file("a.json", json.dumps(rows)), DataSection()).pairs
    assert pairs == [Pair("Add", "3", "1 2"), Pair("Say hi", "hi")]


def test_rows_without_a_text_are_counted(file: Any) -> None:
    rows = [{"mr": "a", "ref": "b"}, {"mr": None, "ref": "b"}, {"mr": "a", "ref": "  "}]
    source = read_source(file("a.jsonl", "\n".join(map(json.dumps, rows))), DataSection())
    assert (len(source.pairs), source.skipped) == (1, 2)


def test_a_field_of_a_megabyte_is_read(file: Any) -> None:
    assert len(read(file("a.csv", "mr,ref\n" + "x" * 1_000_000 + ",b\n"))[0][0]) == 1_000_000


def test_the_quickstart_set_needs_no_file() -> None:
    source = read_source("quickstart", DataSection())
    assert source.input_column == "mr"
    assert source.skipped == 0
    assert not is_hub("quickstart")


BROKEN = {
    "fields": ("a.csv", "mr,ref\na,b\na,b,c\n", ":3", "3 fields; the header has 2"),
    "fields after a row of two lines": ("a.csv", 'mr,ref\n"a\na",b\nc\n', ":4", "1 fields"),
    "open quote": ("a.csv", 'mr,ref\na,b\n"a,b\nc,d\n', ":3", "broken"),
    "jsonl": ("a.jsonl", '{"mr":"a","ref":"b"}\n\n{"mr":\n', ":3", "not a JSON object"),
    "jsonl list": ("a.jsonl", '{"mr":"a","ref":"b"}\n[1]\n', ":2", "list"),
    "jsonl without the column": ("a.jsonl", '{"mr":"a","ref":"b"}\n{"mr":"a"}\n', ":2", "no 'ref'"),
    "jsonl number": ("a.jsonl", '{"mr":"a","ref":5}\n', ":1", "'ref' is a int"),
    "json": ("a.json", '[{"mr":"a",\n"ref":}]', ":2", "not JSON"),
    "json object": ("a.json", '{"mr":"a"}', "a.json", "list of JSON objects"),
    "json of a huge number": ("a.json", '[{"mr": ' + "9" * 5000 + "}]", "a.json", "not JSON"),
    "json nested too deep": ("a.json", "[" * 200_000, "a.json", "not JSON"),
    "jsonl nested too deep": ("a.jsonl", "[" * 200_000 + "\n", ":1", "not a JSON object"),
    "latin 1": ("a.csv", b"mr,ref\na,b\ncaf\xe9,b\n", ":3", "0xe9 at offset 14"),
    "nul": ("a.csv", b"mr,ref\na,b\nc\x00,d\n", ":3", "NUL"),
    "half a character": ("a.jsonl", '{"mr":"a","ref":"b"}\n{"mr":"\\ud800","ref":"b"}\n', ":2", "'mr'"),
    "empty": ("a.csv", b"", "a.csv", "is empty"),
    "blank": ("a.jsonl", b"\n \n", "a.jsonl", "is empty"),
    "header alone": ("a.csv", "mr,ref\n", "a.csv", "no row with both"),
    "only gaps": ("a.csv", "mr,ref\na,\n,b\n", "a.csv", "no row with both"),
    "format": ("a.parquet", b"PAR1", "a.parquet", ".jsonl"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named_with_its_line(file: Any, case: str) -> None:
    name, content, where, words = BROKEN[case]
    with pytest.raises(DataError) as caught:
        read(file(name, content))
    assert caught.value.where is not None
    assert caught.value.where.endswith(where)
    assert words in caught.value.message


def test_a_missing_column_shows_those_that_there_are(file: Any) -> None:
    path = file("a.csv", "meaning,reference\na,b\n")
    with pytest.raises(DataError, match="it has meaning, reference") as caught:
        read(path, input_column="meanin", target_column="reference")
    assert "data.input_column=meaning" in str(caught.value)


def test_unknown_columns_ask_for_names(file: Any) -> None:
    with pytest.raises(ConfigError, match="it has foo, bar") as caught:
        read(file("a.csv", "foo,bar\na,b\n"))
    assert caught.value.where == "data.input_column"


def test_a_missing_file_names_the_nearest(file: Any, tmp_path: Path) -> None:
    file("trainset.csv", "mr,ref\na,b\n")
    with pytest.raises(DataError, match=r"did you mean trainset\.csv"):
        read(str(tmp_path / "trainsett.csv"))
    with pytest.raises(DataError, match="no such file"):
        read(str(tmp_path / "nowhere" / "x.csv"))


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read(str(tmp_path))


def test_a_misspelt_name_names_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'quickstart'"):
        read("quikstart")


def test_a_name_too_long_for_the_file_system_is_an_unknown_data_set() -> None:
    with pytest.raises(DataError, match="no data set or file"):
        read("x" * 300)
    assert not is_hub("x" * 300)


def test_a_known_name_beats_a_folder_of_that_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "samsum").mkdir()
    asked = _fake_hub(monkeypatch, [{"dialogue": "a", "summary": "b"}])
    assert read("samsum") == [("a", "b")]
    assert asked == [("knkarthick/samsum", None)]
    assert is_hub("samsum")


def _fake_hub(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], *errors: Exception
) -> list[tuple[str, str | None]]:
    """`load_dataset` that raises the errors in turn, then gives the rows; returns what it was asked for."""
    import datasets

    asked: list[tuple[str, str | None]] = []
    waiting = list(errors)

    def load_dataset(name: str, subset: str | None, *, split: str, revision: str | None, streaming: bool) -> Any:
        assert (split, subset, streaming) == ("train", None, False)
        asked.append((name, revision))
        if waiting:
            raise waiting.pop(0)
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("name", ["e2e_nlg", "org/name"])
def test_a_hub_set_is_asked_for_by_its_id(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked = _fake_hub(monkeypatch, [{"meaning_representation": "a", "human_reference": "b"}])
    assert read(name) == [("a", "b")]
    assert asked == [(HUB_NAMES.get(name, name), None)]
    assert is_hub(name)


def test_a_set_made_by_a_script_is_read_from_the_hubs_parquet_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _fake_hub(
        monkeypatch,
        [{"meaning_representation": "a", "human_reference": "b"}],
        RuntimeError("Dataset scripts are no longer supported, but found e2e_nlg.py"),
    )
    assert read("e2e_nlg") == [("a", "b")]
    assert asked == [("tuetschek/e2e_nlg", None), ("tuetschek/e2e_nlg", "refs/convert/parquet")]


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), OSError(), ValueError("")])
def test_a_hub_set_out_of_reach_names_the_ways_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    _fake_hub(monkeypatch, [], error)
    with pytest.raises(UnavailableError, match="knkarthick/samsum") as caught:
        read("samsum")
    assert "--dataset FILE.csv" in str(caught.value)
    assert "quickstart" in str(caught.value)


def test_without_internet_the_real_client_is_told_off_at_once(tmp_path: Path) -> None:
    code = (
        "from hpcft.data.kinds import read_source\nfrom hpcft.spec.job import DataSection\n"
        "from hpcft.errors import UnavailableError\n"
        "try:\n    read_source('e2e_nlg', DataSection())\n"
        "except UnavailableError as error:\n    print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "tuetschek/e2e_nlg" in answer
    assert "not in the cache" in answer


def test_b52_a_damaged_copy_in_the_cache_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    rows = [{"source": f"question {i}", "target": f"answer {i}"} for i in range(20)]
    (tmp_path / "pairs" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = (
        "import sys\nfrom pathlib import Path\nfrom hpcft.data.sources import cache_of, read_rows\n"
        "from hpcft.errors import DataError\n"
        "assert len(list(read_rows('guild/pairs'))) == 20\n"
        "(table,) = cache_of('guild/pairs').rglob('*.arrow')\n"
        "info, whole = table.with_name('dataset_info.json'), table.read_bytes()\n"
        "cuts = [lambda: table.write_bytes(whole[:-200]), lambda: table.write_bytes(b''), table.unlink]\n"
        "for cut in [*cuts, lambda: table.write_bytes(whole) and info.write_text('{')]:\n"
        "    cut()\n"
        "    try:\n        list(read_rows('guild/pairs'))\n"
        "    except DataError as error:\n        print(error)\n"
    )
    with FakeHub("guild/pairs", tmp_path / "pairs", kind="datasets").running() as hub:
        told = {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 8
    folder = tmp_path / "cache" / "datasets" / "guild___pairs"
    assert all(line.startswith(str(folder)) and "is a damaged copy of the data set" in line for line in said[::2])
    assert all("remove that folder and fetch the set again" in line for line in said[1::2])


def test_reading_loads_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, hpcft.data.e2e, hpcft.data.sources, hpcft.data.prompts, hpcft.data.encode, hpcft.data.split\n"
        "import hpcft.models.quickstart\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'tokenizers', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json"]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes((b"mr,ref\n" if suffix == ".csv" else b"") + content)
    said: HpcftError | None = None
    pairs: list[Pair] = []
    try:
        pairs = read_source(str(path), DataSection()).pairs
    except HpcftError as error:
        said = error
    assert bool(pairs) != bool(said)
    assert said is None or (said.where and said.message)
    assert all(p.source and p.target for p in pairs)


@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)] * 2),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_json_lines_say_is_what_is_read(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "any.jsonl"
    path.write_text("".join(json.dumps({"mr": a, "ref": b}) + "\n" for a, b in rows), encoding="utf-8")
    wanted = [(a.strip(), b.strip()) for a, b in rows if a.strip() and b.strip()]
    if wanted:
        assert read(str(path)) == wanted
    else:
        with pytest.raises(DataError, match="no row with both"):
            read(str(path))

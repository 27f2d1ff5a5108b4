"""Every kind of data set that a user may bring: what it is taken for, and what its rows become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcft.data.kinds import Pair, Source, read_source
from hpcft.data.split import load, named_sets
from hpcft.errors import ConfigError, DataError
from hpcft.spec.job import DataSection


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, content: Any) -> str:
        path = tmp_path / name
        if name.endswith(".jsonl"):
            content = "".join(json.dumps(row) + "\n" for row in content)
        elif name.endswith(".json"):
            content = json.dumps(content)
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


def source(path: str, **data: Any) -> Source:
    return read_source(path, DataSection(**data))


@pytest.mark.parametrize(
    ("row", "task", "pair"),
    [
        ({"mr": "a", "ref": "b"}, "generation", Pair("a", "b")),
        ({"ID": "1", "section_header": "x", "section_text": "s", "dialogue": "d"}, "generation", Pair("d", "s")),
        ({"instruction": "i", "input": "x", "output": "o"}, "generation", Pair("i", "o", "x")),
        ({"sentence": "good", "label": 1}, "classification", Pair("good", "1")),
        ({"text": "good", "label": "pos"}, "classification", Pair("good", "pos")),
        ({"premise": "p", "hypothesis": "h", "label": 2}, "classification", Pair("p", "2", "h")),
        ({"review": "r", "sentiment": "neg"}, "classification", Pair("r", "neg")),
        ({"question": "q", "answer": ["a", "b"]}, "qa", Pair("q", "a", answers=("a", "b"))),
        (
            {"question": "q", "context": "c", "answers": {"text": ["a", "a"], "answer_start": [0, 4]}},
            "qa",
            Pair("q", "a", "c", answers=("a",)),
        ),
    ],
)
def test_a_known_layout_needs_no_option(written: Any, row: dict[str, Any], task: str, pair: Pair) -> None:
    found = source(written("a.jsonl", [row, row]))
    assert found.task == task
    assert found.pairs[0] == pair


def test_squad_s_nested_form_is_read(written: Any) -> None:
    entry = {"id": "1", "question": "Who?", "answers": [{"text": "Ada"}, {"text": "Ada L."}]}
    none = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True}
    path = written("squad.json", {"version": "x", "data": [{"paragraphs": [{"context": "c", "qas": [entry, none]}]}]})
    found = source(path)
    assert found.pairs == [Pair("Who?", "Ada", "c", answers=("Ada", "Ada L."))]
    assert found.skipped == 1


def test_a_broken_squad_file_names_the_article(written: Any) -> None:
    with pytest.raises(DataError, match="article 2"):
        source(written("squad.json", {"data": [{"paragraphs": []}, {"paragraphs": [{"qas": 1}]}]}))


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "u1"},
                {"role": "assistant", "content": "a1"},
                {"role": "user", "content": "u2"},
                {"role": "assistant", "content": "a2"},
            ]
        },
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "u1"},
                {"from": "gpt", "value": "a1"},
                {"from": "human", "value": "u2"},
                {"from": "gpt", "value": "a2"},
            ]
        },
    ],
)
def test_each_answer_of_a_conversation_is_a_row_with_what_was_said_before(written: Any, row: dict[str, Any]) -> None:
    first, second = source(written("chat.jsonl", [row])).pairs
    assert (first.target, first.turns) == ("a1", (("system", "s"), ("user", "u1")))
    assert second.turns == (("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"))


def test_an_unknown_role_is_named_with_its_line(written: Any) -> None:
    path = written("chat.jsonl", [{"messages": [{"role": "robot", "content": "x"}]}])
    with pytest.raises(DataError, match=r"chat\.jsonl:1.*'robot'"):
        source(path)


def test_columns_are_mapped_and_the_task_may_be_said(written: Any) -> None:
    path = written("a.csv", "q,about,a\nwho,c,ada\nwhy,d,it\n")
    found = source(path, task="qa", input_column="q", context_column="about", target_column="a")
    assert found.pairs[0] == Pair("who", "ada", "c", answers=("ada",))


def test_a_misspelt_column_is_answered_with_the_nearest(written: Any) -> None:
    with pytest.raises(DataError, match=r"no column 'lable'[\s\S]*data\.target_column=label"):
        source(written("a.csv", "sentence,label\nx,1\n"), target_column="lable")


def test_tc7_the_column_of_a_classifier_is_not_hard_coded(written: Any) -> None:
    found = source(
        written("a.csv", "quote,mood\nx,sad\ny,glad\n"),
        input_column="quote",
        target_column="mood",
        task="classification",
    )
    assert [p.target for p in found.pairs] == ["sad", "glad"]


def classes(written: Any, counts: dict[str, int], name: str = "c.csv") -> str:
    rows = [f"text {label} {i},{label}" for label, count in counts.items() for i in range(count)]
    return str(written(name, "sentence,label\n" + "\n".join(rows) + "\n"))


def test_ta9_classes_are_counted_named_and_kept_in_order(written: Any) -> None:
    data = load(DataSection(dataset=classes(written, {"10": 10, "2": 10, "1": 10}), train_samples=0), 1)
    assert data.labels == ["1", "2", "10"]
    named = load(DataSection(dataset=classes(written, {"pos": 10, "neg": 10}), train_samples=0), 1)
    assert named.labels == ["neg", "pos"]


def test_each_class_gives_its_share_to_validation(written: Any) -> None:
    data = load(DataSection(dataset=classes(written, {"a": 80, "b": 20}), train_samples=0), 3)
    assert sum(p.target == "a" for p in data.validation_pairs) == 16
    assert sum(p.target == "b" for p in data.validation_pairs) == 4


def test_one_class_alone_is_no_classification(written: Any) -> None:
    with pytest.raises(DataError, match="all rows are of the class 'a'"):
        load(DataSection(dataset=classes(written, {"a": 10})), 1)


def test_texts_in_the_label_s_column_are_no_classes(written: Any) -> None:
    path = written("a.csv", "sentence,label\n" + "".join(f"s{i},text {i}\n" for i in range(200)))
    with pytest.raises(DataError, match="are no classes"):
        load(DataSection(dataset=path, train_samples=0), 1)


def test_a_class_that_training_has_not_is_refused(written: Any) -> None:
    train = classes(written, {"a": 9, "b": 9})
    validation = classes(written, {"a": 2, "c": 2}, "v.csv")
    with pytest.raises(DataError, match="classes that training has not: c"):
        load(DataSection(dataset=train, validation=validation), 1)


def test_a_given_validation_set_is_used_whole_and_training_too(written: Any, caplog: pytest.LogCaptureFixture) -> None:
    train = written("t.csv", "mr,ref\n" + "".join(f"m{i},r\n" for i in range(20)))
    validation = written("v.csv", "mr,ref\nm1,r\nnew,r\n")
    data = load(DataSection(dataset=train, validation=validation, train_samples=0), 1)
    assert len(data.train) == 20
    assert [e.source for e in data.validation] == ["m1", "new"]
    assert "1 of the validation set's inputs" in caplog.text


def test_the_split_has_a_seed_of_its_own(written: Any) -> None:
    path = written("t.csv", "mr,ref\n" + "".join(f"m{i},r\n" for i in range(50)))

    def held_out(seed: int, split_seed: int | None) -> list[str]:
        return [e.source for e in load(DataSection(dataset=path, split_seed=split_seed), seed).validation]

    assert held_out(1, 7) == held_out(2, 7) != held_out(1, None)


def test_te9_all_accepted_answers_of_a_question_stand_with_it(written: Any) -> None:
    rows = [{"question": f"q{i}", "answer": [f"a{i}", f"b{i}"]} for i in range(10)]
    data = load(DataSection(dataset=written("nq.jsonl", rows)), 1)
    for example in data.validation:
        number = example.source.removeprefix("q")
        assert example.references == (f"a{number}", f"b{number}")


def mixed(written: Any) -> list[str]:
    first = written("hotpot.jsonl", [{"question": f"h{i}", "answer": ["x"]} for i in range(30)])
    second = written("nq.jsonl", [{"question": f"n{i}", "answer": ["y"]} for i in range(20)])
    return [f"hotpot={first}", f"nq={second}"]


def test_e5_a_mix_takes_equal_shares_and_keeps_each_row_s_set(written: Any) -> None:
    section = DataSection(dataset="LongRefiner_Combined", mix=mixed(written), train_samples=21, eval_samples=5)
    data = load(section, 1)
    assert data.parts == ["hotpot", "nq"]
    assert [sum(p.part == name for p in data.train) for name in data.parts] == [11, 10]
    assert [sum(e.part == name for e in data.validation) for name in data.parts] == [3, 2]
    assert {p.source[0] for p in data.train if p.part == "nq"} == {"n"}
    assert data.train != sorted(data.train, key=lambda p: p.part)


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (["a=x.jsonl", "a=y.jsonl"], "two sets are called 'a'"),
        (["bad name=x.jsonl"], "name=path"),
        (["a="], "has no path"),
    ],
)
def test_a_mix_with_a_mistake_is_named(mix: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.mix") as caught:
        load(DataSection(dataset="m", mix=mix), 1)
    assert words in str(caught.value)


def test_a_set_of_a_mix_may_have_an_equals_sign_in_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lang=en", "lang=de"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").touch()
    mix = ["lang=en/rows.csv", "german=lang=de/rows.csv"]
    named = named_sets(DataSection(dataset="m", mix=mix))
    assert named == [("rows", "lang=en/rows.csv"), ("german", "lang=de/rows.csv")]


def test_sets_for_different_tasks_do_not_mix(written: Any) -> None:
    mix = [mixed(written)[0], f"polarity={classes(written, {'a': 9, 'b': 9})}"]
    with pytest.raises(ConfigError, match="'hotpot' is for qa and 'polarity' for classification"):
        load(DataSection(dataset="m", mix=mix), 1)


def test_a_mix_of_other_prompts_asks_for_one(written: Any) -> None:
    one = written("a.csv", "mr,ref\n" + "".join(f"m{i},r\n" for i in range(9)))
    two = written("b.csv", "dialogue,summary\n" + "".join(f"d{i},s\n" for i in range(9)))
    with pytest.raises(ConfigError, match=r"data\.prompt.*e2e, summarize"):
        load(DataSection(dataset="m", mix=[f"a={one}", f"b={two}"]), 1)
    assert load(DataSection(dataset="m", mix=[f"a={one}", f"b={two}"], prompt="plain"), 1).prompt.name == "plain"

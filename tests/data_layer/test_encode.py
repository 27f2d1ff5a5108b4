"""From texts to token numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hpcft.data.collate import Collator, pad_left
from hpcft.data.encode import IGNORED, encode, encode_prompt
from hpcft.data.kinds import Pair, read_source
from hpcft.data.prompts import PROMPTS
from hpcft.errors import DataError
from hpcft.spec.job import DataSection

PROMPT = PROMPTS["e2e"]
SHORT = Pair("name[The Ivy Mill], area[riverside]", "The Ivy Mill is by the riverside.")
LONG = Pair(", ".join(f"near[the Old Bridge {i}]" for i in range(60)), "It is near many bridges.")


def answer(row: dict[str, list[int]]) -> list[int]:
    return [label for label in row["labels"] if label != IGNORED]


def asked(row: dict[str, list[int]]) -> list[int]:
    return row["input_ids"][: row["labels"].count(IGNORED)]


def test_tb3_the_prompt_of_generation_is_that_of_training_token_for_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for pair in (SHORT, LONG):
        row = encode([pair], tokenizer, PROMPT, 256).rows[0]
        room = 256 - len(answer(row))
        assert asked(row) == encode_prompt(tokenizer, PROMPT, pair, room)


def test_tb4_the_loss_is_on_the_answer_and_its_end_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    row = encode([SHORT], tokenizer, PROMPT, 512).rows[0]
    assert len(row["labels"]) == len(row["input_ids"])
    prompt = len(asked(row))
    assert row["labels"][:prompt] == [IGNORED] * prompt
    assert row["labels"][prompt:] == row["input_ids"][prompt:]
    assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id
    assert row["input_ids"].count(tokenizer.eos_token_id) == 1, "EOS stands at the end only"
    assert tokenizer.decode(answer(row)[:-1]).strip() == SHORT.target


def test_bos_is_there_once_where_the_tokenizer_has_one(
    tokenizers_by_family: dict[str, PreTrainedTokenizerFast],
) -> None:
    for family, tokenizer in tokenizers_by_family.items():
        ids = encode([SHORT], tokenizer, PROMPT, 512).rows[0]["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == (0 if family == "gpt2" else 1)
        assert (ids[0] == tokenizer.bos_token_id) == (family != "gpt2")


def test_tb4_the_end_is_learned_although_pad_is_the_same_token(gpt2: PreTrainedTokenizerFast) -> None:
    assert gpt2.pad_token_id == gpt2.eos_token_id
    rows = encode([SHORT, LONG], gpt2, PROMPT, 256).rows
    batch = Collator(gpt2.pad_token_id)(rows)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["attention_mask"][i].tolist() == [1] * length + [0] * (batch["input_ids"].shape[1] - length)
        assert batch["labels"][i, length - 1] == gpt2.eos_token_id
        assert (batch["labels"][i, length:] == IGNORED).all()


def test_tb5_the_source_is_cut_and_never_template_or_target(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode([SHORT, LONG], tokenizer, PROMPT, 256)
    long = encoded.rows[1]
    assert len(long["input_ids"]) <= 256
    assert tokenizer.decode(answer(long)[:-1]).strip() == LONG.target
    text = tokenizer.decode(asked(long), skip_special_tokens=True)
    assert text.strip().startswith(PROMPT.head.strip()[:30])
    assert text.rstrip().endswith(PROMPT.tail.strip())
    kept = text.split("### Input:\n")[1].split("\n\n### Output:")[0]
    assert kept
    assert LONG.source.startswith(kept.strip())
    assert encoded.report.truncated_sources == 1
    assert encoded.report.dropped_targets == 0
    assert "cut" in encoded.report.message()
    assert "256" in encoded.report.message()


def test_tb5_as_much_of_the_source_is_kept_as_fits(gpt2: PreTrainedTokenizerFast) -> None:
    room = 200
    ids = encode_prompt(gpt2, PROMPT, LONG, room)
    assert room - 12 <= len(ids) <= room


def test_a_row_whose_target_alone_is_too_long_is_dropped_and_said(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode([SHORT, Pair("name[X]", "word " * 600)], tokenizer, PROMPT, 256)
    assert len(encoded.rows) == encoded.report.rows == 1
    assert encoded.report.dropped_targets == 1
    assert "1 dropped" in encoded.report.message()


def test_a_target_that_just_fits_leaves_the_bare_template(gpt2: PreTrainedTokenizerFast) -> None:
    template = len(encode_prompt(gpt2, PROMPT, Pair("", ""), 10_000))
    target = len(gpt2(SHORT.target, add_special_tokens=False)["input_ids"]) + 1
    row = encode([SHORT], gpt2, PROMPT, template + target).rows[0]
    assert len(row["input_ids"]) == template + target
    with pytest.raises(DataError):
        encode([SHORT], gpt2, PROMPT, template + target - 1)


def test_nothing_left_is_an_error_that_names_the_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="8 tokens") as caught:
        encode([SHORT, LONG], tokenizer, PROMPT, 8)
    assert caught.value.where == "data.max_length"


def test_a_clean_report_says_nothing_of_cuts(tokenizer: PreTrainedTokenizerFast) -> None:
    report = encode([SHORT], tokenizer, PROMPT, 512).report
    assert (report.rows, report.truncated_sources, report.dropped_targets) == (1, 0, 0)
    assert "cut" not in report.message()
    assert "dropped" not in report.message()


def test_all_quickstart_rows_fit_into_256_tokens_of_a_small_vocabulary(gpt2: PreTrainedTokenizerFast) -> None:
    pairs = read_source("quickstart", DataSection()).pairs[:60]
    report = encode(pairs, gpt2, PROMPT, 256).report
    assert report.rows == 60
    assert report.truncated_sources == report.dropped_targets == 0


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    source=st.text(st.characters(exclude_categories=["Cs"]), max_size=400),
    target=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120),
    limit=st.integers(8, 400),
)
def test_any_text_fits_whole_or_cut_or_is_counted(
    gpt2: PreTrainedTokenizerFast, source: str, target: str, limit: int
) -> None:
    wanted = gpt2(target, add_special_tokens=False)["input_ids"]
    try:
        encoded = encode([Pair(source, target)], gpt2, PROMPT, limit)
    except DataError:
        template = len(encode_prompt(gpt2, PROMPT, Pair("", ""), 10_000))
        assert template + len(wanted) + 1 > limit
        return
    row = encoded.rows[0]
    assert len(row["input_ids"]) <= limit
    assert answer(row) == [*wanted, gpt2.eos_token_id]
    text = gpt2.decode(asked(row))
    assert text.startswith(PROMPT.head)
    assert text.endswith(PROMPT.tail)
    assert source.startswith(text[len(PROMPT.head) : len(text) - len(PROMPT.tail)])


def test_generation_pads_on_the_left() -> None:
    batch = pad_left([[5, 6, 7], [8]], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_pad_token_inside_a_prompt_is_still_attended_to() -> None:
    assert pad_left([[0, 6, 0], [8]], 0)["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_collator_gives_integer_tensors_of_one_shape() -> None:
    batch = Collator(9)([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [9], "labels": [9]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [9, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [9, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert {t.dtype for t in batch.values()} == {torch.int64}

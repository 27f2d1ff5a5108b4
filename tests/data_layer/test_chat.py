"""Conversations through the tokenizer's own template."""

from __future__ import annotations

import copy

import pytest
from transformers import PreTrainedTokenizerFast

from hpcft.data.encode import IGNORED, encode, encode_prompt
from hpcft.data.kinds import Pair
from hpcft.data.prompts import PROMPTS

# ChatML, the form that Qwen and many others use.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = PROMPTS["chat"]
FIRST = Pair("near the river?", "The Ivy Mill.", turns=(("system", "Be brief."), ("user", "near the river?")))
SECOND = Pair(
    "cheap?", "Yes, cheap.", turns=(*FIRST.turns, ("assistant", "The Ivy Mill."), ("user", "cheap?"))
)  # fmt: skip


@pytest.fixture(scope="module")
def chatml(tokenizers_by_family: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizers_by_family["gpt2"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHATML
    return tokenizer


def parts(tokenizer: PreTrainedTokenizerFast, pair: Pair, room: int = 512) -> tuple[str, str]:
    """Text of the prompt and of what is learned."""
    row = encode([pair], tokenizer, CHAT, room).rows[0]
    split = row["labels"].count(IGNORED)
    assert row["labels"][split:] == row["input_ids"][split:]
    return tokenizer.decode(row["input_ids"][:split]), tokenizer.decode(row["input_ids"][split:])


def test_a_chat_is_written_by_the_tokenizers_template_word_for_word(chatml: PreTrainedTokenizerFast) -> None:
    prompt, answer = parts(chatml, FIRST)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nnear the river?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer == "The Ivy Mill.<|im_end|>"


def test_tb4_a_chat_learns_its_answer_and_one_end_mark(chatml: PreTrainedTokenizerFast) -> None:
    row = encode([FIRST], chatml, CHAT, 512).rows[0]
    learned = [label for label in row["labels"] if label != IGNORED]
    assert learned[-1] == chatml.convert_tokens_to_ids("<|im_end|>")
    assert learned.count(learned[-1]) == 1


def test_an_end_mark_that_is_not_the_end_of_text_is_followed_by_it(chatml: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(chatml)
    tokenizer.eos_token = "</s>"
    assert parts(tokenizer, FIRST)[1] == "The Ivy Mill.<|im_end|></s>"


def test_earlier_answers_are_read_and_not_learned_again(chatml: PreTrainedTokenizerFast) -> None:
    prompt, answer = parts(chatml, SECOND)
    assert "assistant\nThe Ivy Mill.<|im_end|>\n<|im_start|>user\ncheap?" in prompt
    assert answer == "Yes, cheap.<|im_end|>"


def test_tb3_a_chat_is_asked_as_it_was_learned(chatml: PreTrainedTokenizerFast) -> None:
    row = encode([SECOND], chatml, CHAT, 512).rows[0]
    assert row["input_ids"][: row["labels"].count(IGNORED)] == encode_prompt(chatml, CHAT, SECOND, 500)


def test_tb5_a_long_chat_loses_its_oldest_turns_and_keeps_system_and_question(chatml: PreTrainedTokenizerFast) -> None:
    old = tuple(turn for i in range(40) for turn in (("user", f"and number {i}?"), ("assistant", f"It is {i}.")))
    long = Pair("cheap?", "Yes, cheap.", turns=(FIRST.turns[0], *old, ("user", "cheap?")))
    prompt, answer = parts(chatml, long, room=128)
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nand number")
    assert prompt.endswith("It is 39.<|im_end|>\n<|im_start|>user\ncheap?<|im_end|>\n<|im_start|>assistant\n")
    assert "number 0?" not in prompt
    assert answer == "Yes, cheap.<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_still_learns_the_plain_answer(chatml: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(chatml)
    tokenizer.chat_template = "{% for m in messages %}[{{ messages | length }}:{{ m.role }}]{{ m.content }}{% endfor %}"
    assert parts(tokenizer, FIRST)[1] == "The Ivy Mill.<|im_end|>"


def test_a_tokenizer_without_a_template_gets_ours(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt, answer = parts(tokenizer, FIRST)
    assert "### System:\nBe brief.\n\n### User:\nnear the river?\n\n### Assistant:\n" in prompt
    assert answer.removesuffix("</s>").strip() == "The Ivy Mill."


def test_chats_and_plain_rows_of_one_mix_are_each_written_in_their_own_way(
    tokenizers_by_family: dict[str, PreTrainedTokenizerFast],
) -> None:
    llama = copy.deepcopy(tokenizers_by_family["llama3"])
    llama.chat_template = "<s>" + CHATML
    plain = Pair("a question", "an answer")
    together = encode([FIRST, plain], llama, CHAT, 512).rows
    assert together == [encode([pair], llama, CHAT, 512).rows[0] for pair in (FIRST, plain)]
    assert [row["input_ids"].count(llama.bos_token_id) for row in together] == [1, 1]

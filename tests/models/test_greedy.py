"""Greedy answers: what ends one, and that nothing in a model's own file changes the choice of a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.data.prompts import PROMPTS
from hpcft.data.split import Dataset, Example
from hpcft.measure.latency import answer
from hpcft.models.greedy import end_tokens, greedy
from hpcft.train.ranks import Rank
from hpcft.train.validate import GenerationValidator

PROMPT = list(range(40, 60))


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def answered(model: Any, tokenizer: Any, prompt: list[int] = PROMPT) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **greedy(model, tokenizer, 12))
    return output[0, len(prompt) :].tolist()


def test_an_answer_ends_with_any_of_the_model_s_end_marks_or_the_tokenizer_s(model: Any, tokenizer: Any) -> None:
    whole = answered(model, tokenizer)
    model.generation_config.eos_token_id = [tokenizer.vocab_size - 1, whole[2]]
    first = whole.index(whole[2]) + 1
    assert end_tokens(model, tokenizer) == sorted({tokenizer.eos_token_id, tokenizer.vocab_size - 1, whole[2]})
    assert answered(model, tokenizer) == whole[:first]
    settings: dict[str, Any] = {"max_new_tokens": 12, "exactly": False, "cache": "dynamic"}
    assert answer(model, tokenizer, [PROMPT], **settings).new_tokens == first
    # In a batch what follows the end mark is not counted.
    two = answer(model, tokenizer, [PROMPT, PROMPT[:1]], **settings).new_tokens
    assert two < 2 * len(whole)


def test_greedy_is_the_likeliest_token_whatever_the_model_s_file_asks_for(model: Any, tokenizer: Any) -> None:
    plain = answered(model, tokenizer)
    model.generation_config.repetition_penalty = 50.0
    assert answered(model, tokenizer) == plain
    assert len(set(plain)) < len(plain), "it repeats itself, so a penalty would be seen"


def test_validation_ends_an_answer_as_the_model_does(model: Any, tokenizer: Any) -> None:
    example = Example("name[The Ivy Mill]", ("x",))
    data = Dataset("generation", [], [], [], [example], [], PROMPTS["plain"], "", "", 0)
    common: dict[str, Any] = {"data": data, "tokenizer": tokenizer, "rank": Rank(), "batch_size": 1, "max_length": 64}
    validator = GenerationValidator(prompt=data.prompt, max_new_tokens=12, synced=False, **common)
    whole = answered(model, tokenizer, validator._encode(example)["input_ids"])
    model.generation_config.eos_token_id = [whole[2]]
    validator(model)
    ended = whole[: whole.index(whole[2]) + 1]
    assert validator.predictions == [tokenizer.decode(ended, skip_special_tokens=True).strip()]

"""Greedy answers: the likeliest token each time, until one that ends an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and the model's own, of which a model for chats has several."""
    own = model.generation_config.eos_token_id
    found = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return sorted(token for token in found if token is not None)


def greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> dict[str, Any]:
    """Options of `generate` for greedy answers, whatever a model's own file asks for."""
    return {
        "do_sample": False,
        "num_beams": 1,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": 1.0,
        "max_new_tokens": max_new_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": end_tokens(model, tokenizer) or None,
        "use_cache": True,
    }

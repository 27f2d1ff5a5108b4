"""Tokenizers of the families that differ in what they put around a text."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hpcft.data.e2e import make_rows

SPECIAL = ["<pad>", "<s>", "</s>"]


def _train(core: Tokenizer, alphabet: list[str]) -> Tokenizer:
    texts = [text for row in make_rows(60, 3) for text in (row.mr, row.ref)]
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return core


def _byte_level(template: str | None, pad: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    _train(core, pre_tokenizers.ByteLevel.alphabet())
    if template:
        core.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, core.token_to_id(name)) for name in ("<s>", "</s>")]
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token=pad)


def _sentence_piece_like() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(byte_fallback=False, unk_token=None))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    _train(core, [chr(c) for c in range(32, 127)] + ["\n", "£"])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="session")
def tokenizers_by_family() -> dict[str, PreTrainedTokenizerFast]:
    """GPT-2 (no BOS, pad is EOS), Llama 2 (BOS, a blank put in front), Llama 3 (BOS), and one that closes with EOS."""
    return {
        "gpt2": _byte_level(None, "</s>"),
        "llama2": _sentence_piece_like(),
        "llama3": _byte_level("<s> $A", "<pad>"),
        "closing": _byte_level("<s> $A </s>", "<pad>"),
    }


@pytest.fixture(params=["gpt2", "llama2", "llama3", "closing"])
def tokenizer(
    request: pytest.FixtureRequest, tokenizers_by_family: dict[str, PreTrainedTokenizerFast]
) -> PreTrainedTokenizerFast:
    return tokenizers_by_family[request.param]


@pytest.fixture
def gpt2(tokenizers_by_family: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return tokenizers_by_family["gpt2"]

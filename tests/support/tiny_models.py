"""Small random models of each family, with a tokenizer of the family's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcft.data.e2e import make_rows

VOCAB = 400
# family: (configuration class, its own names for the sizes)
_PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_HEADS = {**_PLAIN, "num_key_value_heads": 2}
_GEMMA = {**_HEADS, "head_dim": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _HEADS),
    "mistral": ("MistralConfig", _HEADS),
    "qwen2": ("Qwen2Config", _HEADS),
    "qwen3": ("Qwen3Config", {**_HEADS, "head_dim": 8}),
    "gemma": ("GemmaConfig", _GEMMA),
    "gemma2": ("Gemma2Config", _GEMMA),
    "gemma3_text": ("Gemma3TextConfig", _GEMMA),
    "olmo2": ("Olmo2Config", _HEADS),
    "phi": ("PhiConfig", _PLAIN),
    "phi3": ("Phi3Config", _PLAIN),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "gpt_neox": ("GPTNeoXConfig", _PLAIN),
    "bert": ("BertConfig", _PLAIN),
    "roberta": ("RobertaConfig", {**_PLAIN, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRobertaConfig", {**_PLAIN, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "distilbert": ("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "albert": ("AlbertConfig", {**_PLAIN, "embedding_size": 16}),
}
ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "albert")
WRITERS = tuple(name for name in FAMILIES if name not in ENCODERS)


def config(family: str, **changes: Any) -> Any:
    """A small configuration of a family; special tokens as `tokenizer` numbers them."""
    import transformers

    name, sizes = FAMILIES[family]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return getattr(transformers, name)(**{"vocab_size": VOCAB, **special, **sizes, **changes})


def tokenizer(family: str) -> Any:
    """Word pieces with [CLS] and [SEP] for encoders, byte-level pieces else; GPT-2's and NeoX's has no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [text for row in make_rows(60, 1) for text in (row.mr, row.ref)]
    if family in ENCODERS:
        special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
        core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=VOCAB, special_tokens=special))
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
        inputs = ["input_ids", "attention_mask"]
        if family in ("bert", "albert"):
            inputs.insert(1, "token_type_ids")
        return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **names)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    if family in ("gpt2", "gpt_neox"):
        return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="</s>", eos_token="</s>", unk_token="</s>")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def build(family: str, folder: Path, **changes: Any) -> Path:
    """Write a model of random weights with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    loader = AutoModelForMaskedLM if family in ENCODERS else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        loader.from_config(config(family, **changes)).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder

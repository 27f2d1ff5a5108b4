"""What the examples distill: a small teacher that has read a few sentences, and a smaller student that has not."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SENTENCES = [
    "the internet is a network of networks and every website is on it",
    "an online website needs a browser and a network",
    "a neural network learns from examples and deep learning has many layers",
    "a language model writes one word after the other",
    "the doctor in the hospital knows the disease and the treatment",
    "good health needs sleep and a patient needs rest",
    "the teacher gives the student a lesson at school",
    "training at the university is long and teaching is longer",
    "the market is open and the stock of the bank is up",
    "trade and investment make an economy grow",
    "the team wins the football match and the sport is fun",
    "music and art are a part of every culture",
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["<pad>", "<unk>", "<s>", "</s>"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int, hidden: int) -> LlamaForCausalLM:
    """A Llama that has learnt nothing yet."""
    torch.manual_seed(layers)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )


def make_rows(tokenizer: PreTrainedTokenizerFast, copies: int = 8) -> dict[str, torch.Tensor]:
    """All sentences, several times over: `input_ids` and `attention_mask`, of shape (rows, tokens)."""
    texts = [f"<s> {sentence} </s>" for sentence in SENTENCES * copies]
    rows = tokenizer(texts, padding=True, return_tensors="pt")
    return {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"]}


def make_loader(tokenizer: PreTrainedTokenizerFast, copies: int = 8) -> DataLoader:
    """Batches of 8 as dictionaries with labels; padding has none."""
    rows = make_rows(tokenizer, copies)
    labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    found = zip(rows["input_ids"], rows["attention_mask"], labels, strict=True)
    dataset = [dict(zip(("input_ids", "attention_mask", "labels"), row, strict=True)) for row in found]
    return DataLoader(dataset, batch_size=8, shuffle=True)


def make_teacher(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model of 4 layers that knows the sentences."""
    teacher = make_model(tokenizer, layers=4, hidden=64)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for batch in make_loader(tokenizer, copies=24):
        teacher(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return teacher

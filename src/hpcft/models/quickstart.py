"""The quickstart model: a small Llama that this package makes on the spot, so that the tool can be tried without a
download. It first learns related tasks, repeating words and listing the values of a venue's attributes, so that
there is something to tune: it knows the words and how to copy, and has never written a sentence from attributes."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcft.data.e2e import VENUES, Venue, make_rows, make_venues
from hpcft.runs.files import make_private

log = logging.getLogger(__name__)

# Raise when anything below changes what is made.
_VERSION = 2
STEPS = 700
_BATCH = 16
_SEED = 20_260_101
_VENUES = 4_000
_WORDS = sorted({word for name in VENUES for word in name.split()})


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where made models are kept: HPCFT_CACHE, else the user's cache folder."""
    if "HPCFT_CACHE" in environ:
        return Path(environ["HPCFT_CACHE"])
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcft"


def model_folder(cache: Path, steps: int = STEPS) -> Path:
    """Where in a cache the model of a version and a number of steps is."""
    return cache / f"quickstart-{_VERSION}-{steps}"


def ensure_quickstart(cache: Path | None = None, steps: int = STEPS) -> Path:
    """Make the quickstart model, or find the one made before.

    Args:
        cache: folder of made models.
        steps: optimizer steps of its first training; about a minute on two cores by default.

    Returns:
        A folder that loads like any local model. It is made aside and renamed when whole, so that of two processes
        one wins and neither reads a half.
    """
    folder = model_folder(cache or cache_folder(), steps)
    if (folder / "config.json").is_file():
        return folder
    make_private(folder.parent)
    log.info("making the quickstart model: %d steps of a first training, once on this machine", steps)
    aside = Path(tempfile.mkdtemp(prefix=".quickstart-", dir=folder.parent))
    try:
        build_model(aside, steps=steps)
        try:
            aside.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def build_model(
    folder: Path,
    *,
    steps: int,
    hidden: int = 128,
    layers: int = 4,
    vocab: int = 1024,
    seed: int = _SEED,
) -> None:
    """Make a byte-level tokenizer and a small Llama with grouped attention heads, and train it for some steps.

    Args:
        folder: receives tokenizer, configuration and safetensors.
        steps: 0 leaves the weights random.
        hidden: model width, a multiple of 64: heads of 32, as 4-bit kernels want it, in groups of two.
        layers: decoder layers.
        vocab: tokens.
        seed: of weights and data.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(vocab)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        if steps:
            _train(model, tokenizer, steps, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(vocab: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    texts = [text for row in make_rows(600, _SEED) for text in (row.mr, row.ref)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=2048,
    )


def _listing(venue: Venue) -> tuple[str, str]:
    """A venue's attributes, and its values alone in the same order: every token of the answer is a copy."""
    values = (venue.name, venue.kind, venue.food, venue.price, venue.rating, venue.area, venue.near)
    return f"{venue.meaning()}\nValues:\n", " / ".join(value for value in values if value is not None)


def _repetition(rng: random.Random) -> tuple[str, str]:
    """Words in no order and the same words again. Values can mostly be guessed from a few; these cannot, and so the
    model learns to copy early: with listings alone it still made names up after a minute."""
    words = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(3, 12)))
    return f"{words}\nValues:\n", words


def _batches(tokenizer: Any, steps: int, seed: int) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Batches of (prompt, answer) tokens: half repetitions, listings, and a few sentences without the attributes
    that they say."""
    rng = random.Random(seed)  # noqa: S311 (made data, not a secret)
    venues = make_venues(_VENUES, seed + 1)
    sentences = [row.ref for row in make_rows(_VENUES // 8, seed + 2)]
    eos = [tokenizer.eos_token_id]
    for _ in range(steps):
        batch = []
        for position in range(_BATCH):
            if position < _BATCH // 2:
                asked, answer = _repetition(rng)
            elif position < _BATCH // 2 + 2:
                asked, answer = "", rng.choice(sentences)
            else:
                asked, answer = _listing(rng.choice(venues))
            ids = tokenizer(asked)["input_ids"]
            batch.append((ids, tokenizer(answer, add_special_tokens=False)["input_ids"] + eos))
        yield batch


def _train(model: Any, tokenizer: Any, steps: int, seed: int) -> None:
    """A plain loop: it makes a fixture, not a result, and must give the same weights for the same seed."""
    import torch

    peak = 2e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=steps, pct_start=0.1)
    model.train()
    for step, batch in enumerate(_batches(tokenizer, steps, seed), 1):
        longest = max(len(p) + len(a) for p, a in batch)
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
        labels = torch.full((len(batch), longest), -100)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, (prompt, answer) in enumerate(batch):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = ids[row, len(prompt) : end]
            mask[row, :end] = 1
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            log.info("quickstart model: step %d of %d, loss %.3f", step, steps, loss.item())
    model.eval()

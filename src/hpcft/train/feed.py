"""What a job's model is fed: rows as tokens, and how they are laid into batches, by the task of the data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hpcft.data.collate import Collator, FlatCollator, LabelCollator
from hpcft.data.encode import EncodeReport, encode, encode_labels
from hpcft.data.packing import pack
from hpcft.data.split import Dataset, check_labels, load
from hpcft.errors import ConfigError
from hpcft.models.packing import keeps_rows_apart
from hpcft.spec.job import Job
from hpcft.spec.variants import PROMPT_LIKE, VARIANTS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Packing = Literal["off", "batch", "full"]
# Without FlashAttention, rows laid end to end cost a mask over all pairs of their tokens; up to this many tokens
# that is less than the padding that it saves.
_MOST_WITH_A_MASK = 2048


@dataclass(frozen=True)
class Feed:
    """Rows and collators.

    Attributes:
        data: the data set as read.
        train: encoded rows, windows of packed rows, or a stream.
        validation: encoded rows for the evaluation loss.
        report: what fitting into max_length cost; None of a stream, which nobody has read yet.
        packing: how training rows share a sequence.
    """

    data: Dataset
    train: Any
    validation: list[dict[str, Any]]
    train_collator: Callable[[Any], Any]
    eval_collator: Callable[[Any], Any]
    report: EncodeReport | None
    packing: Packing


def feed(job: Job, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> Feed:
    """Read, encode and, where it is asked for and safe, pack.

    Args:
        config: the base model's.

    Raises:
        DataError: the data cannot be read or does not fit. ConfigError: the model cannot be fed this way.
    """
    data = load(job.data, job.training.seed)
    if data.task == "classification":
        return _labelled(job, tokenizer, data)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of '{job.model.name}' has no end-of-sequence token, so answers would never end",
            where="model.name",
        )
    packing = _packing(job, config)
    padded = Collator(tokenizer.pad_token_id)
    collator = padded if packing == "off" else FlatCollator()
    validation = encode(data.validation_pairs, tokenizer, data.prompt, job.data.max_length)
    if job.data.streaming:
        return Feed(data, _stream(job, tokenizer, data), validation.rows, collator, padded, None, packing)
    encoded = encode(data.train, tokenizer, data.prompt, job.data.max_length)
    train = pack(encoded.rows, job.data.max_length) if packing == "full" else encoded.rows
    if packing == "full":
        log.info("packed %d rows into %d windows of %d tokens", len(encoded.rows), len(train), job.data.max_length)
    return Feed(data, train, validation.rows, collator, padded, encoded.report, packing)


def _labelled(job: Job, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> Feed:
    check_labels(data.labels, job.model.num_labels)
    validation = encode_labels(data.validation_pairs, tokenizer, data.labels, job.data.max_length)
    collator = LabelCollator(tokenizer.pad_token_id)
    if job.data.streaming:
        return Feed(data, _stream(job, tokenizer, data), validation.rows, collator, collator, None, "off")
    train = encode_labels(data.train, tokenizer, data.labels, job.data.max_length)
    return Feed(data, train.rows, validation.rows, collator, collator, train.report, "off")


def _stream(job: Job, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> Any:
    from hpcft.data.stream import stream

    return stream(job.data, tokenizer, data, job.training.seed)


def _packing(job: Job, config: PretrainedConfig) -> Packing:
    wanted = job.data.packing
    if wanted == "off" or VARIANTS[job.variant].adapter in PROMPT_LIKE:
        # Vectors in front of a batch's first row would be in front of that row alone.
        return "off"
    apart = keeps_rows_apart(config)
    if wanted == "auto":
        tokens = job.training.per_device_train_batch_size * job.data.max_length
        flash = job.model.attn_implementation == "flash_attention_2"
        return "batch" if apart and (flash or tokens <= _MOST_WITH_A_MASK) else "off"
    if not apart:
        raise ConfigError(
            f"rows laid end to end would see each other in a model of architecture '{config.model_type}'",
            where="data.packing",
            hint="--set data.packing=off",
        )
    if wanted == "full" and job.data.streaming:
        raise ConfigError("a stream cannot be packed into full windows", where="data.packing", hint="use batch")
    return wanted

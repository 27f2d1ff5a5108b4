"""The rows that a calibrated quantisation adapts the weights to: of the training data, never of what it is checked
with."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.data.encode import encode, encode_labels
from hpcft.data.kinds import Pair
from hpcft.data.split import Dataset, load, stream_pairs
from hpcft.errors import ConfigError
from hpcft.runs.run import Run
from hpcft.spec.job import DataSection, Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_INPUTS = ("input_ids", "token_type_ids")
# Rows of a stream that are read for each one that is drawn.
_STREAMED = 10


def calibration_rows(
    job: Job, tokenizer: PreTrainedTokenizerBase, validation: Dataset
) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    """Training rows, drawn with the job's seed and encoded as in training.

    Args:
        validation: what the model is checked with; none of its inputs is drawn.

    Returns:
        Rows from the names of the model's inputs to token numbers, and what there is to say of them: `rows`,
        `tokens`, `data`.

    Raises:
        ConfigError: no training rows are known.
    """
    section, seed = training_data(job)
    held_out = {pair.key for pair in validation.validation_pairs}
    if section.streaming:
        data = validation
        pairs = list(islice(stream_pairs(section), _STREAMED * job.quantize.calibration_samples))
    else:
        data = load(section, seed)
        pairs = data.train
    pool = [pair for pair in pairs if pair.key not in held_out]
    if not pool:
        raise ConfigError("there is no training row that is not validated with too", where="data.dataset")
    count = min(job.quantize.calibration_samples, len(pool))
    drawn: list[Pair] = random.Random(seed).sample(pool, count)  # noqa: S311 (a sample, not a secret)
    if data.task == "classification":
        labels = sorted({pair.target for pair in drawn})
        encoded = encode_labels(drawn, tokenizer, labels, job.data.max_length)
    else:
        encoded = encode(drawn, tokenizer, data.prompt, job.data.max_length)
    rows = [{name: row[name] for name in _INPUTS if name in row} for row in encoded.rows]
    tokens = sum(len(row["input_ids"]) for row in rows)
    return rows, {"rows": len(rows), "tokens": tokens, "data": section.dataset}


def training_data(job: Job) -> tuple[DataSection, int]:
    """The set that rows are drawn from, and the seed of its division: the job's own where a part of it is for training;
    where it is asked whole, that of the run that trained the model.

    Raises:
        ConfigError: there is no such run.
    """
    if job.data.validation != job.data.dataset:
        return job.data, job.training.seed
    of = job.of
    while of is not None:
        config = Run(Path(of)).config
        if config.get("kind", "train") == "train":
            return DataSection.model_validate(config["data"]), int(config["training"]["seed"])
        of = config.get("of")
    raise ConfigError(
        f"{job.quantize.method} looks at training rows, and '{job.data.dataset}' is validated with as a whole",
        where="data.dataset",
        hint="name both: --dataset TRAINING --set data.validation=VALIDATION",
    )

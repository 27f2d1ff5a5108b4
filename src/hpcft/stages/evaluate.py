"""Score any model on any data set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpcft.data.collate import Collator
from hpcft.data.encode import encode
from hpcft.data.split import Dataset, load
from hpcft.errors import DataError
from hpcft.measure.memory import over_ranks, peak_gb, reset_peak
from hpcft.measure.perplexity import perplexity
from hpcft.measure.scores import classification_scores
from hpcft.measure.uncertainty import CONFIDENCE, bleu_interval, mean_interval, score_interval
from hpcft.models.open import labels_of, open_model, open_tokenizer, subject
from hpcft.runs.files import write_json
from hpcft.spec.job import Job
from hpcft.stages.carry import COSTS, carried, finish
from hpcft.train.context import Context
from hpcft.train.ranks import Rank, barrier
from hpcft.train.validate import Validator, evaluation_results, final_metrics, headline, make_validator

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A model's scores.

    Attributes:
        scores: `validation/*`, on every rank.
        results: what `evaluation_results.json` holds; empty on other ranks than the first.
        validator: with the answers and each one's own scores.
        peak: memory in use at most, by its metric.
    """

    scores: dict[str, float]
    results: dict[str, Any]
    validator: Validator
    peak: dict[str, float]


def evaluate(context: Context) -> dict[str, Any]:
    """Answer every validation input greedily, score the answers, and say how sure the scores are.

    Returns:
        Summary metrics, on rank 0; `{}` elsewhere.

    Raises:
        HpcftError: the model or the data cannot be had, or they do not go together.
    """
    job, paths = context.job, context.paths
    costs = carried(job, COSTS)
    found = score(job, context.device, context.rank, say=context.say, between=context.go_on)
    if context.recorder is None:
        barrier()
        return {}
    write_json(paths.evaluation, found.results)
    found.validator.write_predictions(paths.predictions)
    metrics = costs | final_metrics(found.scores)
    metrics |= {k.replace("train/", "evaluation/"): v for k, v in found.peak.items()}
    if "perplexity" in found.results:
        metrics["final/validation_perplexity"] = found.results["perplexity"]
    done = finish(context, metrics, {"files": [paths.evaluation.name, paths.predictions.name]}, found.results)
    barrier()
    return done


def score(
    job: Job,
    device: torch.device,
    rank: Rank,
    *,
    say: Callable[[str, str], None] = lambda state, message: None,
    between: Callable[[], None] = lambda: None,
) -> Scored:
    """The same without a run directory.

    Args:
        say: told what is being done: a state and a sentence.
        between: called before each batch.

    Raises:
        HpcftError: the model or the data cannot be had, or they do not go together.
    """
    data = _data(job)
    say("starting", f"loading the model {job.model.name}")
    tokenizer = open_tokenizer(job)
    reset_peak(device)
    model = open_model(job, device, data.labels or None)
    validator = make_validator(job, data, tokenizer, rank)
    validator.between = between
    say("validating", f"answering {len(data.validation)} inputs")
    scores = validator(model)
    results: dict[str, Any] = {}
    if data.task != "classification":
        rows = encode(data.validation_pairs, tokenizer, data.prompt, job.data.max_length).rows
        results["perplexity"] = perplexity(
            model,
            rows,
            Collator(tokenizer.pad_token_id),
            batch_size=job.training.per_device_eval_batch_size,
            rank=rank,
            between=between,
        )
    peak = over_ranks(peak_gb(device))
    if not rank.is_first:
        return Scored(scores, {}, validator, peak)
    log.info(headline(scores))
    results = evaluation_results(scores) | results
    if job.evaluation.bootstrap:
        results["intervals"] = {k: list(v) for k, v in intervals(validator, job.evaluation.bootstrap).items()}
        results["confidence"] = CONFIDENCE
    results["model"] = {"name": job.model.name, "quantization": subject(job).quantization}
    results["data"] = {
        "name": job.data.validation or job.data.dataset,
        "sha256": data.validation_sha256,
        "task": data.task,
    }
    results["provenance"] = validator.provenance
    return Scored(scores, results, validator, peak)


def _data(job: Job) -> Dataset:
    """The validation rows, with the classes of the model where it is a classifier.

    Raises:
        DataError: the data has classes that the model does not know.
    """
    data = load(job.data, job.training.seed, training=False)
    if data.task != "classification":
        return data
    known = labels_of(job) or data.labels
    if unknown := sorted(set(data.labels) - set(known)):
        raise DataError(
            f"has classes that the model does not know: {', '.join(unknown[:8])}",
            where=job.data.validation or job.data.dataset,
            hint=f"the model knows {', '.join(known[:8])}",
        )
    return replace(data, labels=known)


def intervals(validator: Validator, resamples: int) -> dict[str, tuple[float, float]]:
    """95 % intervals of a validation's scores."""
    seed = 0
    found = {name: mean_interval(values, resamples, seed) for name, values in validator.each.items()}
    predictions, examples = validator.predictions, validator.data.validation
    if "rougeL" in found:
        found["bleu"] = bleu_interval(predictions, [e.references for e in examples], resamples)
    if validator.data.task == "classification":

        def macro(chosen: Any) -> float:
            said, right = [predictions[i] for i in chosen], [examples[i].references[0] for i in chosen]
            return classification_scores(said, right, validator.data.labels).scores["f1_macro"]

        found["f1_macro"] = score_interval(len(examples), macro, resamples, seed)
    return found

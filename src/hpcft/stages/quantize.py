"""Store a whole model in fewer bits, and let it count only when its perplexity holds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hpcft.data.collate import Collator
from hpcft.data.encode import encode
from hpcft.data.split import load
from hpcft.errors import ConfigError, HpcftError
from hpcft.measure.memory import folder_size_gb
from hpcft.measure.perplexity import perplexity
from hpcft.models.gptq import gptq
from hpcft.models.load import compute_dtype
from hpcft.models.open import keep_labels, labels_of, open_model, open_tokenizer, subject
from hpcft.models.quantization import post_training_config
from hpcft.models.tools import check_environment
from hpcft.runs.files import write_json
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job
from hpcft.stages.calibration import calibration_rows
from hpcft.stages.carry import COSTS, carried, finish
from hpcft.train.context import Context
from hpcft.train.finish import verify_model
from hpcft.train.validate import make_validator

if TYPE_CHECKING:
    from hpcft.data.split import Dataset

log = logging.getLogger(__name__)


def quantize(context: Context) -> dict[str, Any]:
    """Quantise, save, open what was saved without the base, and compare.

    Text models are compared by perplexity on the validation rows, classifiers by accuracy.

    Returns:
        Summary metrics.

    Raises:
        ConfigError: it is an adapter, or quantised already.
        HpcftError: the quantised model is too much worse.
    """
    job, paths = context.job, context.paths
    check_environment(job)
    costs = carried(job, COSTS)
    found = subject(job)
    if found.adapter is not None:
        raise ConfigError(
            "is an adapter; a whole model is quantised", where="model.name", hint="merge it first: hpcft merge RUN"
        )
    if found.quantization != "none":
        raise ConfigError(f"is quantised already ({found.quantization})", where="model.name")
    data = load(job.data, job.training.seed, training=False)
    labels = labels_of(job) if data.task == "classification" else None
    tokenizer = open_tokenizer(job)
    drawn = calibration_rows(job, tokenizer, data) if job.quantize.calibrated else None
    context.say("starting", f"loading the model {job.model.name}")
    before = _quality(context, job, open_model(job, context.device, labels), tokenizer, data)
    context.go_on()
    context.say("working", f"quantising to {job.quantize.method}")
    how: dict[str, Any] = {}
    if drawn is not None:
        how = _calibrate(context, *drawn)
    else:
        model = open_model(job, context.device, labels, stored=_config(context))
        model.save_pretrained(str(paths.final_model))
        del model
    tokenizer.save_pretrained(str(paths.final_model))
    if labels is not None:
        keep_labels(paths.final_model, labels)
    artifacts = verify_model(paths.final_model)
    context.go_on()
    saved = job.model_copy(
        update={"model": job.model.model_copy(update={"name": str(paths.final_model), "revision": None})}
    )
    context.say("validating", "answering with what was saved")
    after = _quality(context, saved, open_model(saved, context.device, labels), tokenizer, data)
    folder = user_path(job.model.name)
    report: dict[str, Any] = {
        "method": job.quantize.method,
        **how,
        "before": before,
        "after": after,
        "size_gb": folder_size_gb(paths.final_model),
        **({"size_before_gb": folder_size_gb(folder)} if folder.is_dir() else {}),
        "data": {"name": job.data.validation or job.data.dataset, "sha256": data.validation_sha256},
    }
    write_json(paths.root / "quantize.json", report)
    _accept(job, before, after)
    metrics = costs | {f"quantize/{name}_before": value for name, value in before.items()}
    metrics |= {f"quantize/{name}_after": value for name, value in after.items()}
    metrics["inference/model_size_gb"] = report["size_gb"]
    return finish(context, metrics, artifacts)


def _config(context: Context) -> Any:
    return post_training_config(context.job.quantize.method, compute_dtype(context.job, context.device), context.device)


def _calibrate(context: Context, rows: list[dict[str, list[int]]], told: dict[str, Any]) -> dict[str, Any]:
    """Quantise with training rows, in another process; what there is to say of it."""
    import torch

    log.info("calibrating with %d training rows, %d tokens", told["rows"], told["tokens"])
    # The model that was asked before is gone, and its memory is for the other process now.
    if context.device.type == "cuda":
        torch.cuda.empty_cache()
    answer = gptq(context.job, context.device, rows, context.paths.final_model, context.go_on)
    size = answer["group_size"]
    log.info("%d layers quantised in %.1f s, one scale for %s", answer["layers"], answer["seconds"], size or "a row")
    return {"calibration": told, **answer}


def _quality(context: Context, job: Job, model: Any, tokenizer: Any, data: Dataset) -> dict[str, float]:
    batch = job.training.per_device_eval_batch_size
    if data.task == "classification":
        return {"accuracy": make_validator(job, data, tokenizer, context.rank)(model)["validation/accuracy"]}
    rows = encode(data.validation_pairs, tokenizer, data.prompt, job.data.max_length).rows
    collate = Collator(tokenizer.pad_token_id)
    return {"perplexity": perplexity(model, rows, collate, batch_size=batch, between=context.go_on)}


def _accept(job: Job, before: dict[str, float], after: dict[str, float]) -> None:
    """Refuse a model that quantisation has spoilt.

    Raises:
        HpcftError: with both figures.
    """
    name, was = next(iter(before.items()))
    now = after[name]
    factor = job.quantize.max_perplexity_ratio
    # A classifier may make this many times as many mistakes; one mistake more is no finding.
    spoilt = now > was * factor if name == "perplexity" else (1 - now) > max((1 - was) * factor, 1 - was + 0.02)
    log.info("%s %.4f before, %.4f in %s", name, was, now, job.quantize.method)
    if spoilt:
        raise HpcftError(
            f"quantised to {job.quantize.method} the model is too much worse: {name} {was:.4g} before, {now:.4g} after",
            where="quantize.max_perplexity_ratio",
            hint="take a method with more bits (--method bnb-int8), or raise the limit",
        )

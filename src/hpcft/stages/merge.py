"""Make one model of an adapter and its base."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hpcft.data.encode import encode_input, encode_prompt
from hpcft.data.split import Dataset, load
from hpcft.errors import ConfigError, HpcftError
from hpcft.measure.memory import folder_size_gb
from hpcft.models.availability import model_folder
from hpcft.models.load import load_config
from hpcft.models.merge import check_mergeable, compare, logits_of, merged
from hpcft.models.open import adapter_kind, keep_labels, labels_of, open_model, open_tokenizer, subject
from hpcft.runs.files import write_json
from hpcft.spec.job import Job, ModelSection
from hpcft.spec.labs import title_of
from hpcft.stages.carry import COSTS, carried, finish
from hpcft.train.context import Context
from hpcft.train.finish import verify_model
from hpcft.viz import guarded, plot_model_sizes

log = logging.getLogger(__name__)
_COMPARED = 16


def merge(context: Context) -> dict[str, Any]:
    """Merge, compare the answers before and after, and keep the model.

    An adapter that was trained on a 4- or 8-bit base is merged into the 16-bit one: quantised weights cannot take a
    small change, and rounding the sum again would lose most of it. What that changes is measured too.

    Returns:
        Summary metrics.

    Raises:
        ConfigError: there is no adapter, or it cannot be merged.
        HpcftError: the merged model answers otherwise than the adapter did.
    """
    job, paths = context.job, context.paths
    costs = carried(job, COSTS)
    found = subject(job)
    if found.adapter is None:
        raise ConfigError("is a whole model; there is no adapter to merge", where="model.name", hint=job.model.name)
    check_mergeable(adapter_kind(found.adapter))
    job = _with_dtype(job)
    labels = labels_of(job)
    tokenizer = open_tokenizer(job)
    context.say("starting", f"loading the model {found.base.name}")
    model = open_model(job, context.device, labels, quantization="none")
    rows = _rows(job, tokenizer)
    before = logits_of(model, rows)
    context.say("working", "merging")
    model = merged(model)
    report: dict[str, Any] = {"merged": compare(before, logits_of(model, rows)), "rows": len(rows)}
    report["dtype"] = str(model.dtype).removeprefix("torch.")
    if report["merged"]["mean_kl"] > job.merge.max_kl:
        raise HpcftError(
            f"merging changed the answers: mean KL {report['merged']['mean_kl']:.4g} nats a token, "
            f"allowed are {job.merge.max_kl:g}",
            where="merge.max_kl",
            hint="--set merge.dtype=float32 rounds less",
        )
    context.say("finishing", "keeping the model")
    model.save_pretrained(str(paths.final_model))
    tokenizer.save_pretrained(str(paths.final_model))
    if labels is not None:
        keep_labels(paths.final_model, labels)
    artifacts = verify_model(paths.final_model)
    if found.quantization != "none":
        report["reason"] = (
            f"the adapter was trained on a base in {found.quantization}; it is merged into the base of "
            f"{report['dtype']}, since quantised weights cannot take its small changes"
        )
        del model
        context.go_on()
        trained_on = open_model(context.job, context.device, labels)
        report["against_the_quantised_base"] = compare(logits_of(trained_on, rows), before)
        log.info("%s", report["reason"])
    write_json(paths.root / "merge.json", report)
    guarded(plot_model_sizes, job.lang)(
        merge_sizes(found.adapter, paths.final_model, found.base),
        paths.root / "model_size_comparison.png",
        job.lang,
        method=title_of(job.variant),
        verbose=True,
    )
    log.info("mean KL %.3g nats, same token at %.2f %% of positions", *_told(report["merged"]))
    metrics = costs | {f"merge/{name}": value for name, value in report["merged"].items()}
    metrics["inference/model_size_gb"] = folder_size_gb(paths.final_model)
    return finish(context, metrics, artifacts)


def merge_sizes(adapter: Path, merged_model: Path, base: ModelSection) -> dict[str, float]:
    """Sizes of the weight files of an adapter, of the merged model and of the base, in GB, for `plot_model_sizes`;
    the base's where it is on this disk."""
    sizes = {"adapter": folder_size_gb(adapter), "merged": folder_size_gb(merged_model)}
    whole = model_folder(base)
    return sizes if whole is None else sizes | {"base": folder_size_gb(whole)}


def _told(figures: dict[str, float]) -> tuple[float, float]:
    return figures["mean_kl"], 100 * figures["same_choice_frac"]


def _with_dtype(job: Job) -> Job:
    """The job with the dtype of the merged weights as the model's."""
    import torch

    dtype: str = job.merge.dtype
    if dtype == "auto":
        own = load_config(subject(job).base).dtype
        dtype = str(own).removeprefix("torch.") if own in (torch.bfloat16, torch.float16) else "float32"
    return job.model_copy(update={"model": job.model.model_copy(update={"dtype": dtype})})


def _rows(job: Job, tokenizer: Any) -> list[list[int]]:
    """Tokens to compare answers on: prompts with their answers from the run's data, else text of the vocabulary."""
    if job.of is None:
        ids = sorted(tokenizer.get_vocab().values())
        return [[ids[(7 * i + 13 * k) % len(ids)] for k in range(32)] for i in range(_COMPARED)]
    data: Dataset = load(job.data, job.training.seed, training=False)
    examples = data.validation[:_COMPARED]
    if data.task == "classification":
        return [encode_input(tokenizer, e, job.data.max_length)["input_ids"] for e in examples]
    prompts = [encode_prompt(tokenizer, data.prompt, e, job.data.max_length) for e in examples]
    answers = [tokenizer(e.references[0], add_special_tokens=False)["input_ids"] for e in examples]
    return [[*prompt, *answer][: job.data.max_length] for prompt, answer in zip(prompts, answers, strict=True)]

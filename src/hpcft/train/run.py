"""One training job, from its spec to its end marker, on every rank."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers
from transformers import AutoConfig, TrainingArguments

from hpcft.data.encode import Collator, encode
from hpcft.data.split import Dataset, load
from hpcft.measure.flops import StepFlops, training_flops
from hpcft.measure.memory import folder_size_gb, over_ranks, peak_gb, reset_peak
from hpcft.models.counts import ParameterCount, count_parameters
from hpcft.models.load import (
    compute_dtype,
    load_base,
    load_tokenizer,
    lora_config,
    resolve_model,
    with_adapter,
)
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.spec.build import flat
from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS
from hpcft.train import finish
from hpcft.train.checkpoint import copy_model, newest, remove_partial
from hpcft.train.deepspeed_config import deepspeed_config
from hpcft.train.ranks import Rank, barrier, world_size
from hpcft.train.recorder import Recorder
from hpcft.train.stop import StopRequest
from hpcft.train.trainer import FineTuner, Progress
from hpcft.train.validate import GenerationValidator

log = logging.getLogger(__name__)


@dataclass
class Context:
    """What a job runs in.

    Attributes:
        recorder: on rank 0; None elsewhere.
    """

    job: Job
    paths: RunPaths
    rank: Rank
    device: torch.device
    attempt: int
    recorder: Recorder | None
    stop: StopRequest

    def say(self, state: str, message: str) -> None:
        """Tell what is being done."""
        if self.recorder is not None:
            log.info(message)
            self.recorder.status(state, message=message)


def train(context: Context) -> dict[str, Any]:
    """Train, validate, keep the model, write the results; on every rank.

    Returns:
        Summary metrics, on rank 0; without it elsewhere.

    Raises:
        Stopped: asked to stop; everything is saved and the next attempt goes on.
        HpcftError: the job cannot be done; the message says why.
    """
    job, paths, rank = context.job, context.paths, context.rank
    resume = newest(paths, rank.world_size, job.zero_stage)
    if rank.is_first:
        for name in remove_partial(paths):
            log.warning("%s was cut off in the middle and is set aside", name)
    context.say("starting", f"loading the model {job.model.name}")
    # One rank makes or fetches what all of them then read.
    if rank.is_first:
        load_tokenizer(job.model)
    barrier()
    tokenizer = load_tokenizer(job.model)
    data = load(job.data, job.training.seed)
    encoded = encode(data.train, tokenizer, data.prompt, job.data.max_length)
    context.say("starting", encoded.report.message())
    validation = encode(data.validation_pairs, tokenizer, data.prompt, job.data.max_length)
    flops = _flops(job) if rank.is_first else None

    arguments = training_arguments(context, resumed=resume is not None)
    transformers.set_seed(job.training.seed)
    model = with_adapter(load_base(job, context.device), job)
    counts = count_parameters(model)
    reset_peak(context.device)
    validator = None
    if job.evaluation.enabled:
        validator = GenerationValidator(
            examples=data.validation,
            tokenizer=tokenizer,
            prompt=data.prompt,
            rank=rank,
            batch_size=job.training.per_device_eval_batch_size,
            max_new_tokens=job.evaluation.max_new_tokens,
            max_length=job.data.max_length,
            synced=job.zero_stage == 3,
        )
    trainer = FineTuner(
        rank=rank,
        paths=paths,
        recorder=context.recorder,
        stop=context.stop,
        save_seconds=job.training.save_minutes * 60,
        zero_stage=job.zero_stage,
        attempt=context.attempt,
        progress=Progress.from_dict(resume[1].totals) if resume else Progress(),
        validate=validator,
        model=model,
        args=arguments,
        train_dataset=encoded.rows,
        eval_dataset=validation.rows if job.evaluation.enabled else None,
        data_collator=Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    _begin(context, counts, data, asdict(encoded.report), resume[1].step if resume else 0)
    context.say("training", f"training {counts.trainable:,} of {counts.total:,} parameters")
    trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    return _finish(context, trainer, counts, flops, validator)


def training_arguments(context: Context, *, resumed: bool) -> TrainingArguments:
    """The Trainer's arguments. Making them starts DeepSpeed's integration, so this comes before the model."""
    job, t = context.job, context.job.training
    dtype = compute_dtype(job, context.device)
    stage = job.zero_stage
    validated = job.evaluation.enabled
    return TrainingArguments(
        output_dir=str(context.paths.checkpoints),
        max_steps=t.max_steps if t.max_steps is not None else -1,
        num_train_epochs=t.num_train_epochs or 1,
        per_device_train_batch_size=t.per_device_train_batch_size,
        per_device_eval_batch_size=t.per_device_eval_batch_size,
        gradient_accumulation_steps=t.gradient_accumulation_steps,
        gradient_checkpointing=t.gradient_checkpointing,
        learning_rate=t.learning_rate,
        lr_scheduler_type=t.lr_scheduler_type,
        warmup_steps=t.warmup_steps,
        weight_decay=t.weight_decay,
        max_grad_norm=t.max_grad_norm,
        optim=t.optim,
        seed=t.seed,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=context.device.type == "cpu",
        deepspeed=None if stage is None else deepspeed_config(stage, str(dtype).removeprefix("torch.")),
        eval_strategy="epoch" if validated else "no",
        eval_on_start=validated and job.evaluation.before and not resumed,
        save_strategy="epoch" if validated else "no",
        save_total_limit=2,
        metric_for_best_model="eval_loss" if validated else None,
        greater_is_better=False if validated else None,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=t.dataloader_num_workers,
        dataloader_pin_memory=context.device.type == "cuda",
    )


def _flops(job: Job) -> StepFlops | None:
    config = AutoConfig.from_pretrained(
        resolve_model(job.model.name),
        revision=job.model.revision or "main",
        trust_remote_code=job.model.trust_remote_code,
    )
    full = VARIANTS[job.variant].adapter is None
    adapter = None if full else lora_config(job, config.model_type)
    try:
        return training_flops(config, adapter, gradient_checkpointing=job.training.gradient_checkpointing)
    except Exception as error:
        # Code of any architecture runs here on tensors without numbers, and may not stand it. The figure is then
        # absent, which is no reason to stop the job.
        log.warning("the FLOPs of this model cannot be counted: %s", error)
        return None


def wandb_config(job: Job, world_size: int) -> dict[str, Any]:
    """What wandb's tables group by (its short names), and the whole job under its own keys."""
    variant = VARIANTS[job.variant]
    return {
        "model_variant": variant.label,
        "quantization_strategy": variant.strategy,
        "dataset": job.data.dataset,
        "learning_rate": job.training.learning_rate,
        "batch_size": job.training.per_device_train_batch_size,
        "epochs": job.training.num_train_epochs,
        "max_steps": job.training.max_steps,
        "world_size": world_size,
        **flat(job),
    }


def _begin(context: Context, counts: ParameterCount, data: Dataset, report: dict[str, Any], resume_step: int) -> None:
    if context.recorder is None:
        return
    context.recorder.event(
        "start",
        attempt=context.attempt,
        resume_step=resume_step,
        world_size=context.rank.world_size,
        zero_stage=context.job.zero_stage,
        device=str(context.device),
        parameters={"total": counts.total, "trainable": counts.trainable},
        data={"sha256": data.sha256, **report},
    )
    if resume_step:
        log.info("going on from step %d", resume_step)


def _finish(
    context: Context,
    trainer: FineTuner,
    counts: ParameterCount,
    flops: StepFlops | None,
    validator: GenerationValidator | None,
) -> dict[str, Any]:
    paths, state = context.paths, trainer.state
    context.say("finishing", "keeping the model")
    last = int(state.global_step)
    kept = int(state.best_global_step or last) if validator is not None else last
    peak = over_ranks(peak_gb(context.device))
    if validator is None:
        trainer.save_model(str(paths.final_model))
    if context.recorder is None:
        barrier()
        return {}
    if validator is not None:
        copy_model(paths.checkpoints / f"checkpoint-{kept}", paths.final_model)
    else:
        # The Trainer pickles its arguments beside the weights; nobody needs them and nobody should load them.
        (paths.final_model / "training_args.bin").unlink(missing_ok=True)
    artifacts = finish.verify_model(paths.final_model)
    finish.tidy_checkpoints(paths, {kept, last} if validator is not None else set())
    metrics = _summary(context, trainer, counts, flops, peak)
    evaluation: dict[str, Any] | None = None
    if validator is not None:
        scores = _validation_at(paths, kept)
        before = _validation_at(paths, 0)
        metrics |= {f"base/{k.replace('/', '_', 1)}": v for k, v in before.items() if k.startswith("validation/")}
        _keep_predictions(paths, kept)
        metrics |= {f"final/{k.replace('/', '_', 1)}": v for k, v in scores.items() if k.startswith("validation/")}
        evaluation = {
            k.removeprefix("validation/"): v
            for k, v in scores.items()
            if k not in ("epoch", "validation/loss", "validation/seconds", "validation/f1_score")
        }
        evaluation["provenance"] = {"step": kept, "f1_score": "ROUGE-L F1", **validator.provenance}
    finish.write_results(paths, flat(context.job), metrics, evaluation)
    context.recorder.summary(metrics)
    finish.draw(paths)
    if "train/peak_vram_gb" in metrics:
        log.info("Peak Training VRAM: %.2f GB", metrics["train/peak_vram_gb"])
    log.info("Model Size: %.2f GB", metrics["inference/model_size_gb"])
    context.recorder.event("end", step=last, kept_step=kept)
    context.recorder.events.sync()
    finish.mark_done(paths, context.attempt, last, artifacts)
    barrier()
    return metrics


def _summary(
    context: Context, trainer: FineTuner, counts: ParameterCount, flops: StepFlops | None, peak: dict[str, float]
) -> dict[str, Any]:
    done, steps = trainer.progress.run, int(trainer.state.global_step)
    losses = [float(e["loss"]) for e in Run(context.paths.root).events("step")]
    tail = losses[-max(1, len(losses) // 10) :]
    metrics: dict[str, Any] = {
        "train/steps": steps,
        "train/world_size": world_size(),
        "train/first_loss": losses[0],
        "train/final_loss": sum(tail) / len(tail),
        "train/runtime_s": done.seconds,
        "train/throughput_samples_per_sec": done.samples / done.seconds,
        "train/throughput_tokens_per_sec": done.tokens / done.seconds,
        "train/padding_frac": 1 - done.tokens / done.padded_tokens,
        "model/total_params": counts.total,
        "model/trainable_params": counts.trainable,
        "model/trainable_pct": counts.trainable_percent,
        "inference/model_size_gb": folder_size_gb(context.paths.final_model),
        **peak,
    }
    if flops is not None:
        total = flops.total(int(done.padded_tokens), int(done.squares))
        metrics["train/total_training_flops_tflops"] = total / 1e12
        metrics["train/flops_per_step_tflops"] = total / 1e12 / steps
    return metrics


def _validation_at(paths: RunPaths, step: int) -> dict[str, float]:
    """Figures of the validation at a step, of whichever attempt; empty when there was none."""
    found = [e for e in Run(paths.root).events("validation") if e["step"] == step]
    return dict(found[-1]["metrics"]) if found else {}


def _keep_predictions(paths: RunPaths, step: int) -> None:
    """Bring the predictions of a step's validation to the run's top."""
    for number in reversed(paths.attempt_numbers()):
        predictions = paths.attempt(number) / f"predictions-{step}.jsonl"
        if predictions.is_file():
            shutil.copyfile(predictions, paths.predictions)
            return

"""A job as the Trainer's arguments, with what makes it fast where that changes no result."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import TrainingArguments

from hpcft.errors import ConfigError
from hpcft.models.load import compute_dtype
from hpcft.spec.job import Job
from hpcft.train.deepspeed_config import deepspeed_config

log = logging.getLogger(__name__)


def uses_liger(job: Job, device: torch.device) -> bool:
    """Whether Liger's fused Triton kernels (Hsu et al. 2024) are used.

    Raises:
        ConfigError: they were asked for and cannot be had.
    """
    if job.training.liger == "off" or (job.training.liger == "auto" and device.type != "cuda"):
        return False
    there = find_spec("liger_kernel") is not None
    if job.training.liger == "on" and (device.type != "cuda" or not there):
        cause = "the package liger-kernel is not installed" if not there else f"this rank computes on {device.type}"
        raise ConfigError(f"Liger's kernels need CUDA and their package: {cause}", where="training.liger")
    return there


def training_arguments(job: Job, folder: Path, device: torch.device, *, resumed: bool) -> TrainingArguments:
    """The Trainer's arguments. Making them starts DeepSpeed's integration, so this comes before the model.

    Args:
        folder: of the checkpoints.
        resumed: an earlier attempt left a checkpoint, so the base model was validated before.
    """
    t = job.training
    dtype = compute_dtype(job, device)
    validated = job.evaluation.enabled
    arguments = TrainingArguments(
        output_dir=str(folder),
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
        optim="adamw_torch" if t.optim == "adamw_deepspeed" else t.optim,
        seed=t.seed,
        torch_compile=t.torch_compile,
        use_liger_kernel=uses_liger(job, device),
        # At stage 0 DeepSpeed's configuration says it, in its own way.
        bf16=dtype == torch.bfloat16 and job.zero_stage != 0,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        deepspeed=None if job.zero_stage is None else deepspeed_config(job, str(dtype).removeprefix("torch.")),
        eval_strategy="epoch" if validated else "no",
        eval_on_start=validated and job.evaluation.before and not resumed,
        save_strategy="epoch" if validated else "no",
        metric_for_best_model="eval_loss" if validated else None,
        greater_is_better=False if validated else None,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        # Each rank reads a stream itself; sent out by one, all batches would need one shape.
        accelerator_config={"dispatch_batches": False},
        label_names=["labels"],
        dataloader_num_workers=t.dataloader_num_workers,
        dataloader_pin_memory=device.type == "cuda",
    )
    if device.type == "cuda":
        # A rank has one GPU, whatever it sees: the Trainer would spread a rank alone over all of them, with a batch
        # for each.
        arguments._n_gpu = 1
    return arguments

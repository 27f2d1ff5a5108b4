"""What wandb is told of a run."""

from __future__ import annotations

from typing import Any

from hpcft.spec.build import flat
from hpcft.spec.job import Job
from hpcft.spec.variants import STRATEGIES, VARIANTS
from hpcft.tracking.names import artifact_name, run_name

_JOB_TYPES = {"train": "training", "evaluate": "evaluation", "bench": "inference"}


def wandb_config(job: Job, world_size: int) -> dict[str, Any]:
    """What wandb's tables group by (its short names), and the whole job under its own keys."""
    return {**_short_names(job, world_size), **flat(job)}


def _short_names(job: Job, world_size: int) -> dict[str, Any]:
    variant = VARIANTS[job.variant]
    strategy = STRATEGIES[job.quantize.method] if job.variant == "ptq" and job.kind != "train" else variant.strategy
    return {
        "model_variant": variant.label,
        "quantization_strategy": strategy,
        "dataset": job.data.dataset,
        "learning_rate": job.training.learning_rate,
        "batch_size": job.training.per_device_train_batch_size,
        "epochs": job.training.num_train_epochs,
        "max_steps": job.training.max_steps,
        "world_size": world_size,
    }


def wandb_settings(job: Job, run_id: str, world_size: int) -> dict[str, Any]:
    """Arguments of `wandb.init`."""
    return {
        "project": job.tracking.project,
        "entity": job.tracking.entity,
        "id": run_id,
        "name": run_name(VARIANTS[job.variant].label, job.data.dataset, run_id),
        "job_type": _JOB_TYPES.get(job.kind, job.kind),
        "group": job.tracking.group,
        "config": wandb_config(job, world_size),
        "tags": list(job.tracking.tags),
        "notes": job.tracking.notes,
    }


def model_metadata(job: Job, run_name: str) -> tuple[str, dict[str, Any]]:
    """Name and metadata of the artifact that a run's model becomes. The job is one key of the metadata: wandb refuses
    an artifact with more than 100."""
    return artifact_name(VARIANTS[job.variant].label), {
        **_short_names(job, job.world_size),
        "run": run_name,
        "job": flat(job),
    }

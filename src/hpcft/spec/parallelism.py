"""Which ways of dividing a job over ranks work with which variant, and the reason where one does not."""

from __future__ import annotations

from hpcft.spec.job import Job


def refusals(job: Job) -> list[tuple[str, str]]:
    """Pairs of (key, message) for what would fail after hours in the queue."""
    found: list[tuple[str, str]] = []
    t, stage = job.training, job.zero_stage
    if t.offload != "none" and stage in (None, 0):
        found.append(("training.offload", f"offload is a part of ZeRO 1 to 3, and training.zero is {t.zero}"))
    elif t.offload == "all" and stage != 3:
        found.append(("training.offload", f"weights are offloaded by ZeRO 3 alone, and training.zero is {t.zero}"))
    if t.optim == "adamw_deepspeed" and t.offload == "none":
        found.append(("training.optim", "adamw_deepspeed is for offload; set training.offload, or another optim"))
    if job.model.dtype == "float16" and job.resources.accelerator == "cpu":
        message = "float16 is for GPUs; on a CPU it would be computed as something else. Use bfloat16 or float32"
        found.append(("model.dtype", message))
    return found

"""DeepSpeed's configuration for a job; what the Trainer knows better is left to it (`auto`)."""

from __future__ import annotations

from typing import Any

from hpcft.spec.job import Job


def deepspeed_config(job: Job, dtype: str) -> dict[str, Any]:
    """A configuration for the job's ZeRO stage, 0 to 3, and its offload.

    Args:
        job: stage 0 = plain data parallelism in DeepSpeed's engine; 1, 2, 3 = optimizer states, gradients, weights
            divided over the ranks (Rajbhandari et al. 2020); offload keeps them in the host's memory (Ren et al.
            2021).
        dtype: `float32`, `bfloat16` or `float16`.

    No optimizer is named unless the job asks for DeepSpeed's: it would be compiled at its first use, half a minute on
    each node, and the Trainer's is the one that checkpoints were tested with. With offload that one runs on the CPU,
    slower than DeepSpeed's own.
    """
    stage, offload = job.zero_stage, job.training.offload
    zero: dict[str, Any] = {"stage": stage}
    host = {"device": "cpu", "pin_memory": True}
    if offload != "none":
        zero["offload_optimizer"] = host
    if offload == "all":
        zero["offload_param"] = host
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
    if dtype == "bfloat16" and stage == 0:
        # Without partitioning DeepSpeed keeps no float32 weights in bf16, and small updates are lost: measured, the
        # second loss of a LoRA fell by 0.029 instead of 0.041. Autocast keeps them.
        del config["bf16"]
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    if job.training.optim == "adamw_deepspeed":
        given = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")
        config["optimizer"] = {"type": "AdamW", "params": given}
    return config

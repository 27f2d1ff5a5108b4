"""DeepSpeed's configuration for a stage; what the Trainer knows better is left to it (`auto`)."""

from __future__ import annotations

from typing import Any


def deepspeed_config(stage: int, dtype: str) -> dict[str, Any]:
    """A configuration for ZeRO `stage` 0 to 3.

    Args:
        stage: 0 = plain data parallelism in DeepSpeed's engine; 1, 2, 3 = optimizer states, gradients, weights
            divided over the ranks (Rajbhandari et al. 2020).
        dtype: `float32`, `bfloat16` or `float16`.

    No optimizer is named: DeepSpeed would compile its own at the first use, half a minute on each node, and the
    Trainer's is the one that checkpoints were tested with.
    """
    config: dict[str, Any] = {
        "zero_optimization": {"stage": stage},
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
    if stage == 3:
        config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    return config

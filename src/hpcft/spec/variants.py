"""The ways of fine-tuning that a job can name with `variant`, and what each begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Quantization = Literal["none", "nf4", "int8"]
Adapter = Literal[
    "lora",
    "dora",
    "rslora",
    "adalora",
    "ia3",
    "prompt-tuning",
    "p-tuning",
    "prefix-tuning",
    "p-tuning-v2",
    "bitfit",
    "bottleneck",
]

# LoRA and what changes its branch: all of them take the `lora` section.
LORA_LIKE = frozenset(("lora", "dora", "rslora", "adalora"))
# Trained vectors in front of the input, or in front of each layer's keys and values.
PROMPT_LIKE = frozenset(("prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2"))
# Of these, the ones that stand in every layer.
PREFIX_LIKE = frozenset(("prefix-tuning", "p-tuning-v2"))


@dataclass(frozen=True)
class Variant:
    """What a variant's name stands for.

    Attributes:
        label: how wandb's tables call it (`config.model_variant`).
        adapter: the PEFT method, or None when all weights are trained.
        quantization: how the base model's weights are held during training.
        strategy: wandb's `config.quantization_strategy` (`int4`, `int8` or None).
        recipe: job keys and the values that this way of fine-tuning begins with; whatever says something of a key
            wins over it.
    """

    label: str
    adapter: Adapter | None
    quantization: Quantization = "none"
    strategy: Literal["int4", "int8"] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)


VARIANTS: dict[str, Variant] = {
    "full": Variant("Full FT", None),
    "lora": Variant("Full LoRA", "lora"),
    "qlora": Variant("QLoRA", "lora", "nf4", "int4"),
    "lora-int8": Variant("LoRA int8", "lora", "int8", "int8"),
    # Trained as lora is; what quantises it afterwards is a job of its own (`quantize.method`).
    "ptq": Variant("LoRA+PTQ", "lora"),
    "dora": Variant("DoRA", "dora"),
    "rslora": Variant("rsLoRA", "rslora"),
    "adalora": Variant("AdaLoRA", "adalora", recipe={"training.learning_rate": 1e-3}),
    # The fewer numbers are trained, the further each has to go: rates of the methods' papers and of PEFT's examples.
    "ia3": Variant("IA3", "ia3", recipe={"training.learning_rate": 3e-3}),
    "prompt-tuning": Variant("Prompt", "prompt-tuning", recipe={"training.learning_rate": 3e-2}),
    "p-tuning": Variant("P-Tuning", "p-tuning", recipe={"training.learning_rate": 1e-3}),
    "prefix-tuning": Variant("Prefix", "prefix-tuning", recipe={"training.learning_rate": 1e-3}),
    "p-tuning-v2": Variant("P-Tuning-v2", "p-tuning-v2", recipe={"training.learning_rate": 1e-2}),
    "bitfit": Variant("BitFit", "bitfit", recipe={"training.learning_rate": 1e-3}),
    "adapter": Variant("Adapter", "bottleneck", recipe={"training.learning_rate": 1e-3}),
    # All weights of a student; rate and batch as of the earlier plugin.
    "distill": Variant(
        "Distillation",
        None,
        recipe={
            "model.name": "student",
            "training.learning_rate": 1e-4,
            "training.per_device_train_batch_size": 16,
            "training.gradient_accumulation_steps": 1,
        },
    ),
}

# wandb's `config.quantization_strategy` of a model that was quantised after training.
STRATEGIES: dict[str, Literal["int4", "int8"]] = {
    "bnb-int8": "int8",
    "bnb-nf4": "int4",
    "bnb-fp4": "int4",
    "torchao-int8": "int8",
    "torchao-int4": "int4",
    "gptq-int8": "int8",
    "gptq-int4": "int4",
}

"""The ways of fine-tuning that a job can name with `variant`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantization = Literal["none", "nf4", "int8"]


@dataclass(frozen=True)
class Variant:
    """What a variant's name stands for.

    Attributes:
        label: how wandb's tables call it (`config.model_variant`).
        adapter: the PEFT method, or None when all weights are trained.
        quantization: how the base model's weights are held during training.
        strategy: wandb's `config.quantization_strategy` (`int4`, `int8` or None).
    """

    label: str
    adapter: Literal["lora"] | None
    quantization: Quantization
    strategy: Literal["int4", "int8"] | None


VARIANTS: dict[str, Variant] = {
    "full": Variant("Full FT", None, "none", None),
    "lora": Variant("Full LoRA", "lora", "none", None),
    "qlora": Variant("QLoRA", "lora", "nf4", "int4"),
    "lora-int8": Variant("LoRA int8", "lora", "int8", "int8"),
    # Trained as lora is; what quantises it afterwards is a job of its own (`quantize.method`).
    "ptq": Variant("LoRA+PTQ", "lora", "none", None),
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

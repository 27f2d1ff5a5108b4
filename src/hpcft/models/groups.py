"""Which of a model's modules are attention, MLP, embedding and output head, by architecture family.

One table for LoRA's targets and, later, for gradient norms and counts, so that "attention" means the same
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcft.errors import ConfigError
from hpcft.spec.job import LoraSection


@dataclass(frozen=True)
class Family:
    """Module names of one architecture family."""

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    embed: tuple[str, ...]
    lm_head: tuple[str, ...]


_LLAMA = Family(
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    embed=("embed_tokens",),
    lm_head=("lm_head",),
)
# By `config.model_type`.
FAMILIES: dict[str, Family] = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), _LLAMA)


def target_modules(lora: LoraSection, model_type: str) -> list[str]:
    """Names of the modules that get an adapter.

    Args:
        lora: `target_modules` as given, else the modules of `target_module_group`.
        model_type: the base model's `config.model_type`.

    Raises:
        ConfigError: the family is not in the table and no names are given.
    """
    if lora.target_modules is not None:
        return list(lora.target_modules)
    family = FAMILIES.get(model_type)
    if family is None:
        raise ConfigError(
            f"the modules of architecture '{model_type}' are not known",
            where="lora.target_module_group",
            hint=f"name them with --set lora.target_modules=a,b; known: {', '.join(sorted(FAMILIES))}",
        )
    groups = {
        "attention_only": family.attention,
        "mlp_only": family.mlp,
        "both": family.attention + family.mlp,
        "all": family.attention + family.mlp + family.embed + family.lm_head,
    }
    return list(groups[lora.target_module_group])

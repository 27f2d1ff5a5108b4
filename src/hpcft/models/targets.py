"""What of a model each PEFT method works on, and how much it adds, told without loading PEFT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpcft.models.groups import FAMILIES, as_targets, known_family, target_modules
from hpcft.spec.job import Job
from hpcft.spec.variants import LORA_LIKE, PREFIX_LIKE, PROMPT_LIKE, VARIANTS

Targets = list[str] | str

# Lengths of the methods' papers and of PEFT's examples.
_VIRTUAL_TOKENS = {"prompt-tuning": 8, "p-tuning": 10, "prefix-tuning": 20, "p-tuning-v2": 100}


def adapted(job: Job, model_type: str) -> tuple[Targets, Targets]:
    """The modules that the variant's method works on, as PEFT takes them, and those of them whose inputs IA3 scales,
    where it scales the others' outputs. Both are empty for methods that put vectors in front.

    Raises:
        ConfigError: the architecture is not in the table and no modules are named.
    """
    method, named = VARIANTS[job.variant].adapter, job.peft.target_modules
    if method is None or method in PROMPT_LIKE:
        return [], []
    if method in LORA_LIKE:
        return target_modules(job.lora, model_type), []
    if named is not None:
        inner = {name for family in FAMILIES.values() for name in family.mlp} if method == "ia3" else set()
        return list(named), [name for name in named if name in inner]
    family = known_family(model_type, "variant", "peft.target_modules")
    if method == "ia3":
        return as_targets(family.scaled), as_targets(tuple(n for n in family.scaled if n in family.mlp))
    if method == "bitfit":
        return as_targets(family.attention + family.mlp), []
    # The last product of the attention and of the MLP, behind which a bottleneck stands.
    return as_targets((family.attention[-1], family.mlp[-1])), []


def virtual_tokens(job: Job) -> int:
    """Trained vectors in front of the input or of each layer's keys; 0 of other methods."""
    method = str(VARIANTS[job.variant].adapter)
    return (job.peft.virtual_tokens or _VIRTUAL_TOKENS[method]) if method in PROMPT_LIKE else 0


def initial_rank(job: Job) -> int:
    """The rank that AdaLoRA begins with."""
    return math.ceil(job.lora.r * job.peft.initial_rank)


def prompt_size(job: Job, config: Mapping[str, Any]) -> int:
    """Parameters of the vectors in front, and of the network that makes them.

    Args:
        config: the base model's configuration.
    """
    method, tokens = VARIANTS[job.variant].adapter, virtual_tokens(job)
    if not tokens:
        return 0
    hidden, layers = (
        _size(config, "hidden_size", "n_embd", "dim"),
        _size(config, "num_hidden_layers", "n_layer", "n_layers"),
    )
    size = job.peft.encoder_size or hidden
    if method == "prompt-tuning":
        return tokens * hidden
    if method == "p-tuning":
        # Vectors, and three layers: hidden → size → size → hidden.
        return tokens * hidden + (hidden + 1) * size + (size + 1) * size + (size + 1) * hidden
    heads = _size(config, "num_attention_heads", "n_head", "n_heads")
    head = int(config.get("head_dim") or hidden // heads)
    inner = head * int(config.get("num_key_value_heads") or heads)
    if method not in PREFIX_LIKE or method == "p-tuning-v2":
        return tokens * layers * 2 * inner
    return tokens * inner + (inner + 1) * size + (size + 1) * layers * 2 * inner


def _size(config: Mapping[str, Any], *names: str) -> int:
    """A size by the first of the names that families give it."""
    return int(next(config[name] for name in names if config.get(name) is not None))

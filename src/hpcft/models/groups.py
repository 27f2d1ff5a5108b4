"""Which of a model's modules are attention, MLP, embedding and output head, by architecture family.

One table for LoRA's targets, gradient norms and counts, so that "attention" means the same everywhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from hpcft.errors import ConfigError
from hpcft.spec.job import LoraSection

log = logging.getLogger(__name__)

Group = Literal["attention", "mlp", "embed", "lm_head", "other"]
GROUPS: tuple[Group, ...] = ("attention", "mlp", "embed", "lm_head", "other")


@dataclass(frozen=True)
class Family:
    """Module names of one architecture family, each the end of a dotted name, in regular expressions where a plain
    end would fit more than it should.

    Attributes:
        head: of a classifier, which is trained whole beside an adapter.
        scaled: what IA3 scales: keys, values and what goes into the MLP's last product; the method's paper.
        generates: whether the family has models that write text.
        keeps_rows_apart: whether rows laid end to end, with positions that start again at 0 and without a mask, do
            not see each other.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    embed: tuple[str, ...]
    lm_head: tuple[str, ...] = ("lm_head",)
    head: tuple[str, ...] = ("score",)
    scaled: tuple[str, ...] = ()
    generates: bool = True
    keeps_rows_apart: bool = True


_LLAMA = Family(
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    mlp=("gate_proj", "up_proj", "down_proj"),
    embed=("embed_tokens",),
    scaled=("k_proj", "v_proj", "down_proj"),
)
_PHI = Family(
    attention=("q_proj", "k_proj", "v_proj", "dense"),
    mlp=("fc1", "fc2"),
    embed=("embed_tokens",),
    scaled=("k_proj", "v_proj", "fc2"),
)
_PHI3 = Family(
    attention=("qkv_proj", "o_proj"),
    mlp=("gate_up_proj", "down_proj"),
    embed=("embed_tokens",),
    scaled=("qkv_proj", "down_proj"),
)
_GPT2 = Family(
    attention=("attn.c_attn", "attn.c_proj"),
    mlp=("mlp.c_fc", "mlp.c_proj"),
    embed=("wte", "wpe"),
    scaled=("attn.c_attn", "mlp.c_proj"),
)
_NEOX = Family(
    attention=("query_key_value", "attention.dense"),
    mlp=("dense_h_to_4h", "dense_4h_to_h"),
    embed=("embed_in",),
    lm_head=("lm_head", "embed_out"),
    scaled=("query_key_value", "dense_4h_to_h"),
)
_BERT = Family(
    attention=("query", "key", "value", "attention.output.dense"),
    # Not `output.dense`: attention has one of that name too.
    mlp=("intermediate.dense", r"layer\.\d+\.output\.dense"),
    embed=("word_embeddings", "position_embeddings", "token_type_embeddings"),
    lm_head=("cls.predictions.decoder", "lm_head.decoder"),
    head=("classifier",),
    scaled=("key", "value", r"layer\.\d+\.output\.dense"),
    generates=False,
    keeps_rows_apart=False,
)
_DISTILBERT = Family(
    attention=("q_lin", "k_lin", "v_lin", "out_lin"),
    mlp=("lin1", "lin2"),
    embed=("word_embeddings", "position_embeddings"),
    lm_head=("vocab_projector",),
    head=("pre_classifier", "classifier"),
    scaled=("k_lin", "v_lin", "lin2"),
    generates=False,
    keeps_rows_apart=False,
)
_ALBERT = Family(
    attention=("query", "key", "value", "attention.dense"),
    mlp=("ffn", "ffn_output"),
    embed=("word_embeddings", "position_embeddings", "token_type_embeddings", "embedding_hidden_mapping_in"),
    lm_head=("predictions.decoder",),
    head=("classifier",),
    scaled=("key", "value", "ffn_output"),
    generates=False,
    keeps_rows_apart=False,
)
# By `config.model_type`.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2"), _LLAMA),
    "phi": _PHI,
    "phi3": _PHI3,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), _BERT),
    "distilbert": _DISTILBERT,
    "albert": _ALBERT,
}
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|albert_layers)\.(\d+)\.")


def target_modules(lora: LoraSection, model_type: str) -> list[str] | str:
    """The modules that get a LoRA branch, as PEFT takes them: ends of names, or one regular expression.

    Args:
        lora: `target_modules` as given, else the modules of `target_module_group`.
        model_type: the base model's `config.model_type`.

    Raises:
        ConfigError: the family is not in the table and no names are given.
    """
    if lora.target_modules is not None:
        return list(lora.target_modules)
    family = known_family(model_type, "lora.target_module_group", "lora.target_modules")
    # A classifier's head is trained whole, so only a language model's own head is a target.
    rest = family.embed + (family.lm_head if family.generates else ())
    return as_targets(
        {
            "attention_only": family.attention,
            "mlp_only": family.mlp,
            "both": family.attention + family.mlp,
            "all": family.attention + family.mlp + rest,
        }[lora.target_module_group]
    )


def known_family(model_type: str, where: str, key: str) -> Family:
    """An architecture's family.

    Args:
        where: the key that asks for it. key: the key that names modules instead.

    Raises:
        ConfigError: it is not in the table.
    """
    family = FAMILIES.get(model_type)
    if family is None:
        raise ConfigError(
            f"the modules of architecture '{model_type}' are not known",
            where=where,
            hint=f"name them with --set {key}=a,b; known: {', '.join(sorted(FAMILIES))}",
        )
    return family


def as_targets(names: tuple[str, ...]) -> list[str] | str:
    """Names of the table as PEFT takes them: ends of names, or one regular expression for the whole name."""
    if any("\\" in name for name in names):
        return rf"(?:.*\.)?(?:{'|'.join(names)})"
    return list(names)


@cache
def _pattern(model_type: str, group: str) -> re.Pattern[str] | None:
    family = FAMILIES.get(model_type)
    if family is None:
        return None
    names = {
        "attention": family.attention,
        "mlp": family.mlp,
        "embed": family.embed,
        "lm_head": (*family.lm_head, *family.head, "pooler"),
    }[group]
    # What PEFT and a parameter's own name put behind the module.
    own = r"base_layer|modules_to_save|original_module|(?:lora|ia3|beft|bottleneck)_\w+|default"
    tail = rf"(?:\.(?:{own}|weight|bias|dense|out_proj))*"
    return re.compile(rf"(?:.*\.)?(?:{'|'.join(names)}){tail}")


def group_of(name: str, model_type: str) -> Group:
    """The group of a module's or a parameter's dotted name; norms and what no family names are `other`.

    >>> group_of("bert.encoder.layer.3.output.dense.weight", "bert")
    'mlp'
    >>> group_of("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "llama")
    'attention'
    """
    for group in GROUPS[:-1]:
        pattern = _pattern(model_type, group)
        if pattern is not None and pattern.fullmatch(name):
            return group
    return "other"


def layer_of(name: str) -> int | None:
    """The number of the layer that a dotted name lies in, or None.

    >>> layer_of("transformer.h.11.attn.c_attn.weight"), layer_of("lm_head.weight")
    (11, None)
    """
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def warn_of_unknown(names: Iterable[str], model_type: str) -> list[str]:
    """Name the modules that no group takes, so that they are not lost without a word.

    Args:
        names: dotted names of modules with weights of two dimensions.

    Returns:
        The distinct last parts of those in `other`.
    """
    unknown = sorted({name.rpartition(".")[2] for name in names if group_of(name, model_type) == "other"})
    if unknown:
        log.warning("in no group of modules for architecture '%s': %s", model_type, ", ".join(unknown))
    return unknown

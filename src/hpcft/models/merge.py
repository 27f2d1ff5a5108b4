"""Adding an adapter's weights to its base model's, and what tells that nothing was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError

if TYPE_CHECKING:
    import torch

# What puts vectors in front of the input, or a network beside a layer, is no sum of weights.
_NO_SUM = {
    "PROMPT_TUNING": "soft prompts are tokens in front of the input",
    "P_TUNING": "soft prompts are tokens in front of the input",
    "MULTITASK_PROMPT_TUNING": "soft prompts are tokens in front of the input",
    "PREFIX_TUNING": "prefixes are keys and values in front of each layer's own",
    "ADAPTION_PROMPT": "its prompts are gated into the attention",
    "BOTTLENECK": "its networks stand behind the layers",
    "CARTRIDGE": "cartridges are keys and values in front of each layer's own",
}


def check_mergeable(kind: str) -> None:
    """Refuse an adapter that is no change of weights.

    Args:
        kind: PEFT's `peft_type`, such as `LORA`.

    Raises:
        ConfigError: with what to do instead.
    """
    if kind in _NO_SUM:
        raise ConfigError(
            f"an adapter of kind {kind} cannot be merged: {_NO_SUM[kind]}, not a change of weights",
            where="adapter_config.json",
            hint="use it beside its base: hpcft evaluate and hpcft bench take the adapter as it is",
        )


def merged(model: Any) -> Any:
    """The base model with the adapter in its weights; the adapter's layers are gone.

    Raises:
        ConfigError: the weights would hold NaN, or this kind of adapter cannot be merged.
    """
    try:
        return model.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"the adapter cannot be merged: {error}", where="model.name") from error


def compare(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> dict[str, float]:
    """How far two models' answers to the same inputs are apart.

    Args:
        first, second: of each input, logits of shape (positions, vocabulary) or (1, classes).

    Returns:
        `mean_kl` (nats a position, of the first's distribution from the second's), `max_abs_logit_difference`, and
        `same_choice_frac`, the share of positions where both take the same token.
    """
    import torch
    from torch.nn.functional import kl_div, log_softmax

    kl = same = positions = 0.0
    largest = 0.0
    for one, other in zip(first, second, strict=True):
        p, q = log_softmax(one.double(), -1), log_softmax(other.double(), -1)
        kl += float(kl_div(q, p, log_target=True, reduction="sum"))
        same += float((one.argmax(-1) == other.argmax(-1)).sum())
        largest = max(largest, float((one.double() - other.double()).abs().max()))
        positions += one.shape[0]
    found = {
        "mean_kl": kl / positions,
        "max_abs_logit_difference": largest,
        "same_choice_frac": same / positions,
    }
    return {name: value if torch.isfinite(torch.tensor(value)) else float("inf") for name, value in found.items()}


def logits_of(model: Any, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits of each row of tokens by itself, on the CPU: (positions, vocabulary), or (1, classes)."""
    import torch

    device = next(model.parameters()).device
    found = []
    model.eval()
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([list(row)], device=device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().cpu()
            found.append(logits[0] if logits.dim() == 3 else logits)
    return found

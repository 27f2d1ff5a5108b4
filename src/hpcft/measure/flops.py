"""FLOPs of a training step, counted from the operations that the model really does.

A twin of the model is built on the meta device, where tensors have shapes and no numbers, and a step runs on it
under PyTorch's FLOP counter. Its weights are not quantised, since 4-bit layers do the same products and the counter
does not see them; its attention is `eager`, since the counter misses the fused one on CPU.

Conventions: a multiply-add is two FLOPs; attention counts the full square of the sequence, as the reference
implementation computes it; element-wise work is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PretrainedConfig

_SHORT, _LONG, _CHECK = 64, 128, 192


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one sequence of length s: `linear`·s + `quadratic`·s²."""

    linear: int
    quadratic: int

    def of(self, batch: int, length: int) -> int:
        """FLOPs of a batch of sequences padded to one length."""
        return batch * (self.linear * length + self.quadratic * length * length)

    def total(self, padded_tokens: int, squares: int) -> int:
        """FLOPs of any number of batches.

        Args:
            padded_tokens: Σ batch · length.
            squares: Σ batch · length².
        """
        return self.linear * padded_tokens + self.quadratic * squares


def training_flops(
    config: PretrainedConfig,
    peft_config: PeftConfig | None,
    *,
    gradient_checkpointing: bool = False,
    num_labels: int | None = None,
) -> StepFlops:
    """Forward and backward of one training step on the whole model.

    Args:
        config: the base model's; a quantisation in it is ignored.
        peft_config: the adapter, or None when all weights are trained.
        num_labels: classes of a classifier; None for a model that writes text.
        gradient_checkpointing: counts the second forward that it costs.

    Raises:
        ArithmeticError: the count does not follow the two terms of `StepFlops`, as with state-space layers or prompt
            tuning. A model that cannot be run on shapes alone raises what it meets there. Either way the figure does
            not exist, which is no reason to stop a job.
    """
    model = _twin(config, num_labels)
    if peft_config is not None:
        from peft import get_peft_model

        model = get_peft_model(model, peft_config)
    if gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    model.train()
    return _fit(model, backward=True)


def forward_flops(config: PretrainedConfig) -> StepFlops:
    """One forward over a sequence, without a cache."""
    return _fit(_twin(config).eval(), backward=False)


def analytic_forward_flops(config: Any, batch: int, length: int) -> int:
    """Forward of a dense Llama-type decoder by formula, to check the count against.

    Twice the weights of each projection a token, twice heads · head size · length a token for each of the two
    attention products, and the output head at every position (Kaplan et al. 2020, without their approximation).
    """
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    grouped = config.num_key_value_heads
    projections = hidden * head * heads * 2 + hidden * head * grouped * 2 + 3 * hidden * inner
    attention = 2 * heads * head * length
    per_token = config.num_hidden_layers * (2 * projections + 2 * attention) + 2 * hidden * config.vocab_size
    return batch * length * per_token


def _twin(config: PretrainedConfig, num_labels: int | None = None) -> Any:
    import copy

    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    plain = copy.deepcopy(config)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    plain.use_cache = False
    loader: Any = AutoModelForCausalLM
    if num_labels is not None:
        loader, plain.num_labels = AutoModelForSequenceClassification, num_labels
        # Without one, the head of a decoder would look for the last token that is no padding, among no numbers.
        plain.pad_token_id = None
    with torch.device("meta"):
        return loader.from_config(plain, attn_implementation="eager")


def _fit(model: Any, *, backward: bool) -> StepFlops:
    short, long, check = (_count(model, length, backward) for length in (_SHORT, _LONG, _CHECK))
    # linear·s + quadratic·s² through two points, in whole numbers, and a third one to see that it is so.
    quadratic, rest = divmod(_SHORT * long - _LONG * short, _SHORT * _LONG * (_LONG - _SHORT))
    linear, more = divmod(short - quadratic * _SHORT * _SHORT, _SHORT)
    flops = StepFlops(linear, quadratic)
    if rest or more or flops.of(1, _CHECK) != check:
        raise ArithmeticError("the FLOPs of this model are not linear plus quadratic in the sequence length")
    return flops


def _count(model: Any, length: int, backward: bool) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros((1, length), dtype=torch.long, device="meta")
    # What mixtures of experts multiply with, which the counter does not know and older versions of torch have not.
    grouped = getattr(torch.ops.aten, "_grouped_mm", None)
    counter = FlopCounterMode(display=False, custom_mapping={grouped: _grouped_mm_flops} if grouped else None)
    with counter:
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if backward:
            output.logits.sum().backward()
    model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def _grouped_mm_flops(left: Any, right: Any, *_: Any, **__: Any) -> int:
    """Shapes (rows, inner) and (groups, inner, columns), each row multiplied with its own group's matrix; or, for the
    gradient of the weights, (rows, inner) and (inner, columns), where the groups divide the inner dimension."""
    rows, inner = left
    return int(2 * rows * inner * right[-1])

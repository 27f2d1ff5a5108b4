"""FLOPs of a training step, counted from the operations that the model really does.

A twin of the model is built on the meta device, where tensors have shapes and no numbers, and a step runs on it
under PyTorch's FLOP counter. Its weights are not quantised, since 4-bit layers do the same products and the counter
does not see them; its attention is `eager`, since the fused one computes the scores again in its backward, which is
no work that the step asks for, and older counters miss it on CPU.

Conventions: a multiply-add is two FLOPs; attention counts the full square of the sequence, as the reference
implementation computes it; element-wise work, to which rotary positions and norms belong, is not counted.

`fvcore_flops` counts a loaded model by another way, which tests and `benchmarks/flops.py` hold against this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcft.models.groups import FAMILIES
from hpcft.models.load import undivided

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig
    from transformers import PretrainedConfig

_STEP = 64
# Lengths that are counted; those between follow from them.
_LENGTHS = tuple(n * _STEP for n in (1, 2, 3, 4))


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one sequence of length s: `constant` + `linear`·s + `quadratic`·s². The constant is what a classifier
    does once a sequence."""

    linear: int
    quadratic: int
    constant: int = 0

    def of(self, batch: int, length: int) -> int:
        """FLOPs of a batch of sequences padded to one length."""
        return batch * (self.constant + self.linear * length + self.quadratic * length * length)

    def total(self, padded_tokens: int, squares: int, sequences: int = 0) -> int:
        """FLOPs of any number of batches.

        Args:
            padded_tokens: Σ batch · length.
            squares: Σ batch · length².
            sequences: Σ batch.
        """
        return self.constant * sequences + self.linear * padded_tokens + self.quadratic * squares

    def __add__(self, other: StepFlops) -> StepFlops:
        return StepFlops(self.linear + other.linear, self.quadratic + other.quadratic, self.constant + other.constant)


@dataclass(frozen=True)
class TrainingFlops:
    """What a training step consists of.

    Attributes:
        forward: the pass whose loss is taken.
        backward: the gradients; of a frozen base, of its activations alone.
        recomputation: activations that checkpointing threw away and computes again; no useful work, so that a
            utilisation of the model (MFU) leaves it out and one of the hardware (HFU) does not.
    """

    forward: StepFlops
    backward: StepFlops
    recomputation: StepFlops

    @property
    def whole(self) -> StepFlops:
        """All of it."""
        return self.forward + self.backward + self.recomputation


def training_parts(
    config: PretrainedConfig,
    peft_config: PeftConfig | None,
    *,
    gradient_checkpointing: bool = False,
    num_labels: int | None = None,
) -> TrainingFlops:
    """One training step on the whole model, in its parts.

    Args:
        config: the base model's; a quantisation in it is ignored.
        peft_config: the adapter, or None when all weights are trained.
        num_labels: classes of a classifier; None for a model that writes text.
        gradient_checkpointing: counts the second forward that it costs.

    Raises:
        ArithmeticError: the count does not follow the terms of `StepFlops`, as with state-space layers. A model that
            cannot be run on shapes alone raises what it meets there. Either way the figure does not exist, which is
            no reason to stop a job.
    """
    model = _with(twin(config, num_labels), peft_config).train()
    if gradient_checkpointing:
        # Without it a frozen base's first layers would have no gradient, and reentrant checkpoints none at all.
        model.enable_input_require_grads()
    counts = [_count(model, length, backward=True) for length in _LENGTHS]
    forward, step = (_fit(part) for part in zip(*counts, strict=True))
    backward = _difference(step, forward)
    if not gradient_checkpointing:
        return TrainingFlops(forward, backward, StepFlops(0, 0))
    model.gradient_checkpointing_enable()
    again = _fit([_count(model, length, backward=True)[1] for length in _LENGTHS])
    return TrainingFlops(forward, backward, _difference(again, step))


def _difference(whole: StepFlops, part: StepFlops) -> StepFlops:
    return StepFlops(whole.linear - part.linear, whole.quadratic - part.quadratic, whole.constant - part.constant)


def forward_flops(
    config: PretrainedConfig, num_labels: int | None = None, adapter: PeftConfig | None = None
) -> StepFlops:
    """One forward over a sequence, without a cache."""
    return _forward(_with(twin(config, num_labels), adapter))


@dataclass(frozen=True)
class QueryFlops:
    """FLOPs of answering one prompt with a cache of keys and values.

    Attributes:
        forward: of a pass that gives the logits of its last position alone, as generation does; its constant is the
            output head.

    A cache that forgets what is outside of a sliding window, and one of fixed length, whose unused places are
    multiplied too, differ from this once the window or the length matters.
    """

    forward: StepFlops

    def of(self, prompt_tokens: int, new_tokens: int) -> int:
        """A prompt's pass, which gives the first new token, and one pass a token for the others, each of which
        attends to all that stands before it and to itself. Without a new token there is no pass but the prompt's."""
        per_token = self.forward.constant + self.forward.linear
        further = max(new_tokens - 1, 0)
        keys = further * prompt_tokens + further * (further + 1) // 2
        return self.forward.of(1, prompt_tokens) + further * per_token + self.forward.quadratic * keys


def query_flops(config: PretrainedConfig, adapter: PeftConfig | None = None) -> QueryFlops:
    """FLOPs of a query to a model that writes text.

    Raises:
        ArithmeticError, or what the model's own code meets on shapes alone: as `training_parts`; also for virtual
            tokens, which stand in the cache and in no prompt.
    """
    if adapter is not None and adapter.is_prompt_learning:
        raise ArithmeticError("the FLOPs of a query with virtual tokens are not those of its own tokens")
    return QueryFlops(_forward(_with(twin(config), adapter), logits_to_keep=1))


def head_flops(config: PretrainedConfig) -> int:
    """FLOPs of the output head at one position.

    Raises:
        ArithmeticError, or what the model's own code meets on shapes alone: as `training_parts`.
    """
    return query_flops(config).forward.constant


def _with(model: Any, adapter: PeftConfig | None) -> Any:
    if adapter is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, adapter)


def analytic_forward_flops(
    config: Any, batch: int, length: int, *, adapter: LoraConfig | None = None, num_labels: int | None = None
) -> int:
    """Forward of a dense Llama-type decoder by formula, to check the count against.

    Twice the weights of each projection a token, twice heads · head size · length a token for each of the two
    attention products, and the output head at every position (Kaplan et al. 2020, without their approximation). A
    LoRA branch of rank r on a projection of a inputs and b outputs adds 2r(a + b) a token (Hu et al. 2022). Weights
    of 4 or 8 bits multiply as often as others.

    Args:
        config: of a Llama-type model.
        adapter: with `target_modules` by their plain names, such as `q_proj`.
        num_labels: classes of a classifier, whose head stands where the output head does.
    """
    shapes = _projections(config)
    per_layer = sum(a * b for a, b in shapes.values())
    if adapter is not None:
        per_layer += sum(adapter.r * sum(shapes[name]) for name in adapter.target_modules or ())
    attention = 2 * shapes["q_proj"][1] * length
    outputs = config.vocab_size if num_labels is None else num_labels
    per_token = config.num_hidden_layers * (per_layer + attention) + config.hidden_size * outputs
    return int(2 * batch * length * per_token)


def _projections(config: Any) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the projections of a Llama-type layer."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    queries, keys = heads * head, config.num_key_value_heads * head
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def twin(config: PretrainedConfig, num_labels: int | None = None, attention: str = "eager") -> Any:
    """The model in float32 on the meta device, where tensors have shapes and no numbers.

    Args:
        config: a quantisation in it is ignored.
        num_labels: classes of a classifier; None for a model that writes text.
        attention: its implementation.
    """
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
        if not _reads_only(config):
            # Without one, a decoder's head does not look for the last token that is no padding, among no numbers.
            plain.pad_token_id = None
    with torch.device("meta"), undivided():
        return loader.from_config(plain, attn_implementation=attention)


def _reads_only(config: PretrainedConfig) -> bool:
    family = FAMILIES.get(config.model_type)
    return family is not None and not family.generates


def _forward(model: Any, **options: Any) -> StepFlops:
    model.eval()
    return _fit([_count(model, length, backward=False, **options)[0] for length in _LENGTHS])


def _fit(counts: Sequence[int]) -> StepFlops:
    """The terms that give the counts of `_LENGTHS`: a polynomial of the second degree through three points, in whole
    numbers, and a fourth one to see that it is so."""
    one, two, three, four = counts
    quadratic, rest = divmod(three - 2 * two + one, 2 * _STEP * _STEP)
    linear, more = divmod(two - one - 3 * _STEP * _STEP * quadratic, _STEP)
    flops = StepFlops(linear, quadratic, one - linear * _STEP - quadratic * _STEP * _STEP)
    if rest or more or flops.constant < 0 or flops.of(1, 4 * _STEP) != four:
        raise ArithmeticError("the FLOPs of this model are not linear plus quadratic in the sequence length")
    return flops


def _count(model: Any, length: int, *, backward: bool, **options: Any) -> tuple[int, int]:
    """FLOPs of a forward, and of the whole step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros((1, length), dtype=torch.long, device="meta")
    # What mixtures of experts multiply with, which the counter does not know and older versions of torch have not.
    grouped = getattr(torch.ops.aten, "_grouped_mm", None)
    counter = FlopCounterMode(display=False, custom_mapping={grouped: _grouped_mm_flops} if grouped else None)
    with counter:
        # Some models look into a mask, others look at positions where there is none: at numbers that are not there.
        mask = None if _reads_only(model.config) else torch.ones_like(ids)
        output = model(input_ids=ids, attention_mask=mask, **options)
        forward = int(counter.get_total_flops())
        if backward:
            output.logits.sum().backward()
    model.zero_grad(set_to_none=True)
    return forward, int(counter.get_total_flops())


def _grouped_mm_flops(left: Any, right: Any, *_: Any, **__: Any) -> int:
    """Shapes (rows, inner) and (groups, inner, columns), each row multiplied with its own group's matrix; or, for the
    gradient of the weights, (rows, inner) and (inner, columns), where the groups divide the inner dimension."""
    rows, inner = left
    return int(2 * rows * inner * right[-1])

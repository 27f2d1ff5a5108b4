"""How much memory a training job needs on each GPU and on each node, part by part, before it is submitted.

Weights, gradients and optimizer states follow from the number of parameters and the ZeRO stage (Rajbhandari et al.
2020, section 3); activations are counted on the model's twin (`activations`). What only a real machine shows, such as
a CUDA context and fragmentation, is a range. GB means 1024³ bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hpcft.cluster.gpus import computes_bfloat16
from hpcft.measure.activations import Held, Shape
from hpcft.models.shapes import Weights
from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS

GB = 1024**3
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Elements of DeepSpeed's gradient bucket, and of the weights that ZeRO-3 keeps gathered (DeepSpeed's defaults).
_BUCKET = 500_000_000
_PREFETCH = 50_000_000
_MOST_LIVE = 1_000_000_000
# Of NF4: numbers that share a constant of 8 bits, and constants that share one of 32 (Dettmers et al. 2023).
_BLOCK, _CONSTANTS = 64, 256

Verdict = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Part:
    """A part of the memory, in bytes; `how` says where the figure is from."""

    name: str
    low: float
    high: float
    how: str


@dataclass(frozen=True)
class Target:
    """What a rank computes on.

    Attributes:
        device: `cuda` or `cpu`, where a rank's tensors are in the host's memory.
        fused_loss: Liger's kernels are used.
    """

    device: Literal["cuda", "cpu"]
    fused_loss: bool = False


@dataclass(frozen=True)
class Estimate:
    """What one rank needs at its fullest moment.

    Attributes:
        moment: `step` (forward and backward), `update` (the optimizer) or `validation`.
        parts: they add up to `low` and `high`.
        tensors: of them those that hold tensors; the peak that a run reports is of these on a GPU.
    """

    moment: str
    parts: tuple[Part, ...]
    tensors: tuple[str, ...]

    @property
    def low(self) -> float:
        """Bytes, at least."""
        return sum(part.low for part in self.parts)

    @property
    def high(self) -> float:
        """Bytes, at most."""
        return sum(part.high for part in self.parts)

    @property
    def middle(self) -> float:
        """Bytes, between."""
        return (self.low + self.high) / 2

    def of_tensors(self) -> float:
        """Bytes of tensors alone, between."""
        return sum((p.low + p.high) / 2 for p in self.parts if p.name in self.tensors)


def arithmetic(job: Job, target: Target) -> str:
    """The name of the arithmetic's type, as `models.load.compute_dtype` will choose it."""
    if job.model.dtype != "auto":
        return job.model.dtype
    half = target.device == "cuda" and computes_bfloat16(job.resources.gpu_type)
    return "bfloat16" if half else "float32"


def step_shape(job: Job, target: Target) -> Shape:
    """The shape of the job's training step on one rank."""
    variant, compute = VARIANTS[job.variant], arithmetic(job, target)
    half = compute != "float32"
    engine_casts = half and job.zero_stage is not None and job.zero_stage > 0
    base = compute if variant.adapter or engine_casts else "float32"
    # PEFT prepares a quantised model by making the weights that are not quantised float32; DeepSpeed's engine in half
    # precision makes all of them its own type again.
    rest = "float32" if variant.quantization != "none" and not engine_casts else base
    return Shape(
        rows=job.training.per_device_train_batch_size,
        length=job.data.max_length,
        eval_rows=job.training.per_device_eval_batch_size if job.evaluation.enabled else 0,
        checkpointing=job.training.gradient_checkpointing,
        fused_loss=target.fused_loss,
        compute=compute,
        base=base,
        rest=rest,
        trained=compute if engine_casts else "float32",
        autocast=half and not engine_casts,
        gpu=target.device == "cuda",
    )


def estimate(job: Job, weights: Weights, target: Target, held: Held | None, teacher: Weights | None = None) -> Estimate:
    """What a rank of a training job needs.

    Args:
        weights: the model's.
        held: what a step holds besides; without it the estimate is a lower bound.
        teacher: the weights of the one that a distillation learns from.
    """
    shape = step_shape(job, target)
    fixed = [*_weights(job, weights, shape), *_optimizer(job, weights)]
    if teacher is not None and not job.distill.cache:
        fixed.append(_teacher(job, teacher, target))
    gradients = _gradients(job, weights, shape)
    buffers = _buffers(job, weights, shape, target)
    update = _update(job, weights)
    moments: dict[str, list[Part]] = {"update": [*fixed, *gradients, *update]}
    if held is not None:
        moments["step"] = [*fixed, *buffers, *_step(job, held, gradients)]
        if held.validation:
            moments["validation"] = [*fixed, _count_of("validation batch", held.validation)]
    # A batch is there in every step; it is named where nothing is fuller.
    fullest = max(reversed(moments), key=lambda name: sum(part.high for part in moments[name]))
    parts = [part for part in moments[fullest] if part.high]
    tensors = tuple(part.name for part in parts)
    return Estimate(fullest, (*parts, *_machine(parts, job, target)), tensors)


def _weights(job: Job, weights: Weights, shape: Shape) -> list[Part]:
    """Weights and quantisation constants."""
    variant, full = VARIANTS[job.variant], VARIANTS[job.variant].adapter is None
    share = job.world_size if job.zero_stage == 3 else 1
    base, rest, trained = _BYTES[shape.base], _BYTES[shape.rest], _BYTES[shape.trained]
    constants = 0.0
    if variant.quantization == "nf4":
        matrices = weights.linear / 2
        constants = weights.linear / _BLOCK + 4 * weights.linear / (_BLOCK * _CONSTANTS)
    elif variant.quantization == "int8":
        matrices, constants = float(weights.linear), 4.0 * weights.rows
    else:
        matrices = float(base * weights.linear)
    divided = "" if share == 1 else f", divided over {share} ranks (ZeRO 3)"
    bits = {"nf4": "4 bits", "int8": "8 bits", "none": shape.base}[variant.quantization]
    total = matrices + rest * weights.rest
    parts = [_exactly("weights", total / share, f"{weights.base:,} parameters, matrices in {bits}{divided}")]
    if constants:
        parts.append(_exactly("quantisation constants", constants / share, "one for each block or row"))
    if not full:
        own = trained * (weights.adapter + weights.head) / share
        parts.append(_exactly("adapter", own, f"{weights.trainable(full):,} parameters in {shape.trained}"))
    return parts


def _teacher(job: Job, weights: Weights, target: Target) -> Part:
    """A teacher that answers while its student is trained. Its logits are not told apart: beside the student's own
    and their gradient they take what the model's own loss would, which the activations count."""
    held, compute = job.distill.teacher_quantization, arithmetic(job, target)
    each, share = _BYTES[compute], job.world_size if job.zero_stage == 3 and held == "none" else 1
    matrices = weights.linear * {"none": float(each), "8bit": 1.0, "4bit": 0.5 + 1 / _BLOCK}[held]
    divided = "" if share == 1 else f", divided over {share} ranks (ZeRO 3)"
    how = f"{weights.base:,} parameters, matrices in {held if held != 'none' else compute}{divided}"
    return _exactly("teacher", (matrices + each * weights.rest) / share, how)


def _optimizer(job: Job, weights: Weights) -> list[Part]:
    """Adam's two moments, and the float32 weights that DeepSpeed updates beside its own (ZeRO 1 to 3)."""
    if job.training.offload != "none":
        return []
    number, share = _trainable(job, weights), _partitions(job)
    each = _moment_bytes(job)
    divided = "" if share == 1 else f", divided over {share} ranks"
    parts = [_exactly("optimizer states", each * number / share, f"{each} bytes a trained parameter{divided}")]
    if job.zero_stage:
        parts.append(_exactly("float32 weights", 4 * number / share, f"DeepSpeed's own copy{divided}"))
    return parts


def _moment_bytes(job: Job) -> int:
    return 2 if "8bit" in job.training.optim else 8


def _gradients(job: Job, weights: Weights, shape: Shape) -> list[Part]:
    number, stage = _trainable(job, weights), job.zero_stage or 0
    each = _BYTES[shape.trained if VARIANTS[job.variant].adapter else shape.base]
    share = job.world_size if stage >= 2 else 1
    if stage >= 2 and job.training.offload != "none":
        return []
    divided = f", divided over {share} ranks" if share > 1 else ""
    return [_exactly("gradients", each * number / share, f"{each} bytes a trained parameter{divided}")]


def _step(job: Job, held: Held, gradients: list[Part]) -> list[Part]:
    """Activations and gradients at the fullest moment of a step.

    The first batch of a step meets no gradients: they grow while the activations are given back. The further batches
    of an accumulation meet all of them.
    """
    own = sum(part.high for part in gradients)
    activations = _count_of("activations", held.activations, held)
    if job.training.gradient_accumulation_steps > 1 or not gradients:
        return [*gradients, activations]
    together = held.with_gradients if (job.zero_stage or 0) < 2 else held.activations
    meanwhile = max(0.0, min(own, together - held.activations))
    return [Part(gradients[0].name, meanwhile, own, gradients[0].how), activations]


def _count_of(name: str, size: float, held: Held | None = None) -> Part:
    of = f", {held.logits / GB:.2f} GB of them logits" if held is not None and held.logits else ""
    # Kernels work in something of their own; measured on CPU it is next to nothing, a GPU may take a tenth.
    return Part(name, size, 1.1 * size, f"counted on the twin{of}")


def _buffers(job: Job, weights: Weights, shape: Shape, target: Target) -> list[Part]:
    """A matrix that is unpacked for its product, what DeepSpeed sends through, and the weights that ZeRO-3 gathers."""
    stage, variant = job.zero_stage, VARIANTS[job.variant]
    parts: list[Part] = []
    if variant.quantization != "none":
        parts.append(
            _exactly("one matrix unpacked", weights.largest_linear * _BYTES[shape.compute], "while it is used")
        )
    if stage is None:
        return parts
    number, each = _trainable(job, weights), _BYTES[shape.trained if variant.adapter else shape.base]
    # The bucket is reserved whole; the host's memory is only taken where it is written to.
    filled = min(_BUCKET, number) if target.device == "cpu" or stage == 0 else _BUCKET
    buckets = 2 if stage == 3 else 1
    parts.append(_exactly("gradient bucket", buckets * filled * each, f"{buckets} × {filled:,} elements, DeepSpeed's"))
    if stage == 3 and job.world_size > 1:
        size = _BYTES[shape.base]
        low = min(weights.base, 2 * weights.largest) * size
        high = (min(weights.base, _MOST_LIVE) + min(weights.base, _PREFETCH)) * size
        parts.append(Part("gathered weights", low, high, "two matrices, up to 10⁹ elements (ZeRO 3)"))
    return parts


def _update(job: Job, weights: Weights) -> list[Part]:
    """What the optimizer's step needs for itself."""
    number, share = _trainable(job, weights), _partitions(job)
    if job.training.offload != "none":
        return []
    if job.zero_stage:
        return [_exactly("float32 gradients", 4 * number / share, "of the rank's own part, for the update")]
    if job.training.optim == "adamw_torch":
        return [Part("the update's own", 0, 4 * number, "adamw_torch works on all weights at once")]
    return []


def _machine(parts: Iterable[Part], job: Job, target: Target) -> list[Part]:
    """What is no tensor."""
    tensors = sum(part.high for part in parts)
    if target.device == "cpu":
        libraries = Part("Python and its libraries", 0.9 * GB, 1.5 * GB, "measured: torch, transformers, PEFT, data")
        if job.zero_stage is not None:
            libraries = Part(libraries.name, 1.0 * GB, 1.8 * GB, f"{libraries.how}, DeepSpeed")
        # benchmarks/fit.py: what malloc keeps of freed activations was 2 to 28 % of the tensors.
        return [libraries, Part("fragmentation", 0, 0.30 * tensors, "measured: up to 30 % that malloc keeps")]
    several = 0.6 * GB if job.world_size > 1 else 0
    return [
        Part("CUDA context", 0.4 * GB, 1.0 * GB + several, "assumed: driver, kernels, cuBLAS, NCCL with several ranks"),
        Part("fragmentation", 0.02 * tensors, 0.12 * tensors, "assumed: 2 to 12 %"),
    ]


def host(job: Job, weights: Weights, rank: Estimate, target: Target) -> list[Part]:
    """What a node needs in its own memory, for all of its ranks."""
    ranks = job.resources.gpus_per_node
    workers = ranks * job.training.dataloader_num_workers
    readers = Part("data loader", 0.05 * GB * workers, 0.5 * GB * workers, f"assumed: {workers} processes")
    if target.device == "cpu":
        return [
            Part(f"{ranks} rank(s)", ranks * rank.low, ranks * rank.high, "as above"),
            *([readers] if workers else []),
        ]
    shape = step_shape(job, target)
    # Each rank reads the weights in their own type before they are on its GPU; the pages of the file are shared.
    matrices = weights.base * _BYTES[shape.base]
    whole = 1 if VARIANTS[job.variant].quantization == "none" else 0.25
    loading = Part("loading the model", 0.05 * matrices * ranks, whole * matrices * ranks, "each rank, before its GPU")
    parts = [
        Part("Python and its libraries", 1.5 * GB * ranks, 4.0 * GB * ranks, "assumed: 1.5 to 4 GB a rank with CUDA"),
        loading,
    ]
    if job.training.offload != "none":
        number = _trainable(job, weights) / job.world_size
        moved = (4 + _moment_bytes(job) + 4) * number * ranks
        parts.append(Part("offloaded optimizer", moved, 1.1 * moved, "states, weights and gradients in float32"))
    if job.training.offload == "all":
        moved = matrices * ranks / job.world_size
        parts.append(Part("offloaded weights", moved, 1.1 * moved, "this node's part"))
    return [*parts, *([readers] if workers else [])]


def checkpoint_bytes(job: Job, weights: Weights, target: Target) -> float:
    """Size of one checkpoint on disk: the kept weights, and what the optimizer needs to go on."""
    number, shape = _trainable(job, weights), step_shape(job, target)
    kept = number * _BYTES[shape.trained if VARIANTS[job.variant].adapter else shape.base]
    master = 4 * number if job.zero_stage else 0
    whole = kept if job.zero_stage in (0, 3) else 0
    return kept + _moment_bytes(job) * number + master + whole


def disk_bytes(job: Job, weights: Weights, target: Target) -> float:
    """What a run writes: the best checkpoint, the last and the one that is being written, and the kept model."""
    if job.kind != "train":
        return 0.0
    shape = step_shape(job, target)
    kept = _trainable(job, weights) * _BYTES[shape.trained if VARIANTS[job.variant].adapter else shape.base]
    return 3 * checkpoint_bytes(job, weights, target) + kept


def verdict(low: float, high: float, capacity: float | None) -> Verdict:
    """Whether something fits, from its range and the room there is; all of one unit."""
    if capacity is None:
        return "unknown"
    if high <= capacity:
        return "fits"
    return "tight" if low <= capacity else "does not fit"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The one that decides: what does not fit somewhere does not fit."""
    order: list[Verdict] = ["does not fit", "tight", "unknown", "fits"]
    return min(verdicts, key=order.index)


def _trainable(job: Job, weights: Weights) -> int:
    return weights.trainable(VARIANTS[job.variant].adapter is None)


def _partitions(job: Job) -> int:
    return job.world_size if job.zero_stage else 1


def _exactly(name: str, size: float, how: str) -> Part:
    return Part(name, size, size, how)

"""The job: one typed tree that says everything a run needs to know.

Names are those of the field (`per_device_train_batch_size`, `lora_alpha`); defaults are those of the LoRA
sensitivity study that this tool continues, so `hpcft submit` with a model and a data set gives its runs.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hpcft.spec.identifiers import identifier_fault, path_fault
from hpcft.spec.variants import NOT_YET, VARIANTS


def _identifier(text: str) -> str:
    if fault := identifier_fault(text):
        raise ValueError(f"{_short(text)} {fault}")
    return text


def _path(text: str) -> str:
    if fault := path_fault(text):
        raise ValueError(f"{_short(text)} {fault}")
    return text


def _reference(text: str) -> str:
    """A model, a data set: a name, a hub id or a path, without control characters."""
    if not text.strip():
        raise ValueError("is empty")
    if len(text) > 1024 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"{_short(text)} is longer than 1024 characters or has control characters in it")
    if any(len(part.encode("utf-8", "replace")) > 255 for part in text.split("/")):
        raise ValueError(f"{_short(text)} has a part longer than the 255 bytes that a file's name may have")
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


_TIME = re.compile(r"(?:(?P<d>\d{1,3})-)?(?P<a>\d{1,5})(?::(?P<b>\d{1,2}))?(?::(?P<c>\d{1,2}))?")


def parse_time(text: str | int) -> int:
    """Seconds in a Slurm time: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.

    >>> parse_time("04:00:00"), parse_time("1-12"), parse_time(30), parse_time("90:30")
    (14400, 129600, 1800, 5430)
    """
    match = _TIME.fullmatch(str(text).strip())
    if not match:
        raise ValueError(f"{_short(str(text))} is not a time such as 30 (minutes), 04:00:00 or 1-12:00:00")
    days, a, b, c = (None if g is None else int(g) for g in match.group("d", "a", "b", "c"))
    if days is not None:
        seconds = days * 86400 + (a or 0) * 3600 + (b or 0) * 60 + (c or 0)
    elif c is not None:
        seconds = (a or 0) * 3600 + (b or 0) * 60 + c
    else:
        seconds = (a or 0) * 60 + (b or 0)
    if seconds == 0:
        raise ValueError("a time of zero leaves nothing to run in")
    return seconds


def _slurm_time(value: Any) -> str:
    seconds = parse_time(value)
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


Identifier = Annotated[str, AfterValidator(_identifier)]
ScriptPath = Annotated[str, AfterValidator(_path)]
Reference = Annotated[str, AfterValidator(_reference)]
SlurmTime = Annotated[str, BeforeValidator(_slurm_time)]


def _stage(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


ZeroStage = Annotated[Literal["auto", 0, 1, 2, 3], BeforeValidator(_stage)]


def _variant(name: str) -> str:
    if name in NOT_YET:
        raise ValueError(NOT_YET[name])
    if name not in VARIANTS:
        near = get_close_matches(name, VARIANTS, n=1, cutoff=0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown variant {_short(name)}: it is one of {', '.join(VARIANTS)}{guess}")
    return name


class Section(BaseModel):
    """Base of all sections: an unknown key is an error, never ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, protected_namespaces=(), allow_inf_nan=False
    )


class ModelSection(Section):
    """The base model."""

    name: Reference = Field(
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
        description="hub id, local folder, or 'quickstart' (a small model made on this machine)",
    )
    revision: Reference | None = Field(None, description="commit, tag or branch of a hub model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="weights and arithmetic; auto: bfloat16 where it is fast, else float32"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model; needs revision")
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="auto: FlashAttention on CUDA where it is installed, else SDPA, else eager"
    )
    num_labels: int | None = Field(
        None, ge=2, le=100_000, description="classes of a classifier; counted in the data when absent"
    )


class DataSection(Section):
    """Training and validation data."""

    dataset: Reference = Field("e2e_nlg", description="name, hub id or path of a CSV, TSV, JSONL or JSON file")
    mix: list[Reference] = Field(
        default_factory=list,
        description="several sets as one, each `path` or `name=path`; dataset is then the name of the whole",
    )
    validation: Reference | None = Field(None, description="a validation set of its own; nothing is split off then")
    subset: Reference | None = Field(None, description="configuration of a hub data set, such as sst2 of glue")
    revision: Reference | None = Field(None, description="commit, tag or branch of a hub data set")
    task: Literal["auto", "generation", "classification", "qa"] = Field(
        "auto", description="what the rows ask for; auto: guessed from their columns"
    )
    input_column: Reference | None = Field(None, description="column of the source; guessed for known sets")
    context_column: Reference | None = Field(
        None, description="column with what the source is about: a passage, an input, a second sentence"
    )
    target_column: Reference | None = Field(
        None, description="column of the target: text, label or accepted answers; guessed for known sets"
    )
    prompt: Literal["auto", "e2e", "summarize", "instruction", "question", "chat", "plain"] = Field(
        "auto", description="the prompt of training and evaluation alike"
    )
    train_samples: int = Field(500, ge=0, description="training rows, 0 = all")
    eval_samples: int = Field(100, ge=1, description="distinct validation inputs that are answered and scored")
    validation_split: float = Field(0.2, gt=0, lt=1, description="share of distinct inputs kept for validation")
    split_seed: int | None = Field(None, ge=0, lt=2**32, description="of the split; training.seed when absent")
    max_length: int = Field(128, ge=8, le=1_048_576, description="tokens, prompt and target together")
    packing: Literal["auto", "off", "batch", "full"] = Field(
        "auto",
        description="batch: the rows of a batch laid end to end, no padding, the same loss; full: rows packed into "
        "windows of max_length, so a batch holds more of them; auto: batch where the model keeps rows apart",
    )
    streaming: bool = Field(
        False, description="read rows while training, for what does not fit; needs max_steps and data.validation"
    )


class LoraSection(Section):
    """LoRA's shape; its effective scale is lora_alpha / r."""

    r: int = Field(8, ge=1, le=4096, description="rank of the adapter")
    lora_alpha: int = Field(32, ge=1, description="the adapter is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="share of the adapter's inputs that is dropped")
    target_module_group: Literal["attention_only", "mlp_only", "both", "all"] = Field(
        "attention_only", description="modules that get an adapter; all: both, the embedding and the head"
    )
    target_modules: list[Reference] | None = Field(None, description="names that replace the group's")


class TrainingSection(Section):
    """How the weights are trained."""

    seed: int = Field(42, ge=0, lt=2**32, description="of the weights that are new, the order of rows and dropout")
    max_steps: int | None = Field(100, ge=1, description="optimizer steps; null: num_train_epochs decides")
    num_train_epochs: float | None = Field(None, gt=0, description="epochs; drops a weaker layer's max_steps")
    learning_rate: float = Field(2e-4, gt=0, le=10, description="peak of the schedule")
    warmup_steps: int = Field(10, ge=0, description="optimizer steps from 0 up to the peak")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="how the learning rate goes down after the warm-up"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm; 0 = no clipping")
    per_device_train_batch_size: int = Field(4, ge=1, description="rows that a rank trains at once")
    per_device_eval_batch_size: int = Field(8, ge=1, description="rows that a rank validates at once")
    gradient_accumulation_steps: int = Field(4, ge=1, description="batches of a rank in one optimizer step")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adamw_deepspeed"] = Field(
        "adamw_torch_fused",
        description="8-bit and paged states are bitsandbytes'; adamw_deepspeed: DeepSpeed's own for offload, "
        "compiled on each node at its first use",
    )
    zero: ZeroStage = Field(
        "auto", description="DeepSpeed ZeRO stage; auto: 2 with several ranks, no DeepSpeed with one"
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what waits in the host's memory: optimizer states, or weights too (ZeRO 3)"
    )
    torch_compile: bool = Field(False, description="compile the model; pays off after some hundred steps")
    liger: Literal["auto", "on", "off"] = Field(
        "auto", description="Liger's fused kernels; auto: on CUDA where the package knows the model"
    )
    save_minutes: float = Field(10.0, gt=0, description="minutes between two rolling checkpoints for restarts")
    dataloader_num_workers: int = Field(0, ge=0, description="processes of each rank that read rows ahead")


class EvaluationSection(Section):
    """Validation after each epoch, by generation."""

    enabled: bool = Field(True, description="whether to validate at all")
    before: bool = Field(False, description="validate the base model too, to show what training changed")
    max_new_tokens: int = Field(64, ge=1, description="longest answer, in tokens")


class TrackingSection(Section):
    """wandb. The event log of the run directory is always complete, whatever stands here."""

    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: online where nodes have internet and a key is stored, else offline"
    )
    project: Identifier = Field("hpcft", description="wandb's project")
    entity: Identifier | None = Field(None, description="wandb's user or team; your default one when absent")
    log_every: int = Field(20, ge=1, description="optimizer steps between two points sent to wandb")
    log_model: bool = Field(True, description="log final_model/ as an artifact")
    tags: list[Reference] = Field(default_factory=list, description="wandb's tags")
    notes: str = Field("", max_length=65536, description="wandb's notes")


class ResourcesSection(Section):
    """What is asked of the cluster. Defaults come from the cluster's profile."""

    nodes: int = Field(1, ge=1, le=10_000, description="machines")
    gpus_per_node: int = Field(
        1,
        ge=1,
        le=64,
        description="one rank each; with accelerator cpu: ranks a node, and no GPU is asked for",
    )
    gpu_type: Identifier | None = Field(None, description="as the site calls it, such as a100")
    cpus_per_task: int | None = Field(None, ge=1, le=4096, description="cores of each rank")
    mem_gb: float | None = Field(None, gt=0, le=1e6, description="memory of each node, in GB of 1024³ bytes")
    time: SlurmTime = Field("04:00:00", description="limit: minutes, HH:MM:SS or D-HH:MM:SS")
    partition: Identifier | None = Field(None, description="Slurm's partition")
    account: Identifier | None = Field(None, description="account that the job is charged to")
    qos: Identifier | None = Field(None, description="Slurm's quality of service")
    constraint: Identifier | None = Field(None, description="feature that the nodes must have")
    accelerator: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="auto: CUDA under Slurm; at home CUDA, then MPS, then CPU"
    )
    signal_seconds: int = Field(
        120, ge=10, le=3600, description="seconds before the time limit at which the job is told to save"
    )


class Job(Section):
    """One job. `hpcft config show` prints it, `results/<run>/config.yaml` keeps it."""

    kind: Literal["train"] = Field("train", description="what the job does")
    variant: Annotated[str, AfterValidator(_variant)] = Field("lora", description="way of fine-tuning")
    name: Identifier | None = Field(None, description="name of the run directory; made up when absent")
    results: ScriptPath = Field("results", description="folder of the run directories")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    resources: ResourcesSection = ResourcesSection()

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return self.resources.nodes * self.resources.gpus_per_node

    @property
    def zero_stage(self) -> int | None:
        """DeepSpeed's stage, or None when it is not used."""
        if self.training.zero != "auto":
            return self.training.zero
        if self.training.offload != "none":
            return 3 if self.training.offload == "all" else 2
        return 2 if self.world_size > 1 else None

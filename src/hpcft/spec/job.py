"""The job: one typed tree that says everything a run needs to know.

Names are those of the field (`per_device_train_batch_size`, `lora_alpha`); defaults are those of the LoRA
sensitivity study that this tool continues, so `hpcft submit` with a model and a data set gives its runs.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hpcft.spec.distill import DistillSection
from hpcft.spec.section import Section
from hpcft.spec.types import Identifier, Lang, Reference, ScriptPath, SlurmTime, Tag, ZeroStage, short
from hpcft.spec.variants import VARIANTS


def _variant(name: str) -> str:
    if name not in VARIANTS:
        near = get_close_matches(name, VARIANTS, n=1, cutoff=0.5)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown variant {short(name)}: it is one of {', '.join(VARIANTS)}{guess}")
    return name


class ModelSection(Section):
    """The base model."""

    name: Reference = Field(
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
        description="hub id, local folder, 'quickstart' (a small model made on this machine), or 'student' (made after "
        "distill.teacher, what variant distill begins with)",
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
    eval_samples: int = Field(100, ge=0, description="distinct validation inputs that are answered and scored, 0 = all")
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


class ChecksSection(Section):
    """What the data is held against before a job trains on it, and what `hpcft data clean` takes out."""

    min_text_length: int = Field(1, ge=0, description="characters; a shorter text is reported, and removed by cleaning")
    max_text_length: int | None = Field(None, ge=1, description="characters; the same for a longer one")
    allow_empty: bool = Field(False, description="an empty text is no fault")
    check_encoding: bool = Field(True, description="look for characters that a wrong decoding leaves behind")
    remove_html: bool = Field(True, description="look for tags; cleaning takes them out")
    remove_special_chars: bool = Field(False, description="cleaning takes out what is no letter, digit or punctuation")
    near_rows: int = Field(
        20_000, ge=0, description="rows among which near-duplicates are looked for, and of a job at most 2,000; 0: none"
    )
    near_threshold: float = Field(
        0.85, gt=0, le=1, description="Jaccard similarity of two texts' character 5-grams from which they are near"
    )
    strict: bool = Field(False, description="a finding of high priority stops the job before it trains")


class LoraSection(Section):
    """LoRA's shape; its effective scale is lora_alpha / r."""

    r: int = Field(8, ge=1, le=4096, description="rank of the adapter")
    lora_alpha: int = Field(32, ge=1, description="the adapter is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="share of the adapter's inputs that is dropped")
    target_module_group: Literal["attention_only", "mlp_only", "both", "all"] = Field(
        "attention_only", description="modules that get an adapter; all: both, the embedding and the head"
    )
    target_modules: list[Reference] | None = Field(None, description="names that replace the group's")
    phase_strategy: Literal["attn->mlp->both", "both->mlp->attn", "both->mlp->both", "early->late"] | None = Field(
        None,
        description="train parts of the adapter one after the other; early->late: the lower, the middle, the upper "
        "third of the layers; begins with target_module_group both; quote it, for the shell",
    )
    phase1_end: int = Field(100, ge=1, description="last optimizer step of the first phase")
    phase2_end: int = Field(200, ge=2, description="last optimizer step of the second phase")


class PeftSection(Section):
    """What the methods beside LoRA take."""

    virtual_tokens: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="trained vectors of a prompt or prefix; null: 8 of prompt-tuning, 10 of p-tuning, 20 of "
        "prefix-tuning, 100 of p-tuning-v2",
    )
    prompt_text: str | None = Field(
        None, min_length=1, max_length=65536, description="text that prompt-tuning's vectors begin as; random when null"
    )
    encoder_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="width of the network that makes p-tuning's and prefix-tuning's vectors; the model's own when null",
    )
    reduction: int = Field(16, ge=1, le=4096, description="a bottleneck adapter is the layer's width / reduction wide")
    drop_layers: int = Field(
        0, ge=0, le=10_000, description="lowest layers that get no bottleneck adapter (AdapterDrop)"
    )
    initial_rank: float = Field(
        1.5, ge=1, le=16, description="AdaLoRA begins with lora.r times this, and ends with lora.r on the average"
    )
    target_modules: list[Reference] | None = Field(
        None, description="of ia3, bitfit and adapter: names that replace the architecture's own"
    )


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
    stop_on_nan: bool = Field(True, description="stop at a step whose loss is no number any more")
    dataloader_num_workers: int = Field(0, ge=0, description="processes of each rank that read rows ahead")


class GradientsSection(Section):
    """Norms of the gradients, which say where in the model training happens."""

    enabled: bool = Field(False, description="record the norm of each group of modules, and draw them at the end")
    log_frequency: int = Field(1, ge=1, description="optimizer steps between two records")
    layer_norm: bool = Field(True, description="record attention and MLP of each layer too")


class EvaluationSection(Section):
    """Answers and their scores: after each epoch of training, and by a job of its own."""

    enabled: bool = Field(True, description="whether to validate at all while training")
    before: bool = Field(False, description="validate the base model too, to show what training changed")
    max_new_tokens: int = Field(64, ge=1, description="longest answer, in tokens")
    bootstrap: int = Field(
        1000, ge=0, le=100_000, description="resamplings for a score's confidence interval, 0 = none"
    )


class MergeSection(Section):
    """An adapter's weights added to its base model's."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the merged weights; auto: the base model's own"
    )
    max_kl: float = Field(
        0.05, gt=0, description="largest mean KL divergence, in nats a token, between the answers before and after"
    )


class QuantizeSection(Section):
    """A whole model's weights in fewer bits, after training."""

    method: Literal["bnb-int8", "bnb-nf4", "bnb-fp4", "torchao-int8", "torchao-int4", "gptq-int8", "gptq-int4"] = Field(
        "bnb-nf4",
        description="the library and its number format; torchao-int4 needs CUDA, gptq `hpcft tools install gptq`",
    )
    calibration_samples: int = Field(
        128, ge=1, le=100_000, description="training rows that a gptq method adapts the weights to"
    )
    environment: ScriptPath | None = Field(
        None, description="virtual environment with llmcompressor for gptq; hpcft's own when absent"
    )
    max_perplexity_ratio: float = Field(
        1.5, ge=1, description="the job fails when perplexity grows by more than this factor"
    )

    @property
    def calibrated(self) -> bool:
        """Whether the method looks at rows of data, which is done in an environment of its own."""
        return self.method.startswith("gptq-")

    @property
    def bits(self) -> int:
        """Of each weight."""
        return 8 if self.method.endswith("int8") else 4


class BenchSection(Section):
    """Latency, memory and FLOPs of answering."""

    queries: int = Field(20, ge=2, le=100_000, description="measured queries of real prompts, one at a time")
    warmup: int = Field(5, ge=0, le=1000, description="queries before, which are not measured")
    batch_sizes: list[int] = Field(
        default_factory=lambda: [1], description="batches of made-up prompts of one length, each answered in full"
    )
    prompt_tokens: int = Field(128, ge=1, le=1_048_576, description="length of the made-up prompts")
    repeats: int = Field(5, ge=2, le=10_000, description="measured rounds of each batch size")
    torch_compile: bool = Field(False, description="compile the forward pass")
    device_map: Literal["one", "auto"] = Field(
        "one",
        description="auto: the model's layers divided over resources.gpus_per_node GPUs of one process, for what does "
        "not fit on one",
    )
    cache: Literal["dynamic", "static"] = Field("dynamic", description="how the keys and values of a query are kept")
    strict: bool = Field(False, description="fail, where one else warns, when the machine is not in a steady state")


class TrackingSection(Section):
    """wandb. The event log of the run directory is always complete, whatever stands here."""

    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        "auto", description="auto: online where nodes have internet and a key is stored, else offline"
    )
    project: Identifier = Field("hpcft", description="wandb's project")
    entity: Identifier | None = Field(None, description="wandb's user or team; your default one when absent")
    group: Identifier | None = Field(None, description="wandb's group; of a sweep's trials the sweep's name")
    log_every: int = Field(20, ge=1, description="optimizer steps between two points sent to wandb")
    log_model: bool = Field(True, description="log final_model/ as an artifact")
    monitor_seconds: float = Field(
        10, ge=0, le=3600, description="between two looks at the load of processor, memory, storage and GPU; 0: none"
    )
    tags: list[Tag] = Field(default_factory=list, description="wandb's tags, of at most 64 characters each")
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
    max_idle_attempts: int = Field(
        3, ge=1, le=1000, description="attempts of a job without a step gained, after which it is not queued again"
    )


class Job(Section):
    """One job. `hpcft config show` prints it, `results/<run>/config.yaml` keeps it."""

    kind: Literal["train", "evaluate", "merge", "quantize", "bench", "report", "lab"] = Field(
        "train", description="what the job does"
    )
    of: ScriptPath | None = Field(None, description="run whose model is evaluated, merged, quantised or measured")
    runs: list[ScriptPath] = Field(default_factory=list, description="runs that a report or a lab's pictures are of")
    variant: Annotated[str, AfterValidator(_variant)] = Field("lora", description="way of fine-tuning")
    name: Identifier | None = Field(None, description="name of the run directory; made up when absent")
    results: ScriptPath = Field("results", description="folder of the run directories")
    lang: Lang = Field("en", description="language of pictures and of what is printed beside them")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    checks: ChecksSection = ChecksSection()
    lora: LoraSection = LoraSection()
    peft: PeftSection = PeftSection()
    training: TrainingSection = TrainingSection()
    gradients: GradientsSection = GradientsSection()
    distill: DistillSection = DistillSection()
    evaluation: EvaluationSection = EvaluationSection()
    merge: MergeSection = MergeSection()
    quantize: QuantizeSection = QuantizeSection()
    bench: BenchSection = BenchSection()
    tracking: TrackingSection = TrackingSection()
    resources: ResourcesSection = ResourcesSection()

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return self.resources.nodes * self.ranks_per_node

    @property
    def ranks_per_node(self) -> int:
        """One a GPU, unless one process has all of them."""
        return 1 if self.kind == "bench" and self.bench.device_map == "auto" else self.resources.gpus_per_node

    @property
    def distills(self) -> bool:
        """Whether the job learns from a teacher beside its data."""
        return self.kind == "train" and self.variant == "distill"

    @property
    def zero_stage(self) -> int | None:
        """DeepSpeed's stage, or None when it is not used."""
        if self.kind != "train":
            return None
        if self.training.zero != "auto":
            return self.training.zero
        if self.training.offload != "none":
            return 3 if self.training.offload == "all" else 2
        return 2 if self.world_size > 1 else None

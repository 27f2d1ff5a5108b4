"""What no single field can tell: values that exclude each other."""

from __future__ import annotations

import re

from hpcft.spec.distill import STUDENT
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job
from hpcft.spec.parallelism import refusals
from hpcft.spec.variants import LORA_LIKE, PREFIX_LIKE, PROMPT_LIKE, VARIANTS


def faults(job: Job) -> list[tuple[str, str]]:
    """Pairs of (key, message) for values that exclude each other."""
    if job.kind != "train":
        return [*_model(job), *_one_process(job)]
    if job.variant == "ptq":
        several = "ptq is several jobs: hpcft submit --variant ptq, or hpcft pipeline ptq"
        return [("variant", several)]
    parts = (_limits, _model, _data, _method, _phases, _distill, refusals)
    return [fault for part in parts for fault in part(job)]


def _one_process(job: Job) -> list[tuple[str, str]]:
    """Only the answers of an evaluation are divided over ranks; what else there is needs the whole model in one."""
    found: list[tuple[str, str]] = []
    if job.kind != "evaluate" and job.world_size > 1:
        key = "resources.nodes" if job.resources.nodes > 1 else "resources.gpus_per_node"
        found.append((key, f"a {job.kind} job is one process on one node, and {job.world_size} ranks are asked for"))
    if job.kind == "quantize" and job.quantize.method == "torchao-int4" and job.resources.accelerator == "cpu":
        found.append(("quantize.method", "torchao-int4 needs CUDA; bnb-nf4 and bnb-fp4 work on a CPU too"))
    if job.kind == "quantize" and job.quantize.calibrated and job.model.trust_remote_code:
        message = f"{job.quantize.method} runs no code that comes with a model; take bnb-nf4 or bnb-int8"
        found.append(("quantize.method", message))
    return found


def _limits(job: Job) -> list[tuple[str, str]]:
    t = job.training
    if t.max_steps is None and t.num_train_epochs is None:
        return [("training.max_steps", "neither max_steps nor num_train_epochs says when to stop")]
    if t.max_steps is not None and t.num_train_epochs is not None:
        return [("training.num_train_epochs", "num_train_epochs and max_steps are both set; keep one of them")]
    return []


def _method(job: Job) -> list[tuple[str, str]]:
    """What a PEFT method cannot go with."""
    method, found = VARIANTS[job.variant].adapter, list[tuple[str, str]]()
    if method in PROMPT_LIKE and job.data.packing in ("batch", "full"):
        message = f"rows laid end to end would share the vectors of {job.variant}, which stand in front of each row"
        found.append(("data.packing", message))
    if method in PREFIX_LIKE and job.training.gradient_checkpointing:
        message = f"{job.variant} gives each layer keys and values, which checkpointing would throw away"
        found.append(("training.gradient_checkpointing", message))
    if method == "adalora" and job.zero_stage is not None:
        message = "AdaLoRA looks at the gradients after each step, and DeepSpeed has cleared them by then; use one rank"
        found.append(("variant", message))
    return found


def _phases(job: Job) -> list[tuple[str, str]]:
    lora, found = job.lora, list[tuple[str, str]]()
    if lora.phase_strategy is None:
        return found
    if VARIANTS[job.variant].adapter not in LORA_LIKE:
        found.append(("lora.phase_strategy", f"phases are of LoRA's modules, and the variant is {job.variant}"))
    elif lora.target_module_group not in ("both", "all") and lora.target_modules is None:
        message = f"phases need an adapter on attention and MLP, and this is {lora.target_module_group}; set it to both"
        found.append(("lora.target_module_group", message))
    if lora.phase2_end <= lora.phase1_end:
        found.append(("lora.phase2_end", f"the second phase ends before it begins: phase1_end is {lora.phase1_end}"))
    if job.zero_stage is not None:
        message = "DeepSpeed divides what is trained once, before the first step, and phases change it; use one rank"
        found.append(("lora.phase_strategy", message))
    return found


def _distill(job: Job) -> list[tuple[str, str]]:
    """What a distillation cannot be."""
    d, found = job.distill, list[tuple[str, str]]()
    if not job.distills:
        if d.teacher is not None:
            message = f"a teacher is for variant distill, and this job's is {job.variant}: it would not be asked"
            found.append(("distill.teacher", message))
        if job.model.name == STUDENT:
            found.append(("model.name", "a student is made by variant distill alone; name a model"))
        return found
    if d.teacher is None:
        found.append(("distill.teacher", "who teaches? Name a finished run, a folder or a hub id: --teacher"))
    if abs(d.alpha + d.beta - 1) > 1e-9:
        message = (
            f"alpha and beta are one together, and {d.alpha:g} + {d.beta:g} = {d.alpha + d.beta:g}; set one of them"
        )
        found.append(("distill.alpha", message))
    if job.data.task == "classification":
        found.append(("data.task", "a teacher's next-token distributions are learned, and a classifier has none"))
    made = [key for key in ("student_layers", "student_hidden") if getattr(d, key) is not None]
    if d.init_from_teacher != "none":
        made.append("init_from_teacher")
    if job.model.name != STUDENT:
        message = f"shapes a student that is made, and model.name names one: {job.model.name}"
        found += [(f"distill.{key}", message) for key in made]
    elif job.model.trust_remote_code:
        found.append(("model.trust_remote_code", "a student is made of code that is known here alone"))
    return [*found, *_compared(job), *_shown(job)]


def _compared(job: Job) -> list[tuple[str, str]]:
    """What its loss cannot go with."""
    d, found = job.distill, list[tuple[str, str]]()
    if d.loss == "attention" and job.model.attn_implementation not in ("auto", "eager"):
        message = "attention maps are there with eager attention alone, which auto chooses for this loss"
        found.append(("model.attn_implementation", message))
    if d.loss != "response" and job.training.gradient_checkpointing:
        message = f"loss {d.loss} looks at what layers give, and checkpointing computes them out of its sight"
        found.append(("training.gradient_checkpointing", message))
    if not d.cache:
        return found
    if d.top_k is None:
        found.append(("distill.cache", "keeps the teacher's likeliest tokens: say how many, such as distill.top_k=64"))
    if d.loss != "response":
        found.append(("distill.cache", f"keeps distributions, and loss {d.loss} needs the teacher's layers"))
    if job.data.streaming:
        found.append(("distill.cache", "nobody knows the rows of a stream before they are trained"))
    return found


def _shown(job: Job) -> list[tuple[str, str]]:
    """What rows of the validation cannot be shown with."""
    found: list[tuple[str, str]] = []
    if not job.distill.shows_validation:
        return found
    if job.distill.cache:
        message = "with distill.cache no teacher is left to answer rows of the validation; set it to training"
        found.append(("distill.sample_set", message))
    if not job.evaluation.enabled:
        message = "nothing is validated with evaluation.enabled=false, so nothing would be shown; set it to training"
        found.append(("distill.sample_set", message))
    return found


_COMMIT = re.compile(r"[0-9a-f]{40}")


def _model(job: Job) -> list[tuple[str, str]]:
    """Code from a model is what was read: branches and tags move, a commit does not; a folder is the user's own."""
    model = job.model
    if not model.trust_remote_code or user_path(model.name).is_dir():
        return []
    if not model.revision:
        message = "code from a model is run only at a pinned revision: set model.revision to the commit that you read"
        return [("model.trust_remote_code", message)]
    if not _COMMIT.fullmatch(model.revision):
        message = f"'{model.revision[:40]}' may move; with trust_remote_code it is a commit of 40 hex digits"
        return [("model.revision", message)]
    return []


def _data(job: Job) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if job.data.streaming:
        if job.training.max_steps is None:
            found.append(("data.streaming", "a stream has no length: training.max_steps must say when to stop"))
        if job.evaluation.enabled and job.data.validation is None:
            found.append(("data.streaming", "nothing can be split off a stream: name a set in data.validation"))
        if job.training.dataloader_num_workers:
            message = "a stream is read by the rank itself; each further process would give its rows once more"
            found.append(("training.dataloader_num_workers", message))
        if job.data.mix:
            found.append(("data.mix", "several sets cannot be streamed as one; write them into one file"))
    if job.data.packing == "full" and job.data.task == "classification":
        found.append(("data.packing", "a classifier answers once for each row, so rows cannot share a window"))
    return found

"""Loading the base model and its tokenizer, and putting the variant's adapter on it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError, UnavailableError
from hpcft.models.availability import QUICKSTART
from hpcft.models.groups import target_modules
from hpcft.models.nf4 import nf4_config
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job, ModelSection
from hpcft.spec.variants import VARIANTS

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def compute_dtype(job: Job, device: torch.device) -> torch.dtype:
    """The arithmetic's type: as asked, else bfloat16 on a GPU that has it and float32 elsewhere."""
    import torch

    if job.model.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[job.model.dtype]
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def resolve_model(name: str) -> str:
    """The folder or hub id to load; makes the quickstart model when it is asked for and not there yet."""
    if name == QUICKSTART:
        from hpcft.models.quickstart import ensure_quickstart

        return str(ensure_quickstart())
    path = user_path(name)
    return str(path) if path.is_dir() else name


def _source(model: ModelSection) -> dict[str, Any]:
    return {"revision": model.revision or "main", "trust_remote_code": model.trust_remote_code}


def _explain(model: ModelSection, error: Exception) -> Exception:
    text = str(error)
    if "trust_remote_code" in text:
        return ConfigError(
            f"the model '{model.name}' brings code of its own, which is not run unasked",
            where="model.trust_remote_code",
            hint="read the code, then set model.trust_remote_code=true and model.revision to that commit",
        )
    return UnavailableError(
        f"the model '{model.name}' cannot be loaded: {text.splitlines()[0] if text else type(error).__name__}",
        where="model.name",
        hint="is the name right, does this node reach the hub, is your token stored (`hf auth login`)? "
        "To try the tool out without a download: --model quickstart",
    )


def load_tokenizer(model: ModelSection) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token. Where it has none, EOS stands in: padding is told from real tokens by the
    attention mask, never by the token's number, so EOS is still learned.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded, or has no EOS.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(model.name), **_source(model))
    except (OSError, ValueError) as error:
        raise _explain(model, error) from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of '{model.name}' has no end-of-sequence token, so answers would never end",
            where="model.name",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(job: Job, device: torch.device) -> PreTrainedModel:
    """The base model as the variant holds it: 4 bits for QLoRA, float32 where its own weights are trained.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    variant = VARIANTS[job.variant]
    dtype = compute_dtype(job, device)
    options: dict[str, Any] = _source(job.model)
    if variant.quantization == "nf4":
        options["quantization_config"] = nf4_config(dtype)
        options["device_map"] = {"": device}
    # Weights that an optimizer moves in small steps need float32; mixed precision casts them on the way.
    options["dtype"] = torch.float32 if variant.adapter is None else dtype
    if job.zero_stage == 3:
        # Loaded in parts on every rank by the Trainer's DeepSpeed integration.
        options.pop("device_map", None)
    try:
        model = AutoModelForCausalLM.from_pretrained(resolve_model(job.model.name), **options)
    except (OSError, ValueError) as error:
        raise _explain(job.model, error) from error
    model.config.use_cache = False
    return model


def lora_config(job: Job, model_type: str) -> LoraConfig:
    """The LoRA adapter that a job describes."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        r=job.lora.r,
        lora_alpha=job.lora.lora_alpha,
        lora_dropout=job.lora.lora_dropout,
        target_modules=target_modules(job.lora, model_type),
        task_type=TaskType.CAUSAL_LM,
    )


def with_adapter(model: PreTrainedModel, job: Job) -> Any:
    """Put the variant's adapter on the base; the base as it is when all weights are trained.

    Raises:
        ConfigError: no module of the model fits the targets.
    """
    variant = VARIANTS[job.variant]
    if variant.adapter is None:
        if job.training.gradient_checkpointing:
            model.enable_input_require_grads()
        return model
    from peft import get_peft_model, prepare_model_for_kbit_training

    if variant.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=job.training.gradient_checkpointing)
    elif job.training.gradient_checkpointing:
        model.enable_input_require_grads()
    try:
        return get_peft_model(model, lora_config(job, model.config.model_type))
    except ValueError as error:
        raise ConfigError(f"no adapter could be put on the model: {error}", where="lora.target_modules") from error

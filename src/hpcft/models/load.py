"""Loading the base model and its tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError, UnavailableError
from hpcft.models.availability import QUICKSTART, not_text_alone
from hpcft.models.groups import FAMILIES
from hpcft.models.quantization import int8_config, nf4_config
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job, ModelSection
from hpcft.spec.variants import VARIANTS, Quantization

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def compute_dtype(job: Job, device: torch.device) -> torch.dtype:
    """The arithmetic's type: as asked, else bfloat16 on a GPU that has it and float32 elsewhere."""
    import torch

    if job.model.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[job.model.dtype]
    # Older GPUs emulate it, slower than float32.
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
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


def explained(model: ModelSection, error: Exception) -> Exception:
    """What went wrong with a model, in words that say what to do."""
    text = str(error)
    if "trust_remote_code" in text:
        return ConfigError(
            f"the model '{model.name}' brings code of its own, which is not run unasked",
            where="model.trust_remote_code",
            hint="read the code, then set model.trust_remote_code=true and model.revision to that commit",
        )
    if "Repository Not Found" in text or "is not a valid model identifier" in text:
        return UnavailableError(
            f"the hub has no model '{model.name}', or it is private and you are not logged in",
            where="model.name",
            hint="is the name right? If it is private: `hf auth login` once on the login node",
        )
    if "gated" in text.lower() or "401" in text or "403" in text:
        return UnavailableError(
            f"the hub does not give '{model.name}' to you: it asks for a licence to be accepted, or it is private",
            where="model.name",
            hint=f"accept its terms on the model's page ({model.name}), then `hf auth login` once on the login node; "
            "the job reads the token that is stored there",
        )
    if type(error).__name__ == "SafetensorError":
        return ConfigError(
            f"the weights of '{model.name}' are broken: {text}", where="model.name", hint="get them again"
        )
    if "safetensors" in text:
        return ConfigError(
            f"the model '{model.name}' has no safetensors weights; others are pickles, which can run code when they "
            "are read",
            where="model.name",
            hint="convert it once where you trust it: AutoModel.from_pretrained(…).save_pretrained(FOLDER)",
        )
    if "Got: ConnectError" in text or "Got: ConnectTimeout" in text:
        return UnavailableError(
            f"the hub does not answer, and the model '{model.name}' is not in the cache: {text.splitlines()[0]}",
            where="model.name",
            hint="does this machine reach the internet? `hpcft fetch` has to be called where it does",
        )
    return UnavailableError(
        f"the model '{model.name}' cannot be loaded: {text.splitlines()[0] if text else type(error).__name__}",
        where="model.name",
        hint="is the name right, does this node reach the hub, is your token stored (`hf auth login`)? "
        "To try the tool out without a download: --model quickstart",
    )


def load_config(model: ModelSection) -> PretrainedConfig:
    """The base model's configuration.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(resolve_model(model.name), **_source(model))
    except (OSError, ValueError) as error:
        raise explained(model, error) from error
    if config.get_text_config() is not config:
        raise not_text_alone(model.name, config.model_type)
    return config


def load_tokenizer(model: ModelSection) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token. Where it has none, EOS stands in: padding is told from real tokens by the
    attention mask, never by the token's number, so EOS is still learned.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(model.name), **_source(model))
    except (OSError, ValueError) as error:
        raise explained(model, error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> None:
    """Refuse a tokenizer whose numbers the model's embedding does not have.

    Raises:
        ConfigError: with both sizes.
    """
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= config.vocab_size:
        raise ConfigError(
            f"the tokenizer of '{name}' counts to {largest}, and the model knows {config.vocab_size} tokens",
            where="model.name",
            hint="are tokenizer and weights of the same model?",
        )


def attention(job: Job, dtype: torch.dtype, device: torch.device) -> str | None:
    """The attention implementation to ask for; None leaves the choice of SDPA or eager to the architecture."""
    import torch

    if job.model.attn_implementation != "auto":
        return job.model.attn_implementation
    if job.distills and job.distill.loss == "attention":
        # The others keep no maps.
        return "eager"
    half = dtype in (torch.float16, torch.bfloat16)
    return "flash_attention_2" if device.type == "cuda" and half and find_spec("flash_attn") else None


@contextmanager
def undivided() -> Iterator[None]:
    """Make or load models that ZeRO 3 does not divide: each rank that does so has a whole one, and needs no other."""
    from transformers.integrations import deepspeed as integration

    reference = integration._hf_deepspeed_config_weak_ref
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = reference


def load_base(
    job: Job,
    device: torch.device,
    labels: Sequence[str] | None = None,
    *,
    quantization: Quantization | Any = None,
    spread: bool = False,
) -> PreTrainedModel:
    """The base model as the variant holds it: in 4 or 8 bits, or in float32 where its own weights are trained.

    Args:
        labels: names of the classes, for a classifier; None for a model that writes text.
        quantization: how the weights are held by a model that is not trained here, a name or transformers'
            configuration; the variant decides when absent.
        spread: whether its layers are divided over all devices that this process sees, by their free memory.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded, or cannot do this.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    variant = VARIANTS[job.variant]
    dtype = compute_dtype(job, device)
    config = load_config(job.model)
    family = FAMILIES.get(config.model_type)
    if labels is None and family is not None and not family.generates:
        raise ConfigError(
            f"'{job.model.name}' is of architecture '{config.model_type}', which reads text and does not write it",
            where="model.name",
            hint="classify with it (data.task=classification), or take a model such as Llama, Qwen or GPT-2",
        )
    options: dict[str, Any] = _source(job.model) | {"use_safetensors": True}
    # A checkpoint may lack the head and the pooler; what is made anew cannot be quantised on loading.
    keep = () if family is None else (*family.lm_head, *family.head, "pooler", "pooler.dense")
    trained = quantization is None
    quantization = variant.quantization if quantization is None else quantization
    if not isinstance(quantization, str):
        options["quantization_config"] = quantization
    elif quantization != "none":
        options["quantization_config"] = nf4_config(dtype, keep) if quantization == "nf4" else int8_config(keep)
    if quantization != "none" or not trained:
        options["device_map"] = "auto" if spread else {"": device}
    # Weights that an optimizer moves in small steps need float32; mixed precision casts them on the way.
    options["dtype"] = torch.float32 if trained and variant.adapter is None else dtype
    options["attn_implementation"] = attention(job, dtype, device)
    if job.zero_stage == 3:
        # Loaded in parts on every rank by the Trainer's DeepSpeed integration.
        options.pop("device_map", None)
    loader: Any = AutoModelForCausalLM
    if labels is not None:
        loader = AutoModelForSequenceClassification
        options |= {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
        options["label2id"] = {label: i for i, label in enumerate(labels)}
        # A head of another number of classes is made anew.
        options["ignore_mismatched_sizes"] = True
    try:
        loaded = loader.from_pretrained(resolve_model(job.model.name), output_loading_info=True, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise explained(job.model, error) from error
    model: PreTrainedModel = loaded[0]
    model.config.use_cache = False
    # Made at random here, so it has to be trained and kept like the head.
    model.has_new_pooler = any("pooler" in key for key in loaded[1]["missing_keys"])  # type: ignore[assignment]
    return model

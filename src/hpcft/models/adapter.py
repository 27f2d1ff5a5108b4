"""Putting a variant's adapter on its base model: one builder for each method of PEFT, and our own bottleneck."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError
from hpcft.models.groups import FAMILIES, warn_of_unknown
from hpcft.models.targets import adapted, initial_rank, virtual_tokens
from hpcft.spec.job import Job
from hpcft.spec.variants import LORA_LIKE, PREFIX_LIKE, PROMPT_LIKE, VARIANTS

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PretrainedConfig, PreTrainedModel


def adapter_config(job: Job, config: PretrainedConfig, *, classifier: bool = False) -> Any:
    """PEFT's configuration of the adapter that a job describes. A classifier's head is trained and saved whole.

    Args:
        config: the base model's.

    Raises:
        ConfigError: the architecture is not in the table and no modules are named.
    """
    from peft import TaskType

    method = VARIANTS[job.variant].adapter
    family = FAMILIES.get(config.model_type)
    common: dict[str, Any] = {"task_type": TaskType.SEQ_CLS if classifier else TaskType.CAUSAL_LM}
    if classifier and family is not None:
        common["modules_to_save"] = list(family.head)
    if method in LORA_LIKE:
        return _lora(job, config, common)
    if method in PROMPT_LIKE:
        return _prompt(job, config, common)
    return _beside(job, config, common)


def _lora(job: Job, config: PretrainedConfig, common: dict[str, Any]) -> PeftConfig:
    """LoRA (Hu et al. 2022), DoRA (Liu et al. 2024), rsLoRA (Kalajdzievski 2023), AdaLoRA (Zhang et al. 2023)."""
    from peft import AdaLoraConfig, LoraConfig

    method = VARIANTS[job.variant].adapter
    common |= {
        "lora_alpha": job.lora.lora_alpha,
        "lora_dropout": job.lora.lora_dropout,
        "target_modules": adapted(job, config.model_type)[0],
        # GPT-2's weights are stored the other way round.
        "fan_in_fan_out": config.model_type == "gpt2",
    }
    if method == "adalora":
        # Its schedule is set when the number of steps is known (`train.adalora`).
        return AdaLoraConfig(init_r=initial_rank(job), target_r=job.lora.r, total_step=3, tfinal=1, **common)
    return LoraConfig(r=job.lora.r, use_dora=method == "dora", use_rslora=method == "rslora", **common)


def _prompt(job: Job, config: PretrainedConfig, common: dict[str, Any]) -> PeftConfig:
    """Prompt tuning (Lester et al. 2021), P-tuning (Liu et al. 2021), prefix tuning (Li and Liang 2021) and P-tuning
    v2 (Liu et al. 2022): a prefix in every layer, as prefix tuning has it, without the network that makes it."""
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    from hpcft.models.load import resolve_model

    method = str(VARIANTS[job.variant].adapter)
    common.pop("modules_to_save", None)
    common["num_virtual_tokens"] = virtual_tokens(job)
    if config.model_type == "distilbert":
        # PEFT does not know its names for the sizes.
        common |= {"token_dim": config.dim, "num_layers": config.n_layers, "num_attention_heads": config.n_heads}
    if method == "prompt-tuning":
        if job.peft.prompt_text is None:
            return PromptTuningConfig(**common)
        words: dict[str, Any] = {"prompt_tuning_init_text": job.peft.prompt_text, "prompt_tuning_init": "TEXT"}
        return PromptTuningConfig(tokenizer_name_or_path=resolve_model(job.model.name), **words, **common)
    if method == "p-tuning":
        return PromptEncoderConfig(encoder_hidden_size=job.peft.encoder_size or config.hidden_size, **common)
    if method == "prefix-tuning":
        size = job.peft.encoder_size or config.hidden_size
        return PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=size, **common)
    return PrefixTuningConfig(prefix_projection=False, **common)


def _beside(job: Job, config: PretrainedConfig, common: dict[str, Any]) -> PeftConfig:
    """IA3 (Liu et al. 2022), BitFit (Ben Zaken et al. 2022) and bottleneck adapters (Houlsby et al. 2019)."""
    from peft import BeftConfig, IA3Config

    from hpcft.models.bottleneck import BottleneckConfig

    method = VARIANTS[job.variant].adapter
    targets, inputs = adapted(job, config.model_type)
    common["target_modules"] = targets
    if method == "ia3":
        return IA3Config(feedforward_modules=inputs, fan_in_fan_out=config.model_type == "gpt2", **common)
    if method == "bitfit":
        # PEFT's name for trained biases of linear layers, also of those that have none.
        return BeftConfig(**common)
    return BottleneckConfig(reduction=job.peft.reduction, drop_layers=job.peft.drop_layers, **common)


def with_adapter(model: PreTrainedModel, job: Job, *, classifier: bool = False) -> Any:
    """Put the variant's adapter on the base; the base as it is when all weights are trained.

    Raises:
        ConfigError: no module of the model fits the targets, or the method does not suit the model.
    """
    variant = VARIANTS[job.variant]
    if variant.adapter is None:
        if job.training.gradient_checkpointing:
            model.enable_input_require_grads()
        return model
    from peft import get_peft_model, prepare_model_for_kbit_training
    from torch import nn

    if variant.adapter in LORA_LIKE and job.lora.target_modules is None:
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding)]
        warn_of_unknown(linear, model.config.model_type)
    if variant.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=job.training.gradient_checkpointing)
    elif job.training.gradient_checkpointing:
        model.enable_input_require_grads()
    if variant.adapter in PREFIX_LIKE and not _takes_prefixes(model):
        raise ConfigError(
            f"{job.variant} gives each layer keys and values, and '{model.config.model_type}' takes none",
            where="variant",
            hint="take prompt-tuning, p-tuning, or a LoRA",
        )
    adapter = adapter_config(job, model.config, classifier=classifier)
    try:
        if classifier and getattr(model, "has_new_pooler", False):
            adapter.modules_to_save = [*(getattr(adapter, "modules_to_save", None) or []), "pooler"]
        tuned = get_peft_model(model, adapter, revision=job.model.revision)
    except (ValueError, TypeError) as error:
        key = "lora.target_modules" if variant.adapter in LORA_LIKE else "variant"
        raise ConfigError(f"no adapter could be put on the model: {error}", where=key) from error
    for parameter in tuned.parameters():
        # PEFT does so for the adapter's own weights, and not for a head that is trained whole.
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.float()
    return tuned


def _takes_prefixes(model: PreTrainedModel) -> bool:
    inner = getattr(model, model.base_model_prefix, model)
    return "past_key_values" in inspect.signature(inner.forward).parameters

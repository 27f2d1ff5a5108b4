"""Opening a model that is to be used and not trained: an adapter with its base, a whole model, a quantised one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError
from hpcft.models.availability import check_model, has_tokenizer, weights_fault
from hpcft.models.load import load_base, load_config, load_tokenizer
from hpcft.models.quantization import fence_cpu_repacking
from hpcft.runs.files import write_json
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job, ModelSection
from hpcft.spec.variants import VARIANTS, Quantization

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

LABELS = "labels.json"


@dataclass(frozen=True)
class Subject:
    """What a model's name stands for, told from its files.

    Attributes:
        base: the whole model; the adapter's base where there is an adapter.
        adapter: folder of the adapter, or None.
        quantization: how the weights are held: as the adapter was trained on them, or as the folder says.
    """

    base: ModelSection
    adapter: Path | None
    quantization: str


def subject(job: Job) -> Subject:
    """Look at the model that a job names.

    Raises:
        ConfigError: an adapter that does not name its base.
    """
    folder = user_path(job.model.name)
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        config = _read(folder / "config.json") if (folder / "config.json").is_file() else {}
        return Subject(job.model, None, _stored_quantization(config.get("quantization_config")))
    found = _read(adapter)
    base = found.get("base_model_name_or_path")
    if not base:
        raise ConfigError("does not name the base model that the adapter is for", where=str(adapter))
    update = {"name": str(base), "revision": found.get("revision") or job.model.revision}
    return Subject(job.model.model_copy(update=update), folder, VARIANTS[job.variant].quantization)


def check_subject(job: Job, internet: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a model that cannot be opened where the job runs.

    Args:
        environ: of the job, which says where its caches are.

    Raises:
        ConfigError: no such folder, broken weights, or a base that is neither cached nor reachable.
    """
    found = subject(job)
    if found.adapter is not None and (fault := weights_fault(found.adapter / "adapter_model.safetensors")):
        raise ConfigError(fault, where=str(found.adapter / "adapter_model.safetensors"))
    check_model(found.base, internet, environ)


def adapter_kind(folder: Path) -> str:
    """PEFT's name of an adapter's method, such as `LORA`."""
    return str(_read(folder / "adapter_config.json").get("peft_type", "")).upper()


def _stored_quantization(config: dict[str, Any] | None) -> str:
    if not config:
        return "none"
    if config.get("load_in_8bit"):
        return "bnb-int8"
    if config.get("load_in_4bit"):
        return f"bnb-{config.get('bnb_4bit_quant_type', 'nf4')}"
    method = str(config.get("quant_method", "quantised"))
    for group in (config.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        # An order of the columns is GPTQ's alone; the other methods that are saved in this form have none.
        return f"{'gptq' if weights.get('actorder') else method}-{weights.get('type')}{weights.get('num_bits')}"
    return method


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    return found if isinstance(found, dict) else {}


def keep_labels(folder: Path, labels: Sequence[str]) -> None:
    """Write the classes of a classifier beside its weights, in the order of their numbers."""
    write_json(folder / LABELS, {"labels": list(labels)})


def labels_of(job: Job) -> list[str] | None:
    """The classes of the classifier that a job names; None when its files name none."""
    folder = user_path(job.model.name)
    if (folder / LABELS).is_file():
        return [str(label) for label in _read(folder / LABELS).get("labels", [])]
    if (folder / "config.json").is_file():
        config = _read(folder / "config.json")
        if any(str(kind).endswith("ForSequenceClassification") for kind in config.get("architectures") or []):
            names = config.get("id2label") or {}
            return [str(names[number]) for number in sorted(names, key=int)]
    return None


def open_config(job: Job) -> PretrainedConfig:
    """The configuration of the whole model."""
    return load_config(subject(job).base)


def open_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    """The tokenizer: of the folder where it has one, else of the base."""
    folder = user_path(job.model.name)
    return load_tokenizer(job.model if not folder.is_dir() or has_tokenizer(folder) else subject(job).base)


def open_model(
    job: Job,
    device: torch.device,
    labels: Sequence[str] | None = None,
    *,
    quantization: Quantization | None = None,
    stored: Any = None,
    spread: bool = False,
) -> Any:
    """Load a model to answer with, in eval mode.

    Args:
        labels: the classes, of a classifier.
        quantization: how an adapter's base is held; as it was trained on when absent.
        stored: transformers' configuration of a quantisation, of a whole model that is to be stored so.
        spread: whether its layers are divided over all GPUs that this process sees.

    Raises:
        UnavailableError, ConfigError: it cannot be loaded, or does not fit on the GPUs that it is spread over.
    """
    found = subject(job)
    fence_cpu_repacking()
    whole = job.model_copy(update={"model": found.base})
    held = quantization or (VARIANTS[job.variant].quantization if found.adapter else "none")
    model: Any = load_base(whole, device, labels, quantization=held if stored is None else stored, spread=spread)
    if spread and device.type == "cuda" and {"cpu", "disk"} & set(map(str, model.hf_device_map.values())):
        # It would answer from there too, at a hundredth of the speed.
        raise ConfigError(
            f"'{found.base.name}' does not fit on the GPUs that are visible here",
            where="bench.device_map",
            hint="ask for more: --gpus-per-node N",
        )
    if labels is not None:
        # A decoder's head reads the last token that is no padding; what is saved of this model tells it too.
        model.config.pad_token_id = open_tokenizer(job).pad_token_id
    if found.adapter is not None:
        from peft import PeftModel

        # Makes it known to PEFT.
        from hpcft.models import bottleneck  # noqa: F401

        try:
            model = PeftModel.from_pretrained(model, str(found.adapter))
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the adapter cannot be put on '{found.base.name}': {str(error).splitlines()[0]}",
                where=str(found.adapter),
            ) from error
    model.config.use_cache = True
    return model.eval()

"""Can the model be had where the job will run? Asked before submission, without loading anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcft.errors import ConfigError
from hpcft.models.groups import FAMILIES
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import ModelSection

QUICKSTART = "quickstart"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def hub_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder where the hub's client keeps downloaded models."""
    if "HF_HUB_CACHE" in environ:
        return Path(environ["HF_HUB_CACHE"])
    return hub_home(environ) / "hub"


def hub_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder of the hub's client."""
    caches = environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(environ.get("HF_HOME") or Path(caches) / "huggingface")


def model_folder(model: ModelSection, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where a model's files are on this machine: its folder, or its snapshot in the hub's cache; None if nowhere.

    Args:
        environ: of the job, which says where its caches are.
    """
    if model.name == QUICKSTART:
        from hpcft.models.quickstart import cache_folder
        from hpcft.models.quickstart import model_folder as made

        folder = made(cache_folder(environ))
        return folder if (folder / "config.json").is_file() else None
    folder = user_path(model.name)
    if folder.is_dir():
        return folder
    repository = hub_cache(environ) / f"models--{model.name.replace('/', '--')}"
    revision = model.revision or "main"
    try:
        commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        # A commit has no name of its own.
        commit = revision
    snapshot = repository / "snapshots" / commit
    return snapshot if (snapshot / "config.json").is_file() else None


def check_model(model: ModelSection, internet: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a model that cannot be loaded by the job.

    Args:
        model: as the job names it.
        internet: whether the machine that loads it reaches the hub.
        environ: of the job, which says where its caches are.

    Raises:
        ConfigError: no such folder, a folder without a model, or a hub model that is neither cached nor reachable.
    """
    name = model.name
    if name == QUICKSTART:
        return
    folder = user_path(name)
    if folder.is_dir():
        check_folder(folder, name)
        return
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local:
        raise ConfigError(
            f"there is no folder '{name}'", where="model.name", hint="to try the tool out: --model quickstart"
        )
    if internet and not switched_off(environ):
        return
    snapshot = model_folder(model, environ)
    at = f" at revision {model.revision}" if model.revision else ""
    if snapshot is None:
        raise ConfigError(
            f"the model '{name}'{at} is neither a local folder nor in {hub_cache(environ)}, and the job has no "
            "internet",
            where="model.name",
            hint=f"fetch it first where there is internet: hpcft fetch --model {name}; "
            "to try the tool out without a download: --model quickstart",
        )
    try:
        check_folder(snapshot, name)
    except ConfigError as error:
        raise ConfigError(
            f"the model '{name}' is in the cache in part: {error.message}",
            where=error.where,
            hint=f"fetch the rest where there is internet: hpcft fetch --model {name}",
        ) from error


def switched_off(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the hub's client is told not to ask the hub."""
    return environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def check_architecture(model: ModelSection, task: str) -> None:
    """Refuse a model in a local folder that cannot do the task of the data.

    Raises:
        ConfigError: an encoder that is asked for text, or a model of text and pictures.
    """
    config = user_path(model.name) / "config.json"
    if not config.is_file():
        return
    found = _read_json(config)
    kind = str(found.get("model_type"))
    if "text_config" in found:
        raise not_text_alone(model.name, kind)
    if task == "classification":
        return
    family = FAMILIES.get(kind)
    if family is not None and not family.generates:
        raise ConfigError(
            f"'{model.name}' is of architecture '{kind}', which reads text and does not write it",
            where="model.name",
            hint="classify with it (data.task=classification), or take a model such as Llama, Qwen or GPT-2",
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether a model's folder has the files of a tokenizer."""
    return any((folder / file).is_file() for file in _TOKENIZERS)


def not_text_alone(name: str, kind: str) -> ConfigError:
    """The refusal of a model whose text part is one of several."""
    return ConfigError(
        f"'{name}' is of architecture '{kind}', which reads more than text; text models alone are trained here",
        where="model.name",
        hint="take the text model of the same family (of Gemma 3 for instance gemma-3-1b-it)",
    )


def weights_fault(path: Path) -> str | None:
    """What is wrong with a safetensors file, told from its header and its size; None when nothing is.

    The format: 8 bytes with the header's length (little endian), the header in JSON, the tensors' bytes.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 2 <= length <= path.stat().st_size else None
        if not isinstance(header, dict):
            return "is cut off or not a safetensors file"
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        whole, there = 8 + length + max(ends, default=0), path.stat().st_size
    except (OSError, ValueError, TypeError, LookupError) as error:
        return f"is not a safetensors file: {error}"
    return None if there == whole else f"has {there} bytes, and its header asks for {whole}"


def _check_weights(folder: Path) -> None:
    """Refuse weights that are incomplete, by their files' headers and the index of their parts."""
    index = folder / "model.safetensors.index.json"
    parts = (
        {folder / str(part) for part in (_read_json(index).get("weight_map") or {}).values()}
        if (index.is_file())
        else set()
    )
    for path in sorted(parts | set(folder.glob("*.safetensors"))):
        fault = weights_fault(path) if path.is_file() else "is missing, and the index of the weights names it"
        if fault:
            raise ConfigError(fault, where=str(path), hint="copy or download it again; was the disk full?")


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that holds no model that can be loaded, by its files.

    Raises:
        ConfigError: with what is missing or broken.
    """
    adapter = folder / "adapter_config.json"
    if not (folder / "config.json").is_file():
        if adapter.is_file():
            base = _read_json(adapter).get("base_model_name_or_path")
            raise ConfigError(
                f"the folder '{name}' holds an adapter, and a job starts from a whole model",
                where="model.name",
                hint=f"its base is {base}: --model {base}" if base else None,
            )
        raise ConfigError(
            f"the folder '{name}' holds no model: it has no config.json",
            where="model.name",
            hint="name the folder that save_pretrained wrote, or a hub id",
        )
    _read_json(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])), None)
        if pickled is not None:
            raise ConfigError(
                f"the folder '{name}' has its weights as {pickled.name} and not as safetensors; reading a pickle can "
                "run code",
                where="model.name",
                hint="convert it once where you trust it: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
            )
        raise ConfigError(f"the folder '{name}' holds no weights (*.safetensors)", where="model.name")
    _check_weights(folder)
    if not has_tokenizer(folder):
        raise ConfigError(
            f"the folder '{name}' holds no tokenizer ({', '.join(_TOKENIZERS)})",
            where="model.name",
            hint="save it there too: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"is not JSON: {error}", where=str(path), hint="was it cut off while it was copied?"
        ) from error
    return found if isinstance(found, dict) else {}

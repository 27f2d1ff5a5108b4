"""Bringing a model into the cache from where there is internet, so that jobs need none."""

from __future__ import annotations

from pathlib import Path

from hpcft.errors import HpcftError
from hpcft.models.availability import QUICKSTART, check_folder, model_folder
from hpcft.models.load import explained
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import ModelSection

# Configuration, tokenizer and weights. Weights of other formats are pickles or of other libraries.
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_CODE = "*.py"
# Copies for other libraries lie in folders: onnx/, original/, …
_FOLDERS = ["*/*"]


def has_model(model: ModelSection) -> Path | None:
    """Where the whole model is on this machine; None when something of it is missing or cut off."""
    folder = model_folder(model)
    if folder is None:
        return None
    try:
        check_folder(folder, model.name)
    except HpcftError:
        return None
    return folder


def fetch_model(model: ModelSection) -> Path:
    """Get what is missing of a model, and look whether it is whole. What was cut off goes on where it was.

    Returns:
        The folder that jobs will read.

    Raises:
        UnavailableError: the hub does not give it. ConfigError: it cannot be used.
    """
    if model.name == QUICKSTART:
        from hpcft.models.quickstart import ensure_quickstart

        return ensure_quickstart()
    folder = user_path(model.name)
    if folder.is_dir():
        check_folder(folder, model.name)
        return folder
    from huggingface_hub import snapshot_download

    allowed = [*_FILES, _CODE] if model.trust_remote_code else _FILES
    fetched = folder
    for attempt in (False, True):
        try:
            fetched = Path(
                snapshot_download(
                    model.name,
                    revision=model.revision,
                    allow_patterns=allowed,
                    ignore_patterns=None if model.trust_remote_code else _FOLDERS,
                    force_download=attempt,
                )
            )
            check_folder(fetched, model.name)
            return fetched
        except HpcftError:
            # Whole by its size and still no weights: damaged on this disk, so it is got again, once.
            if attempt or not any(fetched.glob("*.safetensors")):
                raise
        except (OSError, ValueError) as error:
            raise explained(model, error) from error
    return fetched

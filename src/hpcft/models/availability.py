"""Can the model be had where the job will run? Asked before submission, without loading anything."""

from __future__ import annotations

import os
from pathlib import Path

from hpcft.errors import ConfigError
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import ModelSection

QUICKSTART = "quickstart"


def hub_cache() -> Path:
    """Folder where the hub's client keeps downloaded models."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    return Path(home) / "hub"


def is_cached(name: str) -> bool:
    """Whether a hub model's files are on this machine's disk."""
    snapshots = hub_cache() / f"models--{name.replace('/', '--')}" / "snapshots"
    return any(snapshots.glob("*/config.json"))


def check_model(model: ModelSection, internet: bool) -> None:
    """Refuse a model that cannot be loaded by the job.

    Args:
        model: as the job names it.
        internet: whether the machine that loads it reaches the hub.

    Raises:
        ConfigError: no such folder, a folder without a model, or a hub model that is neither cached nor reachable.
    """
    name = model.name
    if name == QUICKSTART:
        return
    folder = user_path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"the folder '{name}' holds no model: it has no config.json", where="model.name")
        return
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local:
        raise ConfigError(
            f"there is no folder '{name}'", where="model.name", hint="to try the tool out: --model quickstart"
        )
    offline = not internet or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    if offline and not is_cached(name):
        raise ConfigError(
            f"the model '{name}' is neither a local folder nor in {hub_cache()}, and the job has no internet",
            where="model.name",
            hint=f"fetch it first where there is internet: hf download {name}; "
            "to try the tool out without a download: --model quickstart",
        )

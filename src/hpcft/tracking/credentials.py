"""Is there a wandb key, and which mode follows. Looked up without importing wandb and without a network."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["online", "offline", "disabled"]
_HOST = "api.wandb.ai"


def key_available() -> bool:
    """Whether wandb will find a key: in WANDB_API_KEY, or in the user's netrc file for its host."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or _HOST
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def resolve_mode(requested: str, internet: bool) -> Mode:
    """The mode of a job.

    Args:
        requested: `auto`, `online`, `offline` or `disabled`; WANDB_MODE in the job decides for `auto`.
        internet: whether the node reaches the internet.
    """
    if requested == "auto":
        requested = os.environ.get("WANDB_MODE", "auto")
    if requested == "disabled":
        return "disabled"
    if requested == "online" or (requested == "auto" and internet and key_available()):
        return "online"
    return "offline"


def adopted_run_id() -> str | None:
    """The run id that a W&B agent imposes on this process."""
    return os.environ.get("WANDB_RUN_ID") or None

"""Is there a wandb key, and which mode follows. Looked up without importing wandb and without a network."""

from __future__ import annotations

import configparser
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["online", "offline", "disabled"]
# wandb's own server, under the name that 0.31 uses and the one before.
_HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")


def key_available(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether wandb will find a key: in its environment variables, or in the user's netrc file for its server.

    Args:
        environ: of the process that is to find it.
    """
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        entries = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    server = own_server(environ)
    return any(entries.authenticators(host) for host in ((server,) if server else _HOSTS))


def own_server(environ: Mapping[str, str] = os.environ) -> str | None:
    """Host and port of a server of one's own, from WANDB_BASE_URL or wandb's settings file; None: wandb's."""
    url = environ.get("WANDB_BASE_URL")
    if not url:
        folder = Path(environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
        settings = configparser.ConfigParser(interpolation=None)
        try:
            settings.read(folder / "settings", encoding="utf-8")
            url = settings.get("default", "base_url", fallback=None)
        except (OSError, UnicodeDecodeError, configparser.Error):
            # wandb takes a file that it cannot read as an empty one.
            url = None
    host = urlsplit(url or "").netloc
    return None if host in ("", *_HOSTS) else host


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

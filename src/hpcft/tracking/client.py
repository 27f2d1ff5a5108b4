"""How wandb's client is set up in a process of ours: where it writes, what it may collect, what overrides the job."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

_HTTP_TIMEOUT_S = 3
_FOLDERS = {
    # wandb itself adds `wandb/` to this one.
    "WANDB_DIR": "..",
    "WANDB_CACHE_DIR": "cache",
    "WANDB_DATA_DIR": "data",
    "WANDB_ARTIFACT_DIR": "artifacts",
}
# Who the user is, and which server.
LOGIN = frozenset(
    (
        *("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CREDENTIALS_FILE", "WANDB_CONFIG_DIR"),
        *("WANDB_BASE_URL", "WANDB_APP_URL", "WANDB_HTTP_PROXY", "WANDB_HTTPS_PROXY", "WANDB_INSECURE_DISABLE_SSL"),
        *("WANDB_USERNAME", "WANDB_USER_EMAIL"),
    )
)
# What a W&B agent says of its trial.
TRIAL = frozenset(
    (
        *("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_PROJECT", "WANDB_ENTITY"),
        "WANDB_RUN_GROUP",
    )
)


def set_environment(folder: Path, kept: Collection[str], http_timeout_s: int = _HTTP_TIMEOUT_S) -> list[str]:
    """Keep all that wandb writes in a folder called `wandb`, and set aside the user's variables that would override
    what stands in the job. To be called before threads start.

    Args:
        kept: variables of wandb's that stay.
        http_timeout_s: what a single question to the server may take.

    Returns:
        Names of the variables that were set aside.
    """
    aside = sorted(name for name in os.environ if name.startswith("WANDB_") and name not in kept)
    for name in aside:
        del os.environ[name]
    for name, place in _FOLDERS.items():
        os.environ[name] = os.path.normpath(folder / place)
    # Without it "Loaded credentials" is printed before the settings count.
    os.environ["WANDB_SILENT"] = "true"
    # wandb's telemetry sends from this process, and keeps its exit up for 10 s when the server hangs.
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    # What an artifact asks the server first; a part of the time that the end of a job has.
    os.environ["WANDB_HTTP_TIMEOUT"] = str(http_timeout_s)
    return aside


def quiet_settings() -> dict[str, Any]:
    """Settings of every run of ours: no output of its own, and nothing collected that the run directory has."""
    return {
        "silent": True,
        "console": "off",
        "symlink": False,
        # Metadata would hold the command line, and the run directory has code, versions and git state.
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_save_requirements": False,
        "save_code": False,
        "disable_git": True,
    }


def use_own_step(run: Any) -> None:
    """Make our `step` the x of every plot: wandb drops what comes with a lower step of its own counting, which a job
    that goes on from a checkpoint has."""
    run.define_metric("step")
    run.define_metric("*", step_metric="step")


def model_artifact(folder: Path, name: str, metadata: dict[str, Any]) -> Any:
    """A model folder as an artifact. wandb reads the files where they are instead of copying them first."""
    import wandb

    artifact = wandb.Artifact(name, type="model", metadata=metadata)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name_in = file.relative_to(folder).as_posix()
        artifact.add_file(str(file), name=name_in, policy="immutable", skip_cache=True)
    return artifact


def in_words(error: BaseException) -> str:
    """An error's kind and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def kill_service() -> None:
    """Kill this process's own wandb service, with the process group that it leads."""
    import psutil

    for child in psutil.Process().children():
        try:
            if child.name().startswith("wandb-core"):
                os.killpg(child.pid, signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            # It has ended meanwhile.
            continue

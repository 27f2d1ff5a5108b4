"""Checkpoints to go on from: only whole ones count, and only those of the same shape of job."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpcft.errors import ConfigError
from hpcft.runs.files import read_json, write_json
from hpcft.runs.paths import RunPaths

# Written by rank 0 after every rank has written its part: a folder without it was cut off in the middle.
MARKER = "complete.json"

_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
_ADAPTER_FILES = (
    "adapter_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "*.model",
    "vocab.*",
    "merges.txt",
)


@dataclass(frozen=True)
class Marker:
    """What a whole checkpoint says of itself.

    Attributes:
        step: optimizer steps done.
        world_size, zero_stage: the shape of the job that wrote it.
        attempt: the attempt that wrote it.
        totals: counters that go on from here (tokens, samples, seconds).
    """

    step: int
    world_size: int
    zero_stage: int | None
    attempt: int
    totals: dict[str, Any] = field(default_factory=dict)


def mark_complete(folder: Path, marker: Marker) -> None:
    """Declare a checkpoint whole."""
    write_json(folder / MARKER, asdict(marker))


def read_marker(folder: Path) -> Marker | None:
    """A checkpoint's marker, or None when it is not whole."""
    raw = read_json(folder / MARKER)
    return Marker(**raw) if isinstance(raw, dict) else None


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name, or -1."""
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def newest(paths: RunPaths, world_size: int, zero_stage: int | None) -> tuple[Path, Marker] | None:
    """The whole checkpoint with the most steps.

    Raises:
        ConfigError: it was written by another number of ranks or another ZeRO stage.
    """
    found = [(f, m) for f in paths.checkpoints.glob("checkpoint-*") if (m := read_marker(f)) is not None]
    if not found:
        return None
    folder, marker = max(found, key=lambda pair: pair[1].step)
    if (marker.world_size, marker.zero_stage) != (world_size, zero_stage):
        raise ConfigError(
            f"{folder.name} was written by {marker.world_size} ranks with ZeRO {marker.zero_stage}; "
            f"this attempt has {world_size} ranks with ZeRO {zero_stage}",
            where=str(folder),
            hint="go on with the same resources.nodes, resources.gpus_per_node and training.zero",
        )
    return folder, marker


def remove_partial(paths: RunPaths) -> list[str]:
    """Remove checkpoints that were cut off in the middle, and name them."""
    partial = [f for f in paths.checkpoints.glob("checkpoint-*") if read_marker(f) is None]
    for folder in partial:
        shutil.rmtree(folder, ignore_errors=True)
    return [f.name for f in partial]


def copy_model(checkpoint: Path, target: Path) -> None:
    """Copy a checkpoint's weights, configuration and tokenizer; no optimizer state, no pickled arguments."""
    target.mkdir(mode=0o700, exist_ok=True)
    for pattern in (*_MODEL_FILES, *_ADAPTER_FILES):
        for file in checkpoint.glob(pattern):
            shutil.copyfile(file, target / file.name)
    for file in target.iterdir():
        file.chmod(0o600)

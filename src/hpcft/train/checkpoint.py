"""Checkpoints to go on from: written aside, counted only when whole, and looked at before they are used.

A checkpoint is written into `checkpoints/.saving-<attempt>/checkpoint-N/`. Its manifest holds size and hash of each
file and is written last; then the folder is renamed into place. So a folder called `checkpoint-N` was whole once, and
whether it still is can be seen. The hash is XXH3: ten times as fast as SHA-256, and it is accidents that it is for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import xxhash

from hpcft.runs.attempt import require_newest
from hpcft.runs.events import decode, encode
from hpcft.runs.files import FILE_MODE, make_private, sync_folder
from hpcft.runs.paths import RunPaths

MANIFEST = "manifest.json"
_DAMAGED = "damaged-"
_CHUNK = 8 * 1024 * 1024

_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
_ADAPTER_FILES = (
    "adapter_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "*.model",
    "vocab.*",
    "merges.txt",
    "added_tokens.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
)


@dataclass(frozen=True)
class Manifest:
    """What a whole checkpoint says of itself.

    Attributes:
        step: optimizer steps done.
        world_size, zero_stage: the shape of the job that wrote it.
        attempt: the attempt that wrote it.
        totals: counters that go on from here (tokens, samples, seconds).
        files: by path inside the folder, `[bytes, XXH3-128 in hexadecimal]`.
    """

    step: int
    world_size: int
    zero_stage: int | None
    attempt: int
    totals: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(int(size) for size, _ in self.files.values())


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name, or -1."""
    number = folder.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def folder_of(paths: RunPaths, step: int) -> Path:
    """The checkpoint of a step."""
    return paths.checkpoints / f"checkpoint-{step}"


def checkpoints(paths: RunPaths) -> list[Path]:
    """Folders of checkpoints, newest first, good or bad."""
    found = [f for f in paths.checkpoints.glob("checkpoint-*") if step_of(f) >= 0]
    return sorted(found, key=step_of, reverse=True)


# Writing


def contents(folder: Path) -> list[str]:
    """The files of a checkpoint but its manifest, by their paths inside it."""
    files = (f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    return sorted(name for name in files if name != MANIFEST)


def make_durable(folder: Path, names: Iterable[str]) -> dict[str, list[Any]]:
    """Bring files to the disk, and give each one's size and hash.

    Hashing reads from the page cache while the disk is busy, so it costs next to no time of its own.

    Raises:
        OSError: the disk is full after all, or failing.
    """
    found = {}
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fsync") as pool:
        for name in names:
            with (folder / name).open("rb", buffering=0) as file:
                flushed = pool.submit(os.fsync, file.fileno())
                found[name] = _digest(file)
                flushed.result()
    return found


def sync_folders(folder: Path) -> None:
    """Bring the names of a folder's files, and of those in the folders inside it, to the disk."""
    for inner in (folder, *(f for f in folder.rglob("*") if f.is_dir())):
        sync_folder(inner)


def commit(paths: RunPaths, aside: Path, manifest: Manifest) -> Path:
    """Write the manifest of a checkpoint whose files are on the disk, and move it into place.

    Args:
        aside: where it was written, `.saving-<attempt>/checkpoint-N`.

    Raises:
        SecondAttemptError: a newer attempt has begun. OSError: no space left, or the disk is failing.
    """
    sync_folders(aside)
    fd = os.open(aside / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(encode(asdict(manifest)))
        file.flush()
        os.fsync(fd)
    sync_folder(aside)
    target = paths.checkpoints / aside.name
    require_newest(paths, manifest.attempt, f"keep {aside.name}")
    if target.exists():
        # Another one of the same step, of an attempt whose work was done again.
        target.rename(aside.parent / f"replaced-{aside.name}")
    aside.rename(target)
    sync_folder(paths.checkpoints)
    shutil.rmtree(aside.parent, ignore_errors=True)
    return target


def remove_older(paths: RunPaths, best: int | None) -> None:
    """Keep the newest checkpoint and the best one, or the newest two where the best is one of them or not known."""
    folders = checkpoints(paths)
    keep = [f for i, f in enumerate(folders) if i == 0 or step_of(f) == best]
    keep += [f for f in folders if f not in keep][: max(0, 2 - len(keep))]
    for folder in folders:
        if folder not in keep:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint; a kill in the middle leaves no folder that looks like one."""
    doomed = folder.with_name(f".removing-{folder.name}")
    with contextlib.suppress(OSError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(paths: RunPaths) -> list[str]:
    """Remove what attempts that were killed left half written or half removed, and name what was half written."""
    left = list(paths.checkpoints.glob(".saving-*"))
    names = [f.name for saving in left for f in saving.glob("checkpoint-*")]
    for folder in (*left, *paths.checkpoints.glob(".removing-*")):
        shutil.rmtree(folder, ignore_errors=True)
    return names


# Reading


def read_manifest(folder: Path) -> Manifest | None:
    """A checkpoint's manifest, or None when there is none or it is damaged."""
    try:
        raw = decode((folder / MANIFEST).read_bytes())
    except OSError:
        return None
    if raw is None or raw.keys() != Manifest.__dataclass_fields__.keys():
        return None
    return Manifest(**raw)


def faults(folder: Path, manifest: Manifest, share: int = 0, shares: int = 1) -> list[str]:
    """What is wrong with a checkpoint's files, `optimizer.pt: 120 of 4096 bytes`; empty when all is well.

    Args:
        share, shares: look at every `shares`-th file only, beginning with this one; each rank takes its part.
    """
    found = []
    for name, (size, digest) in sorted(manifest.files.items())[share::shares]:
        try:
            with (folder / name).open("rb", buffering=0) as file:
                actual = os.fstat(file.fileno()).st_size
                if actual != size:
                    found.append(f"{name}: {actual} of {size} bytes")
                elif _digest(file)[1] != digest:
                    found.append(f"{name}: its content has changed")
        except FileNotFoundError:
            found.append(f"{name}: missing")
        except OSError as error:
            found.append(f"{name}: {error.strerror}")
    return found


def set_aside(folder: Path) -> Path:
    """Give a checkpoint that cannot be used another name, so that nobody takes it for one, and return it."""
    number, target = 1, folder.with_name(_DAMAGED + folder.name)
    while target.exists():
        number += 1
        target = folder.with_name(f"{_DAMAGED}{folder.name}-{number}")
    folder.rename(target)
    return target


def model_part(manifest: Manifest) -> Manifest:
    """The manifest of a checkpoint's weights, configuration and tokenizer alone."""
    patterns = (*_MODEL_FILES, *_ADAPTER_FILES)
    # A pattern's star matches a slash too, and what DeepSpeed keeps in its own folder is no model.
    wanted = [n for n in manifest.files if any(fnmatch(n, p) and n.count("/") == p.count("/") for p in patterns)]
    return replace(manifest, files={name: manifest.files[name] for name in wanted})


def copy_files(checkpoint: Path, manifest: Manifest, target: Path) -> None:
    """Copy the files of a manifest out of a checkpoint."""
    for name in manifest.files:
        make_private((target / name).parent)
        shutil.copyfile(checkpoint / name, target / name)
        (target / name).chmod(FILE_MODE)


def _digest(file: Any) -> list[Any]:
    """Size and hash of an open file's content."""
    digest, buffer, size = xxhash.xxh3_128(), bytearray(_CHUNK), 0
    view = memoryview(buffer)
    while count := file.readinto(view):
        digest.update(view[:count])
        size += count
    return [size, digest.hexdigest()]

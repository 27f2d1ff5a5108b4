"""Profiles, presets and templates are data files: the user's folder first, then the packaged one."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from hpcft.errors import ConfigError
from hpcft.spec.identifiers import identifier_fault, user_path

_PACKAGED = Path(__file__).resolve().parent.parent / "_assets"
# A checkout keeps them at its top, where they are edited; a wheel carries them inside the package.
_CHECKOUT = Path(__file__).resolve().parents[3]


def packaged_folder(kind: str) -> Path:
    """Folder of the packaged `hpc`, `jobs`, `sweeps` or `slurm_templates`."""
    inside = _PACKAGED / kind
    return inside if inside.is_dir() else _CHECKOUT / kind


def folders(kind: str) -> list[Path]:
    """Where files of a kind are looked for, nearest first."""
    found = [Path.cwd() / kind, packaged_folder(kind)]
    return [f for i, f in enumerate(found) if f.is_dir() and f not in found[:i]]


def names(kind: str, suffix: str = ".yaml") -> list[str]:
    """Names that `find` knows."""
    return sorted({p.name.removesuffix(suffix) for f in folders(kind) for p in f.glob(f"*{suffix}")})


def find(kind: str, name: str, *, what: str, option: str, suffix: str = ".yaml") -> Path:
    """The file of a name, or of a path that ends in `suffix`.

    Args:
        kind: folder, `jobs`, `sweeps` or `hpc`.
        name: a bare name, or a path to a file.
        what: what it is called in the error, such as "preset".
        option: where the user gave it.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name.endswith(suffix):
        path = user_path(name)
        if path.is_file():
            return path
        raise ConfigError(f"there is no {what} file '{name[:200]}'", where=option)
    if identifier_fault(name) is None:
        for folder in folders(kind):
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    known = names(kind, suffix)
    near = get_close_matches(name, known, n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    shown = name if len(name) <= 60 else name[:57] + "..."
    raise ConfigError(f"unknown {what} {shown!r}", where=option, hint=f"{guess}known: {', '.join(known)}")

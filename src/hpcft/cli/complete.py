"""What a shell's completion offers behind a verb. Nothing is loaded but the table of keys, and no cluster is asked."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from hpcft.spec import assets
from hpcft.spec.identifiers import path_fault


def presets(incomplete: str) -> list[str]:
    """Names for --preset."""
    return _starting(assets.names("jobs"), incomplete)


def sweeps(incomplete: str) -> list[str]:
    """Sweep files, those that come ready, and sweeps that were begun."""
    begun = (p.parent.name for p in Path("results").glob("*/sweep.json"))
    files = (str(p) for p in Path().glob("*.yaml"))
    return _starting([*assets.names("sweeps"), *sorted(begun), *sorted(files)], incomplete)


def labs(incomplete: str) -> list[str]:
    """Methods for `hpcft lab`."""
    from hpcft.spec.labs import LABS

    return _starting(LABS, incomplete)


def clusters(incomplete: str) -> list[str]:
    """Names for --cluster."""
    return _starting(assets.names("hpc"), incomplete)


def values(key: str) -> Callable[[str], list[str]]:
    """Completion of the values that a key can have, where they are few."""

    def complete(incomplete: str) -> list[str]:
        return _starting(choices(key), incomplete)

    return complete


def pairs(incomplete: str) -> list[str]:
    """`section.key=` and, behind the sign, its values; job files too."""
    from hpcft.spec.keys import fields

    key, sign, value = incomplete.partition("=")
    if sign:
        return [f"{key}={v}" for v in _starting(choices(key), value)]
    files = [str(p) for p in sorted(Path().glob("*.yaml"))]
    return _starting([f"{name}=" for name in fields()] + files, incomplete)


def runs(incomplete: str) -> list[str]:
    """Names of the runs in results/, `group/run` of pipelines and sweeps."""
    from hpcft.runs.run import label, run_folders

    folder = Path("results")
    return _starting((label(root, folder) for root in run_folders(folder)), incomplete)


def groups(incomplete: str) -> list[str]:
    """Names of the pipelines and sweeps in results/."""
    from hpcft.runs.run import run_folders

    folder = Path("results")
    return _starting(sorted({r.parent.name for r in run_folders(folder) if r.parent != folder}), incomplete)


def runs_and_groups(incomplete: str) -> list[str]:
    """Names of both."""
    return groups(incomplete) + runs(incomplete)


def choices(key: str) -> list[str]:
    """All values of a key that has a fixed set of them; empty of any other."""
    from hpcft.spec.keys import fields
    from hpcft.spec.variants import VARIANTS

    if key == "variant":
        return list(VARIANTS)
    field = fields().get(key)
    if field is None:
        return []
    found: list[str] = []
    _collect(field.annotation, found)
    return found


def _collect(annotation: Any, found: list[str]) -> None:
    if annotation is bool:
        found += ["true", "false"]
    elif typing.get_origin(annotation) is Literal:
        found += [str(value) for value in typing.get_args(annotation)]
    else:
        for inner in typing.get_args(annotation):
            _collect(inner, found)


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    # zsh evaluates what it is offered, and files can be called anything: only what a script could carry is offered.
    return [word for word in words if word.startswith(incomplete) and path_fault(word) is None]


def datasets(incomplete: str) -> list[str]:
    """Names of the sets whose versions are in results/."""
    home = Path("results") / "data_versions"
    return _starting([p.name for p in home.iterdir() if p.is_dir()] if home.is_dir() else [], incomplete)

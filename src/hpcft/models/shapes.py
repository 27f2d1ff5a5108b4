"""How many parameters a model has, and of which kind, told from names and shapes without loading a weight."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hpcft.models.groups import FAMILIES, target_modules
from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters.

    Attributes:
        linear: in the matrices that a variant in 4 or 8 bits quantises. rows: these matrices' rows, all together.
        rest: everything else of the base: embedding, output head, norms, biases.
        head: of a classifier, trained whole beside an adapter; part of `rest` too.
        adapter: in LoRA's matrices; 0 where all weights are trained.
        largest: in the largest matrix. largest_linear: in the largest of those that are quantised.
    """

    linear: int
    rows: int
    rest: int
    head: int
    adapter: int
    largest: int
    largest_linear: int

    @property
    def base(self) -> int:
        """The base model's."""
        return self.linear + self.rest

    def trainable(self, full: bool) -> int:
        """Those that training changes."""
        return self.base if full else self.adapter + self.head


def count(shapes: Shapes, model_type: str, job: Job) -> Weights:
    """Count a model's parameters by how the job's variant holds them.

    Args:
        shapes: name of a weight → its shape; tied weights once.
        model_type: of the base's configuration.
    """
    family = FAMILIES.get(model_type)
    kept = () if family is None else (*family.lm_head, *family.head, "pooler", "pooler.dense")
    embeddings = () if family is None else family.embed
    head = () if family is None else family.head
    adapter = VARIANTS[job.variant].adapter is not None
    targets = target_modules(job.lora, model_type) if adapter else []
    linear = rows = rest = heads = added = largest = largest_linear = 0
    for name, shape in shapes.items():
        size, module = prod(shape), name.removesuffix(".weight").removesuffix(".bias")
        is_matrix = len(shape) == 2 and name.endswith(".weight")
        if is_matrix:
            largest = max(largest, size)
        if is_matrix and not _ends(module, (*kept, *embeddings)):
            linear += size
            rows += shape[0]
            largest_linear = max(largest_linear, size)
        else:
            rest += size
        if _ends(module, head):
            heads += size
        if is_matrix and _fits(module, targets):
            added += job.lora.r * (shape[0] + shape[1])
    return Weights(linear, rows, rest, heads if adapter else 0, added, largest, largest_linear)


def _ends(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _fits(module: str, targets: list[str] | str) -> bool:
    """As PEFT matches: one regular expression for the whole name, or ends of names."""
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return _ends(module, targets)


def file_shapes(folder: Path) -> dict[str, list[int]]:
    """Names and shapes in the headers of a folder's safetensors files; empty when one cannot be read.

    The format: 8 bytes with the header's length (little endian), the header in JSON, the tensors' bytes.
    """
    found: dict[str, list[int]] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, TypeError, LookupError):
        return {}
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json; empty when it cannot be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

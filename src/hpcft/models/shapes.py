"""How many parameters a model has, and of which kind, told from names and shapes without loading a weight."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hpcft.models.groups import FAMILIES, layer_of
from hpcft.models.targets import adapted, initial_rank, prompt_size
from hpcft.spec.job import Job
from hpcft.spec.variants import LORA_LIKE, VARIANTS
from hpcft.viz.adapters import AdapterPart

_BOTTLENECK = re.compile(r"\.\d+\.(?P<module>.+?)\.bottleneck_")
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters.

    Attributes:
        linear: in the matrices that a variant in 4 or 8 bits quantises. rows: these matrices' rows, all together.
        rest: everything else of the base: embedding, output head, norms, biases.
        head: of a classifier, trained whole beside an adapter; part of `rest` too.
        adapter: of the adapter; 0 where all weights are trained.
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


def count(shapes: Shapes, config: Mapping[str, Any], job: Job) -> Weights:
    """Count a model's parameters by how the job's variant holds them.

    Args:
        shapes: name of a weight → its shape; tied weights once.
        config: the base's configuration.
    """
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    kept = () if family is None else (*family.lm_head, *family.head, "pooler", "pooler.dense")
    embeddings = () if family is None else family.embed
    head = () if family is None else family.head
    method = VARIANTS[job.variant].adapter
    targets, inputs = adapted(job, model_type)
    linear = rows = rest = heads = largest = largest_linear = 0
    added = prompt_size(job, config)
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
            # GPT-2 keeps its matrices the other way round.
            wide, narrow = (shape[0], shape[1]) if model_type == "gpt2" else (shape[1], shape[0])
            added += _branch(job, module, wide, narrow, scales_inputs=_fits(module, inputs))
    return Weights(linear, rows, rest, heads if method else 0, added, largest, largest_linear)


def _branch(job: Job, module: str, inputs: int, outputs: int, *, scales_inputs: bool) -> int:
    """Parameters that an adapter adds to one layer of so many inputs and outputs."""
    method, rank = VARIANTS[job.variant].adapter, job.lora.r
    if method == "adalora":
        first = initial_rank(job)
        # With the scale of each rank, and the number that PEFT keeps of them.
        return first * (inputs + outputs) + first + 1
    if method in LORA_LIKE:
        return rank * (inputs + outputs) + (outputs if method == "dora" else 0)
    if method == "ia3":
        return inputs if scales_inputs else outputs
    if method == "bitfit":
        return outputs
    layer = layer_of(f"{module}.")
    if layer is not None and layer < job.peft.drop_layers:
        return 0
    width = max(1, outputs // job.peft.reduction)
    return 2 * width * outputs + width + outputs


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


def adapter_parts(folder: Path) -> list[AdapterPart]:
    """What a saved bottleneck adapter has in each layer, from the headers of its files; empty of any other adapter."""
    sizes: dict[tuple[int, str], int] = {}
    for name, shape in file_shapes(folder).items():
        layer, part = layer_of(name), _BOTTLENECK.search(name)
        if layer is not None and part is not None:
            place = layer, part["module"]
            sizes[place] = sizes.get(place, 0) + prod(shape)
    return [AdapterPart(layer, module, size) for (layer, module), size in sorted(sizes.items())]


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json; empty when it cannot be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

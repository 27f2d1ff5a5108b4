"""GPTQ (Frantar et al. 2023) of a saved model, by llmcompressor.

A program of its own, which `hpcft.models.gptq` runs by its path with the interpreter of an environment that has
llmcompressor: that library pins others to versions that hpcft does not have, so nothing of hpcft is imported here.

    PYTHON -I gptq_program.py REQUEST.json ANSWER.json      quantise
    PYTHON -I gptq_program.py --versions                    print the versions of what it works with, as JSON

The request:
    model: folder or hub id. revision: of a hub model.
    output: folder that the quantised model is saved to.
    bits: 4 or 8, of each weight.
    dtype: of what stays as it is, such as "float32".
    rows: the calibration rows, each a mapping from the names of the model's inputs to lists of numbers.
    seed: of whatever is drawn.

The answer: `versions`, `layers` that were quantised, `group_size` (None: one scale a row of a matrix), `seconds`; or
`error`, one line.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("llmcompressor", "compressed-tensors", "transformers", "torch")
# Weights that share a scale. The first is what kernels for 4 bits are made for; small layers need smaller ones.
_GROUPS = (128, 64, 32)


class Refused(Exception):
    """This model cannot be quantised so; with the reason, for the user."""


def versions() -> dict[str, str]:
    """Of the libraries that decide what comes out."""
    return {name: version(name) for name in _LIBRARIES}


def group_size(widths: list[int], bits: int) -> int | None:
    """How many weights of a row share a scale: the largest size that divides every row; None for whole rows, which
    is enough for 8 bits."""
    if bits == 8:
        return None
    return next((size for size in _GROUPS if all(width % size == 0 for width in widths)), None)


def layers(model: Any) -> tuple[dict[str, int], list[str]]:
    """Linear layers of the model's body with the lengths of their rows, and the names of those outside of it, such
    as the head, which stay as they are.

    Raises:
        Refused: the body has none.
    """
    from torch import nn

    body = f"{model.base_model_prefix}."
    linear = {name: module.in_features for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inside = {name: width for name, width in linear.items() if name.startswith(body)}
    if not inside:
        raise Refused(f"{type(model).__name__} has no linear layers of the kind that GPTQ knows")
    return inside, [name for name in linear if name not in inside]


def quantize(request: dict[str, Any]) -> dict[str, Any]:
    """Quantise and save.

    Raises:
        Refused: the model is not of the right kind.
    """
    import torch
    import transformers
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    start = time.perf_counter()
    transformers.set_seed(request["seed"])
    source: dict[str, Any] = {"trust_remote_code": False, "revision": request.get("revision") or "main"}
    config = transformers.AutoConfig.from_pretrained(request["model"], **source)
    kind = (getattr(config, "architectures", None) or ["none"])[0]
    loader = getattr(transformers, kind, None)
    if loader is None:
        raise Refused(f"transformers {transformers.__version__} does not know the architecture {kind}")
    # llmcompressor brings one layer at a time to the GPU, where there is one.
    model = loader.from_pretrained(
        request["model"], dtype=getattr(torch, request["dtype"]), use_safetensors=True, **source
    )
    inside, outside = layers(model)
    size = group_size(list(inside.values()), request["bits"])
    weights: dict[str, Any] = {"num_bits": request["bits"], "type": "int", "symmetric": True, "strategy": "channel"}
    if size is not None:
        weights |= {"strategy": "group", "group_size": size}
    rows = request["rows"]
    # One row at a time: rows differ in length, and padding would count as text.
    oneshot(
        model=model,
        dataset=Dataset.from_list([{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]),
        recipe=GPTQModifier(config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=outside),
        num_calibration_samples=len(rows),
        max_seq_length=max(len(row["input_ids"]) for row in rows),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(request["output"], save_compressed=True)
    return {
        "versions": versions(),
        "layers": len(inside),
        "group_size": size,
        "seconds": time.perf_counter() - start,
    }


def main(arguments: list[str]) -> int:
    """Do what is asked for; 0 when it was done."""
    if arguments == ["--versions"]:
        import llmcompressor  # noqa: F401 (to see that it can be imported)

        print(json.dumps(versions()))
        return 0
    request, answer = map(Path, arguments)
    try:
        told = quantize(json.loads(request.read_text(encoding="utf-8")))
    except Refused as refused:
        told = {"error": str(refused)}
    except Exception as error:
        # Any library's own mistake or the model's; the whole of it is in the log, and the caller tells the user.
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        told = {"error": f"{type(error).__name__}: {lines[0]}"}
    answer.write_text(json.dumps(told), encoding="utf-8")
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

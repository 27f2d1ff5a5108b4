"""The parallelism table as a page: what was trained, what is refused and why."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from support.matrix import DTYPES, ROWS, STAGES, STEPS, VARIANTS, Cell, all_cells
from support.matrix_driver import refusal

# Largest relative difference of a loss from one rank's. Sums in another order cost some float32 roundings; bfloat16
# gradients are rounded once more on their way between ranks.
TOLERANCE = {"float32": 2e-6, "bfloat16": 5e-4}


def difference(losses: list[float], reference: list[float]) -> float:
    """Largest relative difference of two loss curves of the same length."""
    assert len(losses) == len(reference) == STEPS
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))


def page(reference: dict[Cell, dict[str, Any]], places: dict[str, dict[Cell, dict[str, Any]]]) -> str:
    """The page.

    Args:
        reference: of one rank. places: by the name of a place, such as `one node`, its cells' results.
    """
    heads = [f"ZeRO {zero}" + ("" if offload == "none" else f", {offload}") for zero, offload in STAGES]
    lines = [
        "# What works together",
        "",
        "Made by `make parallelism`. Each ✓ is a number of jobs that were trained through the whole way, two ranks on",
        "the CPU: every combination of gradient accumulation 1 and 2, with and without gradient checkpointing, on "
        + " and on ".join(f"{name}" for name in places)
        + ".",
        f"A cell counts when the losses of its {STEPS} optimizer steps equal those of one rank with the same batches",
        f"(relative difference at most {TOLERANCE['float32']:g} in float32, {TOLERANCE['bfloat16']:g} in bfloat16) and",
        "its weights were saved and verified. A number in brackets is a refusal before submission, with its reason",
        "below.",
        "",
        "| variant | dtype | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    reasons: list[str] = []
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for variant in VARIANTS:
        for dtype in DTYPES:
            row = []
            for zero, offload in STAGES:
                cells = [
                    c for c in all_cells() if (c.variant, c.dtype, c.zero, c.offload) == (variant, dtype, zero, offload)
                ]
                why = {refusal(c) for c in cells}
                if None not in why:
                    row.append(" ".join(f"[{_number(reasons, w)}]" for w in sorted(filter(None, why))))
                    continue
                good = total = 0
                for found in places.values():
                    for cell in cells:
                        losses = found.get(cell, {}).get("losses")
                        far = difference(losses, reference[cell.reference]["losses"]) if losses else float("inf")
                        good += far <= TOLERANCE[dtype]
                        total += 1
                        worst[dtype] = max(worst[dtype], far)
                row.append(f"{'✓' if good == total else '✗'} {good} of {total}")
            lines.append(f"| {variant} | {dtype} | " + " | ".join(row) + " |")
    lines += ["", *(f"[{i}] {reason}." for i, reason in enumerate(reasons, 1)), ""]
    lines += [
        "`optimizer` and `all` are `training.offload`. One rank without DeepSpeed, which every figure is compared",
        "with, works in all variants, in float32 and bfloat16. float16 was tried on no GPU so far; on the CPU it is",
        "refused.",
        "",
        f"Largest difference seen: float32 {worst['float32']:.1e}, bfloat16 {worst['bfloat16']:.1e}. A Llama of two",
        f"layers, {ROWS} rows, seed 42; {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "peft", "deepspeed", "bitsandbytes"))
        + ".",
        "",
    ]
    return "\n".join(lines)


def _number(reasons: list[str], why: str) -> int:
    if why not in reasons:
        reasons.append(why)
    return reasons.index(why) + 1


def write(path: Path, text: str) -> None:
    """Write the page."""
    path.write_text(text, encoding="utf-8")

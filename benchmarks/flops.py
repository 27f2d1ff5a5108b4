"""FLOPs of a forward by five ways of counting, on six models: which of them can be trusted with what?

    .venv/bin/python benchmarks/flops.py [--tokens 256] [--layers 12]

Real weights, random ones, in float32 on the CPU with PyTorch's fused attention (SDPA), as a user would count them.
A multiply-add is two FLOPs; fvcore, which counts it as one, is shown as it answers. Printed as Markdown; shares are of
the formula.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

from hpcft.measure.flops import analytic_forward_flops, forward_flops
from hpcft.measure.fvcore_flops import Logits, traced_forward_flops
from hpcft.models.quantization import nf4_config

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        rank: of a LoRA adapter on all projections; 0 for none.
        labels: classes of a classifier, or None.
    """

    name: str
    kv_heads: int = 8
    rank: int = 0
    nf4: bool = False
    labels: int | None = None

    @property
    def adapter(self) -> LoraConfig | None:
        """The adapter's configuration."""
        return LoraConfig(r=self.rank, target_modules=ALL, task_type="CAUSAL_LM") if self.rank else None

    def config(self, layers: int) -> LlamaConfig:
        """The model's."""
        return LlamaConfig(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=self.kv_heads,
            vocab_size=8000,
            pad_token_id=0,
            num_labels=self.labels or 2,
        )

    def load(self, layers: int) -> Any:
        """The model, as training or `hpcft bench` would have it in memory."""
        loader: Any = AutoModelForCausalLM if self.labels is None else AutoModelForSequenceClassification
        model = loader.from_config(self.config(layers))
        if self.nf4:
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                quantization = nf4_config(torch.float32)
                model = loader.from_pretrained(Path(folder), quantization_config=quantization, dtype=torch.float32)
        if self.adapter is not None:
            model = get_peft_model(model, self.adapter)
        return model.eval()


CASES = (
    Case("dense"),
    Case("GQA, 8 heads on 2", kv_heads=2),
    Case("GQA, LoRA r=8", kv_heads=2, rank=8),
    Case("GQA, LoRA r=20", kv_heads=2, rank=20),
    Case("GQA, NF4 with LoRA r=8", kv_heads=2, rank=8, nf4=True),
    Case("GQA, 3 classes", kv_heads=2, labels=3),
)


def fvcore_bare(model: Any, inputs: dict[str, torch.Tensor]) -> int:
    """fvcore as it comes, on the same trace."""
    analysis = FlopCountAnalysis(Logits(model, inputs, {"use_cache": False}), tuple(inputs.values()))
    with torch.no_grad():
        return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def torch_bare(model: Any, inputs: dict[str, torch.Tensor]) -> int:
    """PyTorch's counter around a real forward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs, use_cache=False)
    return int(counter.get_total_flops())


def main() -> None:
    """Count, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--layers", type=int, default=12)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    ids = torch.full((1, given.tokens), 7)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    rows, taken = [], [0.0] * 4
    for case in CASES:
        config, model = case.config(given.layers), case.load(given.layers)
        truth = analytic_forward_flops(config, 1, given.tokens, adapter=case.adapter, num_labels=case.labels)
        ways: tuple[Callable[[], int], ...] = (
            lambda config=config, case=case: forward_flops(config, case.labels, case.adapter).of(1, given.tokens),
            lambda model=model: traced_forward_flops(model, inputs, use_cache=False),
            lambda model=model: fvcore_bare(model, inputs),
            lambda model=model: torch_bare(model, inputs),
        )
        counts = []
        for number, way in enumerate(ways):
            start = time.perf_counter()
            counts.append(way())
            taken[number] += time.perf_counter() - start
        shares = [f"{count / 1e9:.3f} ({count / truth:.4f})" for count in counts]
        rows.append([case.name, f"{truth / 1e9:.3f}", *shares])
    rows.append(["seconds a model", "", *(f"{seconds / len(CASES):.1f}" for seconds in taken)])
    packages = ("torch", "transformers", "peft", "bitsandbytes", "fvcore")
    print(
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, one thread; "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + f". One forward over {given.tokens} tokens, {given.layers} layers, GFLOP (share of the formula):\n"
    )
    head = ["model", "formula", "ours: twin", "ours: fvcore with handlers", "fvcore bare", "PyTorch's counter bare"]
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()

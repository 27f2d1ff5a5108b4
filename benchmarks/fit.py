"""What `hpcft fit` predicts against what real jobs need, on this machine's CPU.

Each case is a job of its own, run as any other (`hpcft submit --cluster local --wait`), on a model of random weights
whose rows all fill `data.max_length`. A process holds a gigabyte of libraries before it has a tensor; so what is
compared is the growth: the peak of resident memory of a case less that of the same job on a tiny model, with the
tensors that are predicted for both.

    python benchmarks/fit.py [CASE...] [--steps 3] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hpcft.measure.fit import GB, Estimate, Target
from hpcft.measure.twin_step import estimate_of
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run
from hpcft.spec.job import Job

# width, layers, vocabulary
SIZES = {"tiny": (64, 2, 512), "medium": (512, 8, 16_000), "deep": (256, 24, 4_000), "wide": (1024, 3, 8_000)}
LENGTH = 256


@dataclass(frozen=True)
class Case:
    """A model's size and what the job says besides."""

    size: str
    ranks: int = 1
    values: tuple[str, ...] = ()

    def pairs(self) -> list[str]:
        """For --set."""
        common = [f"resources.gpus_per_node={self.ranks}", "resources.accelerator=cpu", "evaluation.enabled=false"]
        common += ["data.packing=off", f"data.max_length={LENGTH}", "tracking.mode=disabled", "data.train_samples=0"]
        return [*common, *self.values]


def _values(variant: str, *more: str) -> tuple[str, ...]:
    return (f"variant={variant}", "lora.target_module_group=both", *more)


CASES = {
    "full": Case("medium", 1, _values("full", "training.gradient_accumulation_steps=1")),
    "full, accumulation 4": Case("medium", 1, _values("full")),
    "full, checkpointing": Case("medium", 1, _values("full", "training.gradient_checkpointing=true")),
    "full, deep": Case("deep", 1, _values("full")),
    "full, wide, batch 8": Case("wide", 1, _values("full", "training.per_device_train_batch_size=8")),
    "lora": Case("medium", 1, _values("lora")),
    "lora, checkpointing": Case("medium", 1, _values("lora", "training.gradient_checkpointing=true")),
    "lora, bfloat16": Case("medium", 1, _values("lora", "model.dtype=bfloat16")),
    "qlora": Case("medium", 1, _values("qlora")),
    "full, ZeRO 0": Case("medium", 2, _values("full", "training.zero=0")),
    "full, ZeRO 1": Case("medium", 2, _values("full", "training.zero=1")),
    "full, ZeRO 2": Case("medium", 2, _values("full", "training.zero=2")),
    "full, ZeRO 3": Case("medium", 2, _values("full", "training.zero=3")),
}


def measured(case: Case, size: str, folder: Path, steps: int) -> tuple[float, Job]:
    """Peak of resident memory of a rank in bytes, and the job; of a run that is there already, from its record."""
    name = f"{size}-{zlib.crc32(repr((case, steps)).encode()):08x}"
    pairs = [word for pair in case.pairs() for word in ("--set", pair)]
    command = [str(Path(sys.executable).with_name("hpcft")), "submit", "--cluster", "local", "--wait", "--name", name]
    command += ["--model", str(folder / size), "--dataset", "rows.jsonl", "--max-steps", str(steps), *pairs]
    root = folder / "results" / name
    if not (root / "done.json").is_file():
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    run = Run(root)
    return float(run.metrics["train/peak_rss_gb"]) * GB, Job.model_validate(run.config)


def tensors(estimate: Estimate) -> tuple[float, float]:
    """Predicted bytes of tensors, from and to; with what fragmentation may add."""
    own = [part for part in estimate.parts if part.name in (*estimate.tensors, "fragmentation")]
    return sum(p.low for p in own), sum(p.high for p in own)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", choices=[[], *CASES], metavar="CASE", help=f"{'; '.join(CASES)}")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept, and with it the runs; a temporary one when absent")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, no GPU")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "deepspeed")))
    print(f"each row {LENGTH} tokens, batch 4 a rank unless said; growth over the tiny model, GB of 1024³ bytes")
    head = ("case", "predicted", "measured", "measured/middle")
    print(f"{head[0]:<22} {head[1]:>15} {head[2]:>9} {head[3]:>16}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for size, (hidden, layers, vocab) in SIZES.items():
            if not (folder / size).is_dir():
                build_model(folder / size, steps=0, hidden=hidden, layers=layers, vocab=vocab)
        rows = [json.dumps({"source": f"{i} words and more " * 100, "target": f"{i}"}) for i in range(200)]
        (folder / "rows.jsonl").write_text("\n".join(rows))
        target = Target("cpu")
        for name in options.case or CASES:
            began, case = time.monotonic(), CASES[name]
            base, small = measured(case, "tiny", folder, options.steps)
            peak, job = measured(case, case.size, folder, options.steps)
            before, now = tensors(estimate_of(small, target)), tensors(estimate_of(job, target))
            low, high = ((b - a) / GB for a, b in zip(before, now, strict=True))
            growth = (peak - base) / GB
            inside = "" if low <= growth <= high else "  outside"
            ratio = growth / ((low + high) / 2)
            seconds = time.monotonic() - began
            print(
                f"{name:<22} {low:6.3f} to {high:5.3f} {growth:9.3f} {ratio:16.2f}{inside}  ({seconds:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()

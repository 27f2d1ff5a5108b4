"""Trains a list of cells of the parallelism table, one after the other, in one group of ranks.

    python -m support.matrix MODEL CELLS.json FOLDER

Each rank runs it with RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, or under srun. A process a cell
would spend its time importing. FOLDER/results.jsonl receives a line a cell: its losses, or its error.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import mapping_layer

STEPS = 2
ROWS = 32
VARIANTS = ("full", "lora", "qlora", "lora-int8")
DTYPES = ("float32", "bfloat16", "float16")
# (stage, offload); stage None is one rank without DeepSpeed.
STAGES = (
    (0, "none"),
    (1, "none"),
    (1, "optimizer"),
    (2, "none"),
    (2, "optimizer"),
    (3, "none"),
    (3, "optimizer"),
    (3, "all"),
)


@dataclass(frozen=True)
class Cell:
    """One way of training; `zero` None is the reference on one rank, with the batches of all the others together."""

    variant: str
    dtype: str
    zero: int | None
    offload: str
    accumulation: int
    checkpointing: bool

    @property
    def name(self) -> str:
        parts = (self.variant, self.dtype, f"z{self.zero}", self.offload, f"a{self.accumulation}")
        return "-".join((*parts, "ckpt" if self.checkpointing else "plain"))

    @property
    def reference(self) -> Cell:
        return Cell(self.variant, self.dtype, None, "none", self.accumulation, self.checkpointing)


def all_cells() -> list[Cell]:
    return [
        Cell(variant, dtype, zero, offload, accumulation, checkpointing)
        for variant, dtype, (zero, offload), accumulation, checkpointing in itertools.product(
            VARIANTS, DTYPES, STAGES, (1, 2), (False, True)
        )
    ]


def job_of(cell: Cell, model: str, world: int) -> Job:
    """The job of a cell.

    Raises:
        SpecError: it is refused before submission.
    """
    values: dict[str, Any] = {
        "variant": cell.variant,
        "model.name": model,
        "model.dtype": cell.dtype,
        "data.dataset": "quickstart",
        "data.train_samples": ROWS,
        "data.max_length": 192,
        "lora.lora_dropout": 0,
        "lora.target_module_group": "both",
        "training.max_steps": STEPS,
        "training.learning_rate": 5e-3,
        "training.warmup_steps": 0,
        "training.per_device_train_batch_size": 4 // world,
        "training.gradient_accumulation_steps": cell.accumulation,
        "training.gradient_checkpointing": cell.checkpointing,
        "training.offload": cell.offload,
        "evaluation.enabled": False,
        "resources.gpus_per_node": world,
        "resources.accelerator": "cpu",
    }
    if cell.zero is not None:
        values["training.zero"] = cell.zero
    return build([mapping_layer({k: str(v) for k, v in values.items()}, "cell")]).job


def train_cell(cell: Cell, model: str, folder: Path, rank: Any) -> dict[str, Any]:
    """Train one cell on this rank; the record of it on rank 0."""
    import torch
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from hpcft.runs.create import begin_attempt, make_run_directory
    from hpcft.runs.paths import RunPaths
    from hpcft.runs.run import Run
    from hpcft.train.ranks import from_first
    from hpcft.train.recorder import Recorder
    from hpcft.train.run import Context, train
    from hpcft.train.stop import StopRequest

    job = job_of(cell, model, rank.world_size)
    root = from_first(str(make_run_directory(folder, cell.name, cell.name).root) if rank.is_first else "")
    paths = RunPaths(Path(root))
    attempt = from_first(begin_attempt(paths) if rank.is_first else 0)
    if rank.is_first:
        paths.config.write_text(yaml.safe_dump({"variant": cell.variant}))
    recorder = Recorder(paths, attempt, 20) if rank.is_first else None
    began = time.monotonic()
    try:
        with patch("hpcft.train.finish.draw"):
            train(Context(job, paths, rank, torch.device("cpu"), attempt, recorder, StopRequest()))
    finally:
        if recorder is not None:
            recorder.close()
        # What transformers and accelerate keep for the life of a process, which is one job everywhere else.
        unset_hf_deepspeed_config()
        AcceleratorState._reset_state(reset_partial_state=False)
        GradientState._reset_state()
        gc.collect()
    if not rank.is_first:
        return {}
    losses = [float(e["loss"]) for e in Run(paths.root).events("step")]
    assert paths.done.is_file()
    return {"losses": losses, "seconds": time.monotonic() - began}


def main() -> None:
    model, cells, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    import torch

    from hpcft.train.ranks import barrier, join, read_rank

    rank = read_rank(os.environ)
    join(rank, torch.device("cpu"), deepspeed=rank.world_size > 1)
    for raw in json.loads(cells.read_text()):
        cell = Cell(**raw)
        # An error on one rank leaves the others waiting, so the first one ends them all: no cell here may fail.
        record = train_cell(cell, model, folder, rank)
        barrier()
        if rank.is_first:
            with (folder / "results.jsonl").open("a") as file:
                file.write(json.dumps({"cell": asdict(cell), **record}) + "\n")


if __name__ == "__main__":
    main()

"""Does a student learn more with its teacher than from the same data alone? Real jobs, one after the other.

    .venv/bin/python benchmarks/distill_gain.py [--dataset FILE.csv] [--seeds 3] [--rows 100] [--steps 200]

A teacher is trained from the quickstart model on 500 rows. For each seed a student of half its layers is trained twice
on fewer of them, in the same order: by variant distill, and with distill.alpha=0, where the objective is the
cross-entropy of the data alone. Compared is the plain loss on the same held-out inputs, of the epoch in which it is
lowest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from hpcft.runs.create import begin_attempt, make_run_directory
from hpcft.runs.run import Run
from hpcft.spec.build import build
from hpcft.spec.layers import mapping_layer
from hpcft.train.context import Context
from hpcft.train.ranks import Rank
from hpcft.train.recorder import Recorder
from hpcft.train.run import train
from hpcft.train.stop import StopRequest


def trained(folder: Path, name: str, values: dict[str, Any]) -> Run:
    """Do a job in this process."""
    job = build([mapping_layer(values, name)]).job
    paths = make_run_directory(folder, name, name)
    paths.config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    attempt = begin_attempt(paths)
    recorder = Recorder(paths, attempt, job.tracking.log_every)
    try:
        train(Context(job, paths, Rank(), torch.device("cpu"), attempt, recorder, StopRequest()))
    finally:
        recorder.close()
    return Run(paths.root)


def main() -> None:
    """Train, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="quickstart")
    for name, default in (("seeds", 3), ("rows", 100), ("steps", 200), ("teacher-steps", 300), ("max-length", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--init", default="every_nth", help="weights that the student begins with, or none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    common = {
        "data.dataset": given.dataset,
        "data.max_length": given.max_length,
        "data.split_seed": 1,
        "training.learning_rate": given.lr,
        "training.per_device_train_batch_size": 16,
        "training.gradient_accumulation_steps": 1,
        "evaluation.max_new_tokens": 1,
        "resources.accelerator": "cpu",
        "tracking.mode": "disabled",
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        own = {"variant": "full", "model.name": "quickstart", "training.max_steps": given.teacher_steps}
        teacher = trained(folder, "teacher", common | own)
        print(f"teacher: loss on the held-out inputs {teacher.metrics['final/validation_loss']:.4f}", flush=True)
        gains = []
        for seed in range(1, given.seeds + 1):
            told = common | {
                "variant": "distill",
                "distill.teacher": str(teacher.paths.final_model),
                "distill.temperature": given.temperature,
                "distill.init_from_teacher": given.init,
                "data.train_samples": given.rows,
                "training.max_steps": given.steps,
                "training.seed": seed,
            }
            runs = [trained(folder, f"{seed}-{share}", told | {"distill.alpha": share}) for share in (0.7, 0.0)]
            with_it, alone = (float(run.metrics["final/validation_loss"]) for run in runs)
            gains.append(alone - with_it)
            print(f"seed {seed}: with the teacher {with_it:.4f}, alone {alone:.4f}, gain {gains[-1]:+.4f}", flush=True)
        verdict = "better with the teacher" if min(gains) > 0 else "not better with the teacher"
        print(
            f"{verdict} at {sum(g > 0 for g in gains)} of {len(gains)} seeds; mean gain {statistics.mean(gains):+.4f}"
        )


if __name__ == "__main__":
    main()

"""Names that wandb is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcft.spec.identifiers import slug


def artifact_name(label: str) -> str:
    """An artifact's name; wandb refuses the blanks and the plus of labels such as `Full LoRA` and `LoRA+PTQ`.

    >>> artifact_name("LoRA+PTQ"), artifact_name("Full LoRA")
    ('model-lora-ptq', 'model-full-lora')
    """
    return f"model-{slug(label)}"


def run_name(label: str, dataset: str, run_id: str) -> str:
    """`{variant}_{dataset}_run_{id}`: the same for every attempt of a run, unlike a name with the time in it.

    >>> run_name("QLoRA", "data/pairs.csv", "k3f9")
    'QLoRA_pairs_run_k3f9'
    """
    stem = dataset.rstrip("/").rpartition("/")[2]
    for suffix in (".csv", ".tsv", ".jsonl", ".json"):
        stem = stem.removesuffix(suffix)
    return f"{label}_{stem}_run_{run_id}"


# Of what a step measures, what wandb is told; the event log has all of it.
_GRADIENTS = ("embed_norm", "attention_norm", "mlp_norm", "lm_head_norm", "total_norm")
_LESSONS = ("distill_loss", "distill_kl", "distill_ce")
STEP_METRICS = frozenset(["loss", "learning_rate", "grad_norm", "epoch", *_GRADIENTS, *_LESSONS])


def is_point(step: int, log_every: int, total_steps: int) -> bool:
    """Whether wandb is told of a step: every so many, and the last one."""
    return step % log_every == 0 or step == total_steps


# Other names of the same figures: those of the Trainer, and those that results of other programs use.
_ALIASES = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "train_runtime": "train/runtime_s",
    "train_samples_per_second": "train/throughput_samples_per_sec",
    "tokens_per_sec": "train/throughput_tokens_per_sec",
    "eval_loss": "validation/loss",
    "eval_accuracy": "validation/accuracy",
    "eval_f1": "validation/f1_score",
    "eval_f1_score": "validation/f1_score",
    **{name: f"gradients/{name}" for name in _GRADIENTS},
    # Of a distillation, a token each: what the teacher says, the divergence from it, the data's own answers.
    **{name: name.replace("_", "/", 1) for name in _LESSONS},
}


def canonical(metrics: dict[str, float]) -> dict[str, float]:
    """The same figures under the names that wandb, the tables and the pictures know them by.

    >>> canonical({"eval_loss": 1.5, "epoch": 2.0})
    {'validation/loss': 1.5, 'epoch': 2.0}
    """
    return {_ALIASES.get(name, name): value for name, value in metrics.items()}


def step_point(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What wandb is told of a step."""
    return canonical({name: value for name, value in metrics.items() if name in STEP_METRICS})

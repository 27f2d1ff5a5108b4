"""Names that wandb is given."""

from __future__ import annotations

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

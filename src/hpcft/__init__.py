"""hpcft: fine-tune language models on a Slurm cluster and know which way is worth its cost."""

__version__ = "0.1.0"

"""wandb, as a projection of the run directory: it may fail, hang or be absent, and nothing else does."""

"""The run directory: the one record of a run. wandb is a projection of it, an index a cache of it."""

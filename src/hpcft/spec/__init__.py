"""What a job is: its typed spec, presets, overrides, variants, and where each value came from."""

"""Training inside a job: the Hugging Face Trainer with DeepSpeed, and what this tool adds to it."""

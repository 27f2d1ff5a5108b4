"""The only code that talks to Slurm: profiles, batch scripts, submission, the queue."""

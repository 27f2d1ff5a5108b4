"""The only code that talks to Slurm: profiles, batch scripts, submission, the queue."""

import os

# Where submitit sets logging up at its import, it closes the handlers of everybody, and with absl's (which the
# scores load) standard error itself.
os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")

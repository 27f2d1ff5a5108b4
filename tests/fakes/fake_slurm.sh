#!/bin/sh
# Every name in slurm_bin is a link to this file: run the fake under the name that it was called by.
exec "${FAKE_SLURM_PYTHON:-python3}" -E -S "$(dirname "$0")/../fake_slurm.py" "$(basename "$0")" "$@"

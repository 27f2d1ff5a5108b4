"""What can be made again is on the machine's own disk, in a folder that is this user's alone: compiled parts, the
index of runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

# DeepSpeed's and PyTorch's C++ parts, and Triton's kernels.
VARIABLES = {"TORCH_EXTENSIONS_DIR": "torch_extensions", "TRITON_CACHE_DIR": "triton"}


def keep_compiled_parts(environ: MutableMapping[str, str]) -> Path | None:
    """Point the caches of compiled parts to the node's own disk; what the user or the profile has set stays.

    A home on NFS is slow for them, and its locks may be none, so that ranks that compile at once spoil each other's
    files. HPCFT_NODE_SCRATCH, else TMPDIR, else /tmp holds a folder `hpcft-<uid>`.

    Returns:
        The folder, or None when all is set already.
    """
    missing = [name for name in VARIABLES if name not in environ]
    if not missing:
        return None
    folder = own_folder(environ)
    for name in missing:
        environ[name] = str(folder / VARIABLES[name])
    return folder


def own_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """A folder on the node's own disk, a real one of this user that nobody else may write to; a fresh one where there
    is none: /tmp is everyone's, and what is compiled there is run."""
    base = Path(environ.get("HPCFT_NODE_SCRATCH") or environ.get("TMPDIR") or "/tmp")  # noqa: S108 (checked here)
    folder = base / f"hpcft-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:
        # No such disk on this node, or no right to write there.
        pass
    # Rarely needed, and slow to load for a list of runs.
    import tempfile

    return Path(tempfile.mkdtemp(prefix="hpcft-"))

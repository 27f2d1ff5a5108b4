"""Take addresses out of uv.lock, so that it pins versions and works against any mirror a site has.

uv writes the index's and each file's address into the lock. It needs neither: from a lock with versions alone it
resolves again with each locked version as its preference, and gets the same versions.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def strip(text: str) -> str:
    """The lock's text without addresses, hashes and the root's requirement list (uv rewrites them when it syncs).

    >>> strip('source = { registry = "mirror://host/index" }')
    'source = { registry = "index" }'
    """
    text = re.sub(r'registry = "[^"]*"', 'registry = "index"', text)
    text = re.sub(r"^sdist = \{.*\}\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^wheels = \[\n(?:.*\n)*?\]\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[package\.metadata\]\n(?:.+\n)*(?:\n|\Z)", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\[package\.metadata\.requires-dev\]\n(?:.+\n)*(?:\n|\Z)", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text)


if __name__ == "__main__":
    lock = Path(sys.argv[1] if len(sys.argv) > 1 else "uv.lock")
    before = lock.read_text(encoding="utf-8")
    after = strip(before)
    if after != before:
        lock.write_text(after, encoding="utf-8")

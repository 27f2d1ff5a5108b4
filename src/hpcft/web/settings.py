"""What a service serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a service serves.

    Attributes:
        results: folder of the run directories; where every submitted run goes.
        cluster: profile of what is submitted; None for the one that a submission takes by itself.
    """

    results: Path
    cluster: str | None = None

"""Figures to look into, without the second that each takes to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, each with its file's name as its label; nothing is written."""
    figures: list[Figure] = []

    def keep(self: Figure, path: Path, **options: object) -> None:
        figures.append(self)
        self.set_label(Path(path).name)
        self.draw_without_rendering()

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures

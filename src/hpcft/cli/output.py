"""Printing: data on stdout, talk on stderr, colours and bars only on a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(text: str) -> None:
    """Talk: a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(title: str, rows: list[tuple[str, str]]) -> None:
    """Two columns on stdout; as plain text where it is not a terminal."""
    if not rows:
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        grid = Table(title=title, show_header=False, title_justify="left", title_style="bold")
        grid.add_column(style="cyan")
        grid.add_column(overflow="fold")
        for label, value in rows:
            grid.add_row(label, value)
        Console().print(grid)
        return
    width = max(len(label) for label, _ in rows)
    print(title)
    for label, value in rows:
        print(f"  {label:<{width}}  {value}")


def as_json(value: Any) -> None:
    """Data for a program: one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str))

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
        from rich.text import Text

        # Text: rich takes what stands in brackets for its own marks.
        grid = Table(title=Text(title, style="bold"), show_header=False, title_justify="left")
        grid.add_column(style="cyan")
        grid.add_column(overflow="fold")
        for label, value in rows:
            grid.add_row(Text(label), Text(value))
        Console().print(grid)
        return
    width = max(len(label) for label, _ in rows)
    print(title)
    for label, value in rows:
        print(f"  {label:<{width}}  {value}")


def grid(head: list[str], rows: list[list[str]]) -> None:
    """Columns with a title each on stdout; as plain text where it is not a terminal."""
    lines = [[printable(cell) for cell in line] for line in [head, *rows]]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(header_style="bold")
        for title in lines[0]:
            shown.add_column(Text(title), overflow="fold")
        for line in lines[1:]:
            shown.add_row(*(Text(cell) for cell in line))
        Console().print(shown)
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """A folder can have any name, and a terminal obeys some characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def as_json(value: Any) -> None:
    """Data for a program: one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str))

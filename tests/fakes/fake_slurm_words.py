"""How the fake Slurm reads its options and says what real Slurm said."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import NoReturn

SAMPLES = Path(__file__).parents[1] / "data/slurm"


class Parser(argparse.ArgumentParser):
    """Options by their names in Slurm's manual; an unknown one ends the command as it does there.

    Args:
        command: its name.
        values: options with a value, `-J/--job-name --comment`.
        flags: options without one.
    """

    def __init__(self, command: str, values: str, flags: str) -> None:
        super().__init__(prog=command, add_help=False, allow_abbrev=False)
        for action, options in {"store": values, "store_true": flags}.items():
            for option in options.split():
                self.add_argument(*option.split("/"), action=action)

    def error(self, message: str) -> NoReturn:
        """Say it as Slurm does."""
        message = re.sub(r"unrecognized arguments: (\S+).*", r"unrecognized option '\1'", message)
        stop(f'{self.prog}: {message}\nTry "{self.prog} --help" for more information\n', 255)


def stop(text: str, code: int) -> NoReturn:
    """End with words on stderr."""
    sys.stderr.write(text)
    sys.exit(code)


def replay(sample: str, **replaced: str) -> NoReturn:
    """Answer as real Slurm did, with some of the sample's words replaced."""
    text = (SAMPLES / f"{sample}.txt").read_text()
    for old, new in replaced.items():
        text = text.replace(old, new)
    facts = json.loads((SAMPLES / "index.json").read_text())["samples"][sample]
    getattr(sys, facts["stream"]).write(text)
    sys.exit(facts["exit_code"])


def fill(template: str, values: dict[str, str]) -> str:
    """Fill `%T`, `%8j` (left, eight wide), `%.8j` (right) as squeue and sinfo do: a longer text is cut."""

    def cell(match: re.Match[str]) -> str:
        right, width, letter = match.groups()
        if letter not in values:
            stop(f"this fake knows no field %{letter}\n", 1)
        text = values[letter]
        if not width:
            return text
        text = text[: int(width)]
        return text.rjust(int(width)) if right else text.ljust(int(width))

    return re.sub(r"%(\.?)(\d*)([A-Za-z])", cell, template)

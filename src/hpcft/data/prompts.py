"""One prompt for training and evaluation alike; a model asked in other words than it learned answers worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Prompt:
    """Text around a source: `head` + source + `tail`; the answer follows."""

    name: str
    head: str
    tail: str

    def text(self, source: str) -> str:
        """The whole prompt."""
        return f"{self.head}{source}{self.tail}"


PROMPTS = {
    "e2e": Prompt(
        "e2e",
        "### Instruction: Generate a natural language description from the following structured data.\n\n### Input:\n",
        "\n\n### Output:\n",
    ),
    "summarize": Prompt(
        "summarize", "### Instruction: Summarize the following dialogue.\n\n### Dialogue:\n", "\n\n### Summary:\n"
    ),
    "plain": Prompt("plain", "", "\n"),
}
# By the name of the source's column.
_BY_COLUMN = {"mr": "e2e", "meaning_representation": "e2e", "dialogue": "summarize"}


def prompt_for(name: Literal["auto", "e2e", "summarize", "plain"], input_column: str) -> Prompt:
    """The prompt of a name; `auto` goes by the source's column and is plain where that says nothing."""
    return PROMPTS[_BY_COLUMN.get(input_column, "plain") if name == "auto" else name]

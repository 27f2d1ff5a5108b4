"""One prompt for training and evaluation alike; a model asked in other words than it learned answers worse."""

from __future__ import annotations

from dataclasses import dataclass

from hpcft.data.kinds import Columns


@dataclass(frozen=True)
class Prompt:
    """Text around a source: `head` + source + (`middle` + context) + `tail`; the answer follows."""

    name: str
    head: str
    tail: str
    middle: str = "\n\n### Context:\n"

    def text(self, source: str, context: str = "") -> str:
        """The whole prompt."""
        about = f"{self.middle}{context}" if context else ""
        return f"{self.head}{source}{about}{self.tail}"


PROMPTS = {
    "e2e": Prompt(
        "e2e",
        "### Instruction: Generate a natural language description from the following structured data.\n\n### Input:\n",
        "\n\n### Output:\n",
    ),
    "summarize": Prompt(
        "summarize", "### Instruction: Summarize the following dialogue.\n\n### Dialogue:\n", "\n\n### Summary:\n"
    ),
    "instruction": Prompt("instruction", "### Instruction:\n", "\n\n### Response:\n", "\n\n### Input:\n"),
    "question": Prompt("question", "### Question:\n", "\n\n### Answer:\n"),
    # The tokenizer's own template says how a chat looks; this is for one that has none.
    "chat": Prompt("chat", "### User:\n", "\n\n### Assistant:\n"),
    "plain": Prompt("plain", "", "\n", "\n"),
}
# By the name of the source's column.
_BY_COLUMN = {
    "mr": "e2e",
    "meaning_representation": "e2e",
    "dialogue": "summarize",
    "instruction": "instruction",
    "question": "question",
}


def prompt_for(name: str, columns: Columns) -> Prompt:
    """The prompt of a name; `auto` goes by the source's column and is plain where that says nothing."""
    if columns.is_chat:
        return PROMPTS["chat"]
    if name != "auto":
        return PROMPTS[name]
    if columns.task == "qa":
        return PROMPTS["question"]
    return PROMPTS[_BY_COLUMN.get(columns.source, "plain")]

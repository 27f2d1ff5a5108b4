"""How every verb's help ends: examples as they are typed, one a line, and what its exit codes mean."""

from __future__ import annotations

EXIT_CODES = {
    0: "ok",
    1: "failed",
    2: "usage: an option or argument that does not exist",
    65: "bad data",
    69: "Slurm, wandb or the hub not reachable",
    75: "stopped with everything saved; try again",
    77: "not allowed",
    78: "bad configuration, or refused by Slurm",
    130: "interrupted",
}

# Of every verb that submits a job.
SUBMIT_CODES = {0: "submitted; with --wait: finished", 1: "with --wait: failed"} | dict.fromkeys(
    (2, 65, 69, 75, 77, 78), ""
)


def ending(examples: list[str], codes: dict[int, str]) -> str:
    """The end of a verb's help.

    Args:
        examples: commands that run as they stand.
        codes: exit codes with what they mean here; "" for their usual meaning.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    meanings = "\n".join(f"  {code:>3}  {text or EXIT_CODES[code]}" for code, text in codes.items())
    # \b keeps a paragraph's lines as they are.
    return f"\b\nExamples:\n{shown}\n\n\b\nExit codes:\n{meanings}"

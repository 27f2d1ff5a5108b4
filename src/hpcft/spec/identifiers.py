"""The one gate for texts that become names in a batch script, in Slurm's tables or in a path.

An identifier is letters and digits of any script, `.`, `_` and `-`, 1 to 64 of them, and does not start with
`-` or `.`. Everything else is refused, not escaped: a name that needs escaping will meet, sooner or later, a
tool that does not escape.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

MAX_PATH = 1024


def identifier_fault(text: str) -> str | None:
    """Say what forbids `text` as an identifier, or None when it is one.

    >>> identifier_fault("gpu-a100.large")
    >>> identifier_fault("gpu; rm -rf /")
    "has ';' in it; letters, digits, '.', '_' and '-' are allowed"
    """
    if not text:
        return "is empty"
    if len(text) > 64:
        return f"has {len(text)} characters; 64 are allowed"
    for char in text:
        # str.isalnum() also takes superscripts and vulgar fractions, which \w does not mean to a reader.
        if not (char in "._-" or unicodedata.category(char)[0] in "LM" or unicodedata.category(char) == "Nd"):
            shown = repr(char) if char.isprintable() else f"the character U+{ord(char):04X}"
            return f"has {shown} in it; letters, digits, '.', '_' and '-' are allowed"
    if text[0] in "-.":
        return f"starts with {text[0]!r}"
    return None


def path_fault(text: str) -> str | None:
    """Say what forbids `text` as a path that is written into a batch script, or None when it may stand.

    Spaces and letters of any script may; what ends a line, a quote, or is a substitution to a shell or to
    sbatch's own file name patterns may not.
    """
    if not text:
        return "is empty"
    if len(text) > MAX_PATH:
        return f"has {len(text)} characters; {MAX_PATH} are allowed"
    if any(len(part.encode("utf-8", "replace")) > 255 for part in text.split("/")):
        return "has a part longer than the 255 bytes that a file's name may have"
    for char in text:
        if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029":
            return f"has the control character U+{ord(char):04X} in it"
        if char in "\"'\\`$%;&|<>*?!":
            return f"has {char!r} in it, which a batch script cannot carry safely"
    return None


def user_path(text: str) -> Path:
    """A path that a user typed. `~` of an unknown user stays as it is, where pathlib would raise, and so does one of a
    name that no user can have."""
    try:
        return Path(os.path.expanduser(text))  # noqa: PTH111
    except ValueError:
        return Path(text)


def slug(text: str) -> str:
    """The nearest identifier to `text`, lower case, for names that are derived and not asked for.

    >>> slug("LoRA+PTQ"), slug("Full LoRA"), slug("../..")
    ('lora-ptq', 'full-lora', 'x')
    """
    words = re.findall(r"[a-z0-9]+", unicodedata.normalize("NFKD", text).lower())
    return "-".join(words)[:48].strip("-") or "x"

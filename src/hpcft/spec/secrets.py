"""What looks like a secret, by its name or by itself: kept out of a run's record and of batch scripts."""

from __future__ import annotations

import re

# Whole words: TOKENIZERS_PARALLELISM holds no token; and a path to a secret (HF_TOKEN_PATH) is none.
_NAME = re.compile(
    r"(^|.*_)(TOKENS?|SECRETS?|PASS(WORD|WD|PHRASE)?|CREDENTIALS?|(API|ACCESS|PRIVATE)?KEYS?)(_(?!PATH$|FILE$|DIR$).*)?",
    re.IGNORECASE,
)
# A value that stands there; $NAME and $(cat file) are none.
_GIVEN = re.compile(r"""\b([A-Za-z_]\w*)=(?=["']?[^\s"'$`;&|])""")

# Secrets that tell themselves. No pattern looks far ahead from each place: a line may have a million letters.
_VALUES = (
    (re.compile(r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----).*?(?=-----END |\Z)", re.DOTALL), r"\1…"),
    # Of a key whose first line is not in the diff.
    (re.compile(r"(?m)^([+ -]?[ \t]*)[A-Za-z0-9+/]{60,}={0,2}[ \t\r]*$"), r"\1…"),
    # In an address: user and password, or a token alone.
    (re.compile(r"(://[^\s:/@]*:)[^\s@]+@"), r"\1…@"),
    (re.compile(r"(://)[^\s:/@…]+@"), r"\1…@"),
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}|\b(?:gh[pousr]|github_pat|wandb_v\d)_\w{16,}"), "…"),
    (
        re.compile(r"\bsk-(?=[\w-]{0,40}\d)[\w-]{16,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b"),
        "…",
    ),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"), "…"),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), r"\1…"),
    (
        re.compile(
            r"""(?i)(\b(?:login|password|passwd|key|token|secret)(?:\s+--[\w-]{1,30})?["'=:,(\s]+)(?:local-)?[0-9a-f]{32,}"""
        ),
        r"\1…",
    ),
    # As in a netrc.
    (re.compile(r"(?im)((?:^[+ -]?[ \t]*|\blogin\s+\S+\s+)password\s+)\S+"), r"\1…"),
    (re.compile(r"(?i)(--[\w-]{0,30}(?:token|secret|passw(?:or)?d|api-?key)(?:=|\s+))(?![$-])\S+"), r"\1…"),
)

# NAME=value, "name": "value", environ['NAME'] = 'value' and setenv("NAME", "value") where the name is a secret's.
_NAMED = (
    re.compile(
        r"""(?ix) ((?:token|secret|password|passwd|api[_-]?key|access_?key|private_?key|credential
        |authorization)[\w.-]{0,60} (?:["'\])\s]*[:=]|["']\s*,)\s*) (\S.*)"""
    ),
    re.compile(r"""([A-Z0-9]_KEYS?\b(?:["'\])\s]*[:=]|["']\s*,)\s*)(\S.*)"""),
    # A key may be anything, such as lambda; a long word is a secret.
    re.compile(r"""(?i)(key["'\])]*\s*[:=,]\s*["']?)[\w+/=-]{20,}"""),
)


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name holds a secret.

    >>> is_secret_name("WANDB_API_KEY"), is_secret_name("HF_TOKEN_PATH")
    (True, False)
    """
    return _NAME.fullmatch(name) is not None


def secret_in(line: str) -> str | None:
    """What a shell line gives that looks like a secret: the name of the variable, or `a word in it`; else None.

    >>> secret_in("export HF_TOKEN=abc"), secret_in('export HF_TOKEN="$(cat ~/.token)"')
    ('HF_TOKEN', None)
    """
    named = next((m[1] for m in _GIVEN.finditer(line) if is_secret_name(m[1])), None)
    return named or ("a word in it" if any(pattern.search(line) for pattern, _ in _VALUES) else None)


def without_secrets(text: str) -> str:
    """A text, such as a diff, whose secrets are left out: people do change their .env files.

    >>> without_secrets("+WANDB_API_KEY=abc\\n+lr: 1e-4")
    '+WANDB_API_KEY=…\\n+lr: 1e-4'
    """
    for pattern, instead in _VALUES:
        text = pattern.sub(instead, text)
    for named in _NAMED:
        text = named.sub(r"\1…", text)
    return text

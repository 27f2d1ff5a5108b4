"""`hpcft reference`: all verbs, keys and variables as one page, made from the command line and the job themselves."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from hpcft.cli.complete import choices
from hpcft.cli.main import VERBS
from hpcft.cli.texts import EXIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)

VARIABLES = {
    "HPCFT_CLUSTER": "cluster profile, where --cluster does not name one",
    "HPCFT_CACHE": "folder of the models that hpcft makes; ~/.cache/hpcft",
    "HPCFT_DEBUG": "set: tracebacks of errors, as with --debug",
    "HPCFT_SECTION__KEY": "any key of a job, such as HPCFT_TRAINING__LEARNING_RATE=1e-4",
    "WANDB_RUN_ID": "a W&B agent's run, which the job then is",
    "WANDB_BASE_URL": "address of a wandb server of your own",
    "HF_HOME, HF_HUB_CACHE": "where models and data sets from the hub are kept",
    "HF_TOKEN_PATH": "file with the hub's token, written by `hf auth login`",
}


@app.command(
    epilog=ending(["hpcft reference > reference.md", "hpcft reference --man > hpcft.1"], {0: "printed", 2: ""})
)
def reference(man: bool = typer.Option(False, "--man", help="As a man page: man -l hpcft.1")) -> None:
    """Print the reference of all verbs, keys and variables."""
    print(man_page() if man else page(), end="")


def commands() -> list[tuple[str, Any]]:
    """(words, command) of every verb, those inside a verb behind it."""
    found: list[tuple[str, Any]] = []
    for verb in VERBS:
        command = typer.main.get_command(import_module(f"hpcft.cli.{verb}").app)
        inner = getattr(command, "commands", {})
        found += [(f"hpcft {verb} {name}", inner[name]) for name in inner] or [(f"hpcft {verb}", command)]
    return found


def _parameters(command: Any) -> list[tuple[str, str, str]]:
    """(spelling, what it takes, help) of a command's arguments and options."""
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        is_option = parameter.param_type_name == "option"
        spelling = ", ".join(parameter.opts) if is_option else parameter.name.upper()
        takes = "" if getattr(parameter, "is_flag", False) else (parameter.metavar or "VALUE")
        if not is_option:
            spelling, takes = takes if takes != "VALUE" else spelling, ""
        rows.append((spelling, takes, (parameter.help or "").strip()))
    return rows


def _epilog(command: Any) -> list[str]:
    return [line for line in (command.epilog or "").splitlines() if line != "\b"]


def keys() -> list[tuple[str, str, str, str]]:
    """(key, values, default, meaning) of every key of a job."""
    from hpcft.spec.keys import SHORT_NAMES, fields

    short: dict[str, list[str]] = {}
    for name, key in SHORT_NAMES.items():
        short.setdefault(key, []).append("--" + name.replace("_", "-"))
    rows = []
    for key, field in fields().items():
        default = field.get_default(call_default_factory=True)
        meaning = "; ".join(filter(None, [field.description, ", ".join(short.get(key, []))]))
        shown = "" if default is None or default == [] or default == "" else str(default)
        rows.append((key, _values(key, field), shown, meaning))
    return rows


def _values(key: str, field: Any) -> str:
    if known := choices(key):
        return " or ".join(known)
    words = {str: "text", int: "whole number", float: "number", list: "list"}
    kind = next((words[t] for t in _types(field.annotation) if t in words), "text")
    if kind == "list":
        return kind
    limits: list[tuple[Any, str]] = []
    for limit in field.metadata:
        for name, form in (("ge", "from {}"), ("gt", "above {}"), ("le", "to {}"), ("lt", "below {}")):
            if (bound := getattr(limit, name, None)) is not None:
                limits.append((bound, form))
    return " ".join([kind, *(form.format(bound) for bound, form in limits)])


def _types(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    found = [origin or annotation]
    for inner in typing.get_args(annotation):
        found += _types(inner) if not isinstance(inner, str | int | float) else []
    return found


def profile_keys() -> list[tuple[str, str]]:
    """(key, meaning) of every key of a cluster profile."""
    from hpcft.cluster.profile import Profile

    text = (Profile.__doc__ or "").partition("Attributes:")[2]
    meanings: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        name, mark, rest = line.strip().partition(": ")
        if mark and name in Profile.model_fields:
            last, meanings[name] = name, rest
        elif last and line.strip():
            meanings[last] += f" {line.strip()}"
    return [(name, field.description or meanings.get(name, "")) for name, field in Profile.model_fields.items()]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def page() -> str:
    """The reference in Markdown."""
    lines = ["# Reference", "", "Made by `make reference` from the command line and the job themselves.", ""]
    lines += ["## Verbs", ""]
    for words, command in commands():
        rows = [(f"`{spelling} {takes}`".replace(" `", "`"), text) for spelling, takes, text in _parameters(command)]
        lines += [f"### {words}", "", (command.help or "").strip(), ""]
        if rows:
            lines += [*_table(("option", "meaning"), rows), ""]
        lines += ["```text", *_epilog(command), "```", ""]
    lines += ["## Exit codes", "", *_table(("code", "meaning"), [(str(c), t) for c, t in EXIT_CODES.items()]), ""]
    lines += ["## Keys of a job", ""]
    rows4 = [(f"`{key}`", values, f"`{d}`" if d else "", text) for key, values, d, text in keys()]
    lines += [*_table(("key", "values", "default", "meaning"), rows4), ""]
    lines += ["## Keys of a cluster profile", ""]
    lines += [*_table(("key", "meaning"), [(f"`{k}`", t) for k, t in profile_keys()]), ""]
    lines += ["## Environment", "", *_table(("variable", "meaning"), [(f"`{v}`", t) for v, t in VARIABLES.items()]), ""]
    return "\n".join(lines)


def man_page() -> str:
    """The reference as a man page (roff)."""
    lines = [
        '.TH HPCFT 1 "" "hpcft" "User Commands"',
        ".SH NAME",
        "hpcft \\- fine-tune language models on a Slurm cluster",
        ".SH SYNOPSIS",
        ".B hpcft",
        "VERB [OPTIONS]",
    ]
    for words, command in commands():
        lines += [f".SH {_roff(words.upper())}", _roff((command.help or "").strip())]
        for spelling, takes, text in _parameters(command):
            lines += [".TP", f"\\fB{_roff(spelling)}\\fR {_roff(takes)}", _roff(text)]
        lines += [".nf", *map(_roff, _epilog(command)), ".fi"]
    lines += [".SH KEYS OF A JOB"]
    for key, values, default, text in keys():
        lines += [
            ".TP",
            f"\\fB{_roff(key)}\\fR {_roff(values)}" + (f" [{_roff(default)}]" if default else ""),
            _roff(text),
        ]
    lines += [".SH ENVIRONMENT"]
    for name, text in VARIABLES.items():
        lines += [".TP", f"\\fB{_roff(name)}\\fR", _roff(text)]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    """Text without what roff would read as a request: a leading dot or quote, backslashes, hyphens that break."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain[:1] in ".'" else plain

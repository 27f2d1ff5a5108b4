"""`hpcft reference`: all verbs, keys and variables as one page, made from the command line and the job themselves."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from hpcft.cli.complete import choices
from hpcft.cli.job_options import Request, takes_job
from hpcft.cli.main import VERBS, verb_module
from hpcft.cli.texts import EXIT_CODES, ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)

VARIABLES = {
    "HPCFT_CLUSTER": "cluster profile, where --cluster does not name one",
    "HPCFT_CACHE": "folder of the models that hpcft makes; ~/.cache/hpcft",
    "HPCFT_INDEX": "folder of the index of runs, on a local disk; else the user's own in /tmp",
    "HPCFT_TOOLS": "folder that `hpcft tools install` installs into; ~/.local/share/hpcft/tools",
    "HPCFT_DEBUG": "set: tracebacks of errors, as with --debug",
    "HPCFT_SECTION__KEY": "any key of a job, such as HPCFT_TRAINING__LEARNING_RATE=1e-4",
    "WANDB_RUN_ID": "a W&B agent's run, which the job then is",
    "WANDB_BASE_URL": "address of a wandb server of your own",
    "HF_HOME, HF_HUB_CACHE": "where models and data sets from the hub are kept",
    "HF_TOKEN_PATH": "file with the hub's token, written by `hf auth login`",
}

FILES = {
    "jobs/NAME.yaml": "a preset, for --preset NAME; yours before the one that comes with hpcft",
    "hpc/NAME.yaml": "a cluster profile, for --cluster NAME; likewise",
    "hpcft.yaml": "keys of every job in this folder, and `cluster:`",
    "~/.config/hpcft/config.yaml": "keys of every job of yours, and `cluster:`",
    "~/.cache/hpcft/": "models that hpcft makes",
    "results/RUN/config.yaml": "the job, whole; a job file that can be submitted again",
    "results/RUN/job.sh": "the batch script, on a cluster",
    "results/RUN/job.log": "what the job printed",
    "results/RUN/data_report.json": "what a check of the data found, and its version",
    "results/data_versions/": "a file for each content of a data set",
    "results/RUN/status.json": "state, step and time of the last sign of life",
    "results/RUN/attempts/N/monitorRANK.jsonl": "load of processor, memory, storage and GPU while training",
    "results/RUN/done.json": "the end marker; where it is, the run has succeeded",
    "results/RUN/final_model/": "the adapter, or the whole model of variant full",
    "results/RUN/evaluation_results.json": "scores of the kept model",
    "results/RUN/predictions.jsonl": "every validation input, its answer, and what was right",
    "results/RUN/metrics.json": "costs: time, FLOPs, memory, parameters, tokens a second",
    "results/RUN/gradient_analysis.*": "gradient norms by group and layer at each step; of `hpcft sensitivity`",
    "results/RUN/checkpoints/": "the best and the last checkpoint",
    "results/RUN/attempts/N/events.jsonl": "one record for every optimizer step of the Nth attempt",
    "results/RUN/provenance.json, results/RUN/code/": "machine, versions, commit; the code itself",
    "results/RUN/wandb/": "wandb's files, and what of the run is known to be in wandb (`synced.json`)",
    "results/SWEEP/sweep.json, results/SWEEP/manifest.jsonl": "what a sweep is, and a line for each of its trials",
    "results/SWEEP/0007/": "the run directory of a trial, from its start on",
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
        command = typer.main.get_command(verb_module(verb).app)
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


def job_options() -> list[tuple[str, str, str]]:
    """`_parameters` that every verb about a job has."""

    @takes_job
    def none_of_its_own(request: Request) -> None: ...

    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(none_of_its_own)
    return _parameters(typer.main.get_command(app))


def _own(command: Any) -> tuple[list[tuple[str, str, str]], bool]:
    """A command's parameters without those about a job, and whether it has these."""
    rows, shared = _parameters(command), job_options()
    takes = all(row in rows for row in shared)
    return ([row for row in rows if row not in shared], True) if takes else (rows, False)


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


def _options(rows: list[tuple[str, str, str]]) -> list[str]:
    return _table(
        ("option", "meaning"), [(f"`{spelling} {takes}`".replace(" `", "`"), t) for spelling, takes, t in rows]
    )


def _named(head: str, meanings: dict[str, str]) -> list[str]:
    return _table((head, "meaning"), [(f"`{name}`", text) for name, text in meanings.items()])


def page() -> str:
    """The reference in Markdown."""
    lines = ["# Reference", "", "Made by `make reference` from the command line and the job themselves.", ""]
    lines += ["## Verbs", ""]
    for words, command in commands():
        own, about_job = _own(command)
        lines += [f"### {words}", "", (command.help or "").strip(), ""]
        if about_job:
            lines += ["Takes the [options of a job](#options-of-a-job)" + (", and:" if own else "."), ""]
        if own:
            lines += [*_options(own), ""]
        lines += ["```text", *_epilog(command), "```", ""]
    lines += ["## Options of a job", "", "A default stands in brackets.", "", *_options(job_options()), ""]
    lines += ["## Exit codes", "", *_table(("code", "meaning"), [(str(c), t) for c, t in EXIT_CODES.items()]), ""]
    lines += ["## Keys of a job", ""]
    rows = [(f"`{key}`", values, f"`{d}`" if d else "", text) for key, values, d, text in keys()]
    lines += [*_table(("key", "values", "default", "meaning"), rows), ""]
    lines += ["## Keys of a cluster profile", "", *_named("key", dict(profile_keys())), ""]
    lines += ["## Environment", "", *_named("variable", VARIABLES), ""]
    lines += ["## Files", "", *_named("file", FILES), ""]
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
        own, about_job = _own(command)
        lines += [f".SH {_roff(words.upper())}", _roff((command.help or "").strip())]
        lines += ["Takes the options of a job, see below."] * about_job
        lines += _terms(own)
        lines += [".PP", ".nf", *map(_roff, _epilog(command)), ".fi"]
    lines += [".SH OPTIONS OF A JOB", *_terms(job_options())]
    lines += [".SH KEYS OF A JOB"]
    lines += _terms((key, values + (f" [{default}]" if default else ""), text) for key, values, default, text in keys())
    for title, meanings in (
        ("KEYS OF A CLUSTER PROFILE", dict(profile_keys())),
        ("ENVIRONMENT", VARIABLES),
        ("FILES", FILES),
    ):
        lines += [f".SH {title}", *_terms((name, "", text) for name, text in meanings.items())]
    return "\n".join(lines) + "\n"


def _terms(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """(name, what it takes, meaning) as a list of terms."""
    return [
        line
        for name, takes, text in rows
        for line in (".TP", f"\\fB{_roff(name)}\\fR {_roff(takes)}".rstrip(), _roff(text) or "\\&")
    ]


def _roff(text: str) -> str:
    """Text without what roff would read as a request: a leading dot or quote, backslashes, hyphens that break."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain[:1] in ".'" else plain

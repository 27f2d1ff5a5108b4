"""The options by which verbs choose runs from the index, and the query that they give."""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from hpcft.cli.complete import groups, values
from hpcft.cli.listing import STATES, Filters
from hpcft.cli.listing import standings as standings  # the service asks by filters too
from hpcft.errors import UsageError

_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def takes_filters(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose runs; it receives them as its first argument, `Filters`."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    given_here = {p.name for p in _OPTIONS}

    @functools.wraps(function)
    def command(**given: Any) -> None:
        chosen = {name: value for name, value in given.items() if name in given_here}
        function(choose(**chosen), **{name: value for name, value in given.items() if name not in given_here})

    command.__signature__ = inspect.Signature([*_OPTIONS, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*_OPTIONS, *own]}
    return command


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_OPTIONS = [
    _parameter(
        "where",
        list[str],
        typer.Option(
            [],
            "--where",
            metavar="CONDITION",
            help="A setting, metric or column compared: 'lora.r>=8', 'f1>0.5', 'variant!=full', 'tags=paper', or "
            "'name~rank' (has it in it); may be repeated, and all have to hold.",
        ),
    ),
    _parameter(
        "state",
        list[str],
        typer.Option(
            [],
            "--state",
            metavar="STATE",
            help=f"One of {', '.join(STATES)}; may be repeated.",
            autocompletion=lambda: STATES,
        ),
    ),
    _parameter(
        "variant",
        str | None,
        typer.Option(None, "--variant", help="Of this variant.", autocompletion=values("variant")),
    ),
    _parameter("kind", str | None, typer.Option(None, "--kind", help="Of this kind of job: train, evaluate, bench, …")),
    _parameter("model", str | None, typer.Option(None, "--model", help="Whose model's name has this in it.")),
    _parameter("dataset", str | None, typer.Option(None, "--dataset", help="Whose data set's name has this in it.")),
    _parameter(
        "group",
        str | None,
        typer.Option(
            None, "--group", "--sweep", metavar="NAME", help="Of this pipeline or sweep.", autocompletion=groups
        ),
    ),
    _parameter(
        "name",
        str | None,
        typer.Option(None, "--name", metavar="TEXT", help="Whose name has this in it, or fits it: 'rank*', 'sweep/*'."),
    ),
    _parameter("tag", list[str], typer.Option([], "--tag", help="With this tag; may be repeated.")),
    _parameter(
        "since",
        str | None,
        typer.Option(None, "--since", "--start-date", metavar="WHEN", help="Submitted since: 30m, 2h, 3d, 2026-11-20."),
    ),
    _parameter(
        "until", str | None, typer.Option(None, "--until", "--end-date", metavar="WHEN", help="Submitted until then.")
    ),
    _parameter("min_accuracy", float | None, typer.Option(None, "--min-accuracy", min=0, max=1, help="Of 0 to 1.")),
    _parameter("max_accuracy", float | None, typer.Option(None, "--max-accuracy", min=0, max=1, help="Of 0 to 1.")),
    _parameter("max_runtime", float | None, typer.Option(None, "--max-runtime", min=0, help="Seconds of training.")),
    _parameter("results", Path, typer.Option(Path("results"), "--results", help="Folder of the run directories.")),
]


def choose(
    *,
    where: Sequence[str],
    state: Sequence[str],
    variant: str | None,
    kind: str | None,
    model: str | None,
    dataset: str | None,
    group: str | None,
    name: str | None,
    tag: Sequence[str],
    since: str | None,
    until: str | None,
    min_accuracy: float | None,
    max_accuracy: float | None,
    max_runtime: float | None,
    results: Path,
) -> Filters:
    from hpcft.runs.index.query import Condition, condition
    from hpcft.runs.run import group_folder

    found = [condition(text) for text in where]
    if group is not None:
        folder = group_folder(group, results)
        if folder is None:
            raise UsageError(f"no pipeline or sweep called '{group}'", where=str(results), hint="hpcft ls --groups")
        found.append(Condition("group", "=", folder.name))
    plain = (
        ("variant", "=", variant),
        ("kind", "=", kind),
        ("model", "~", model),
        ("dataset", "~", dataset),
        ("accuracy", ">=", min_accuracy),
        ("accuracy", "<=", max_accuracy),
        ("runtime", "<=", max_runtime),
        ("created", ">=", None if since is None else time_of(since, "--since")),
        ("created", "<=", None if until is None else time_of(until, "--until", end=True)),
    )
    found += [Condition(key, operator, str(value)) for key, operator, value in plain if value is not None]
    found += [Condition("tags", "=", text) for text in tag]
    if name is not None:
        found.append(Condition("run", "glob" if any(c in name for c in "*?[") else "~", name))
    return Filters(results, tuple(found), tuple(_state(text) for text in state))


def _state(text: str) -> str:
    if text.lower() not in STATES:
        raise UsageError(f"no state '{text}'", where="--state", hint=f"one of: {', '.join(STATES)}")
    return text.upper()


def time_of(text: str, option: str = "--since", *, end: bool = False) -> float:
    """A time as it is typed, in seconds since the epoch.

    Args:
        end: whether a day alone means its end.
    """
    if ago := _AGO.fullmatch(text):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"'{text}' is no time", where=option, hint="30m, 2h, 3d, 2w, 2026-11-20 or 2026-11-20T14:00"
        ) from None
    return moment + 86400 * (end and len(text) == len("2026-11-20"))

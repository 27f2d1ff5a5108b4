"""The options that every verb about a job takes, made from the table of keys, and the job that they give."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import choices, clusters, labs, pairs, presets, runs, sweeps, values
from hpcft.errors import UsageError
from hpcft.spec import assets
from hpcft.spec.identifiers import user_path
from hpcft.spec.keys import SHORT_NAMES, fields

if TYPE_CHECKING:
    # Help and completion need neither; they are loaded when a job is built.
    from hpcft.cluster.profile import Profile
    from hpcft.spec.build import Resolved
    from hpcft.spec.layers import Layer

# Options without a value, each of which switches a key off.
_SWITCHES = {
    "no_eval": ("evaluation.enabled", "No validation."),
    "no_layer_norm": ("gradients.layer_norm", "No gradient norms of single layers."),
}
# Characters of an option's choices, beyond which they stand in its help text, where lines may break.
_LONGEST_CHOICE = 55
# Keys without an option of their own for training; how variant ptq quantises is asked with it.
_OF_STAGES = ("bench.", "merge.")
# Of the typed layers the last ones: bare pairs, and options with `--set`.
COMMAND_LINE = 2
# What `hpcft data` asks of a job.
_OF_DATA = ("data.task", "data.validation", "data.max_length", "model.name", "lang", "results")
# Options that every job has.
ANY_JOB = ("name", "results", "lang", "model.trust", "resources.", "tracking.")


@dataclass
class Request:
    """What was typed about the job.

    Attributes:
        options: key → (text, the option as it is spelt).
        pairs: `--set` values. words: bare arguments, a spec file or `key=value`.
        kind: what the job does. subject: the run or model that it works on, unless it trains.
        means: values that the verb itself stands for; stronger than files and the environment, weaker than what was
            typed. verb: where those come from.
    """

    options: dict[str, tuple[str, str]] = field(default_factory=dict)
    pairs: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    preset: str | None = None
    cluster: str | None = None
    kind: str = "train"
    subject: str | None = None
    means: dict[str, Any] = field(default_factory=dict)
    verb: str = ""

    def spelled(self, *but: str) -> list[str]:
        """What was typed about the job, as it is spelt, but for some keys."""
        own = [flag for key, (_, flag) in self.options.items() if key not in but]
        own += ["--set" for pair in self.pairs if pair.partition("=")[0] not in but] + self.words
        return own + [flag for flag, on in (("--preset", self.preset), ("--cluster", self.cluster)) if on]


@dataclass
class Plan:
    """A job with the cluster that it is for.

    Attributes:
        reason: why this cluster, a sentence to print.
        stem: what a run is called that has no name.
    """

    resolved: Resolved
    profile: Profile
    reason: str
    stem: str


def _flags() -> dict[str, list[str]]:
    flags: dict[str, list[str]] = {}
    for short, key in SHORT_NAMES.items():
        flags.setdefault(key, []).append("--" + short.replace("_", "-"))
    return flags


def takes_job(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the job options; it receives them as its first argument, a `Request`."""
    return _with_options(function, "train")


def takes_subject(kind: str, sections: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same for a job that works on a run or a model, which is its first argument.

    Args:
        kind: of the job.
        sections: the beginnings of the keys that get options of their own.
    """
    return lambda function: _with_options(function, kind, sections)


def takes_pipeline(function: Callable[..., None]) -> Callable[..., None]:
    """The same for a pipeline, whose file is its first argument; the options are for all of its jobs."""
    return _with_options(function, "pipeline")


def takes_lab(function: Callable[..., None]) -> Callable[..., None]:
    """The same for a lab, whose method is its first argument; the options are for all of its jobs."""
    return _with_options(function, "lab")


def takes_sweep(function: Callable[..., None]) -> Callable[..., None]:
    """The same for a sweep, whose file or name is its first argument; the options are for all of its trials."""
    return _with_options(function, "sweep")


def takes_data(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a job that are about its data; data sets are named among the bare words."""
    return _with_options(function, "data", _OF_DATA)


def _subject_parameter(kind: str) -> inspect.Parameter:
    if kind == "pipeline":
        argument = typer.Argument(
            ...,
            metavar="PIPELINE",
            help=f"A file, or one that comes ready: {', '.join(assets.names('jobs/pipelines'))}.",
        )
    elif kind == "lab":
        from hpcft.spec.labs import LABS

        argument = typer.Argument(None, metavar="METHOD", help=f"One of {', '.join(LABS)}.", autocompletion=labs)
    elif kind == "sweep":
        argument = typer.Argument(
            ...,
            metavar="SWEEP",
            help=f"A file, or one that comes ready: {', '.join(assets.names('sweeps'))}; of --continue, --status and "
            "--stop a sweep's folder or name.",
            autocompletion=sweeps,
        )
    else:
        argument = typer.Argument(
            ...,
            metavar="RUN",
            help="A finished run (directory, name, id), a model's or adapter's folder, or a hub id.",
            autocompletion=runs,
        )
    return _parameter("subject", str | None if kind == "lab" else str, argument)


def _cluster_parameter() -> inspect.Parameter:
    return _parameter(
        "cluster",
        str | None,
        typer.Option(
            None,
            "--cluster",
            metavar="NAME",
            autocompletion=clusters,
            help="Cluster profile; else HPCFT_CLUSTER, the project's, Slurm if it answers, local.",
        ),
    )


def _with_options(function: Callable[..., None], kind: str, sections: tuple[str, ...] = ("",)) -> Callable[..., None]:
    parameters = [] if kind in ("train", "data") else [_subject_parameter(kind)]
    metavar, help_text = "[SPEC.yaml] [KEY=VALUE]…", "A job file, and values as section.key=value."
    if kind == "data":
        metavar, help_text = f"[DATASET]… {metavar}", f"Files, hub ids or known names; else the job's. {help_text}"
    parameters += [
        _parameter(
            "words",
            list[str] | None,
            typer.Argument(
                None,
                metavar=metavar,
                help=help_text,
                autocompletion=pairs,
            ),
        ),
        _parameter(
            "preset",
            str | None,
            typer.Option(
                None,
                "--preset",
                metavar="NAME",
                autocompletion=presets,
                help=f"A job that comes ready: {', '.join(assets.names('jobs'))}.",
            ),
        ),
        _parameter(
            "pairs",
            list[str] | None,
            typer.Option(
                None,
                "--set",
                metavar="KEY=VALUE",
                help="Any key of the job: --set lora.r=16; may be repeated.",
                autocompletion=pairs,
            ),
        ),
    ]
    if kind != "data":
        parameters.insert(-1, _cluster_parameter())
    if kind in ("train", "pipeline", "sweep", "lab"):
        for name, (_, text) in _SWITCHES.items():
            flag = "--" + name.replace("_", "-")
            parameters.append(_parameter(name, bool, typer.Option(False, flag, help=text)))
    names: dict[str, tuple[str, str]] = {}
    known = fields()
    for key, flags in _flags().items():
        foreign = key.startswith(_OF_STAGES) if kind in ("train", "sweep") else not key.startswith(sections)
        if foreign:
            continue
        name = key.replace(".", "__")
        names[name] = (key, flags[0])
        default = known[key].get_default(call_default_factory=True)
        text = known[key].description or key
        shown = "" if default is None else f" [{default}]"
        takes = "|".join(choices(key)) or "VALUE"
        if len(takes) > _LONGEST_CHOICE:
            takes, text = "VALUE", f"{text}: {takes.replace('|', ', ')}"
        option = typer.Option(
            None, *flags, metavar=takes, help=f"{text}{shown}", show_default=False, autocompletion=values(key)
        )
        parameters.append(_parameter(name, str | None, option))
    own = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    ]

    @functools.wraps(function)
    def command(**given: Any) -> None:
        request = Request(
            options={key: (given[n], flag) for n, (key, flag) in names.items() if given[n] is not None},
            pairs=given["pairs"] or [],
            words=given["words"] or [],
            preset=given["preset"],
            cluster=given.get("cluster"),
            kind=kind,
            subject=given.get("subject"),
        )
        for switch, (key, _) in _SWITCHES.items():
            if given.get(switch):
                request.options[key] = ("false", "--" + switch.replace("_", "-"))
        function(request, **{p.name: given[p.name] for p in own})

    command.__signature__ = inspect.Signature([*parameters, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*parameters, *own]}
    return command


def flag_of(key: str) -> str:
    """The option that sets a key: its own, or --set."""
    return next(iter(_flags().get(key, [])), f"--set {key}=VALUE")


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def plan(request: Request, allocation: dict[str, str] | None = None) -> Plan:
    """Put the layers together, choose the cluster, and build the job.

    Args:
        request: what was typed.
        allocation: resources of the allocation that it runs in, stronger than the profile's.

    Raises:
        SpecError, ConfigError, UsageError: with everything that is wrong.
    """
    layers = typed_layers(request)
    name = None
    if request.subject is not None:
        from hpcft.cli.subject import around

        named = [*_job_files(request), *layers[-COMMAND_LINE:]]
        layers, name = around(layers, named, request.kind, request.subject)
    resolved, profile, reason = resolve(layers, request.cluster, allocation)
    stem = request.preset or Path(resolved.job.data.dataset).stem
    return Plan(resolved, profile, reason, _stem(name or stem, request.kind if name else resolved.job.variant))


def typed_layers(request: Request) -> list[Layer]:
    """Everything that files, the environment and the command line say of the job, weakest first."""
    from hpcft.spec.layers import environment_layer, mapping_layer, pairs_layer

    layers = [*_file_layers(request), environment_layer(os.environ)]
    if request.means:
        layers.append(mapping_layer(request.means, request.verb))
    layers.append(pairs_layer([w for w in request.words if not _is_spec(w)], ""))
    layers.append(_strongest(request))
    return layers


def resolve(
    layers: list[Layer], cluster: str | None, allocation: dict[str, str] | None = None
) -> tuple[Resolved, Profile, str]:
    """The job of some layers, its cluster, and why that one.

    Raises:
        SpecError, ConfigError: with everything that is wrong.
    """
    from hpcft.cluster.profile import choose_cluster
    from hpcft.spec.build import build, merge
    from hpcft.spec.layers import CLUSTER, mapping_layer

    named = merge(layers)[0].get(CLUSTER)
    profile, reason = choose_cluster(cluster, named)
    gpu_type = merge(layers)[0].get("resources.gpu_type", (profile.resources.get("gpu_type"), ""))[0]
    own = profile.resources | profile.gpu_types.get(str(gpu_type), {}) | (allocation or {})
    resources = {f"resources.{key}": value for key, value in own.items()}
    return build([mapping_layer(resources, f"profile {profile.name}"), *layers]), profile, reason


def configured_cluster(request: Request) -> tuple[str, str] | None:
    """The cluster that configuration files name, and the place where one does."""
    from hpcft.spec.build import merge
    from hpcft.spec.layers import CLUSTER

    return merge(_file_layers(request))[0].get(CLUSTER)


def _stem(what: str, variant: str) -> str:
    from hpcft.spec.identifiers import slug

    return f"{slug(what)[:40]}_{variant}"


def _is_spec(word: str) -> bool:
    return "=" not in word


def _file_layers(request: Request) -> list[Layer]:
    from hpcft.spec.layers import yaml_layer

    layers: list[Layer] = []
    if request.preset is not None:
        layers.append(yaml_layer(assets.find("jobs", request.preset, what="preset", option="--preset")))
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    layers += [yaml_layer(p) for p in (home / "hpcft" / "config.yaml", Path("hpcft.yaml")) if p.is_file()]
    return layers + _job_files(request)


def _job_files(request: Request) -> list[Layer]:
    from hpcft.spec.layers import yaml_layer

    layers: list[Layer] = []
    for word in filter(_is_spec, request.words):
        if not word.endswith((".yaml", ".yml")):
            raise UsageError(
                f"'{word[:60]}' is neither a job file (.yaml) nor key=value",
                hint="presets are named with --preset",
            )
        layers.append(yaml_layer(user_path(word)))
    return layers


def _strongest(request: Request) -> Layer:
    """Named options and `--set` are equally strong, so the same key in both is a mistake."""
    from hpcft.spec.layers import Layer, Problem, options_layer, pairs_layer

    layer = pairs_layer(request.pairs, "--set")
    options = options_layer(request.options)
    twice = [
        Problem(options.values[key][1], key, f"is also set by {layer.values[key][1]}; keep one of them")
        for key in options.values
        if key in layer.values
    ]
    return Layer(layer.values | options.values, layer.problems + options.problems + twice)

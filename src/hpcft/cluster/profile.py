"""Cluster profiles: what a site is like, one YAML file each, and which one a job is for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import BaseLoader, MappingNode, MarkedYAMLError, SafeLoader, YAMLError, compose, load

from hpcft.cluster.slurm import controller_answers
from hpcft.errors import ConfigError
from hpcft.spec import assets
from hpcft.spec.build import build
from hpcft.spec.identifiers import path_fault
from hpcft.spec.layers import Problem, SpecError, mapping_layer
from hpcft.spec.secrets import is_secret_name, secret_in
from hpcft.spec.types import Identifier

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OPTION = re.compile(r"[a-z][a-z0-9-]{1,40}")
# Set by this tool from the job; a second value for one of them would silently win or lose.
_OURS = frozenset(
    [
        "job-name",
        "comment",
        "nodes",
        "ntasks",
        "ntasks-per-node",
        "cpus-per-task",
        "gpus-per-node",
        "mem",
        "time",
        "partition",
        "account",
        "qos",
        "constraint",
        "output",
        "error",
        "open-mode",
        "requeue",
        "no-requeue",
        "signal",
        "export",
        "chdir",
        "array",
        "wrap",
        "parsable",
        "wait",
        "export-file",
        "get-user-env",
        "quiet",
        "test-only",
    ]
)


_Names = TypeVar("_Names", dict[str, str], list[str])


def _line(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 or c in "\u2028\u2029\x85" for c in text):
        raise ValueError("has a line end or a control character in it")
    return text


def _script_path(text: str) -> str:
    if fault := path_fault(text):
        raise ValueError(fault)
    return text


def _variable(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is not the name of a variable")
    return name


def _no_secret(values: _Names) -> _Names:
    for name in values:
        if is_secret_name(name):
            raise _secret(name)
    return values


def _line_without_secret(text: str) -> str:
    if found := secret_in(text):
        raise _secret(found)
    return text


def _secret(what: str) -> ValueError:
    return ValueError(
        f"{what} looks like a secret, and a job's script and environment are no place for one; store it in "
        "~/.netrc (wandb login, hf auth login) where the job finds it, or in a file that only you can read"
    )


def _srun_options(values: list[str]) -> list[str]:
    for text in values:
        if not re.fullmatch(r"--[a-z][a-z-]+(=.*)?", text):
            raise ValueError(f"{text[:40]!r} is not an option of srun; write --name or --name=value")
        if any(text.partition("=")[0] == f"--{ours}" for ours in _OURS):
            raise ValueError(f"{text.partition('=')[0]} is set from the job")
    return values


def _not_ours(values: dict[str, str]) -> dict[str, str]:
    for name in values:
        if not _OPTION.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is not the name of an sbatch option")
        # sbatch takes abbreviations: --outpu is --output.
        if ours := next((option for option in sorted(_OURS) if option.startswith(name)), None):
            raise ValueError(f"--{ours} is set from the job; what can be chosen of it stands under resources")
    return values


Line = Annotated[str, AfterValidator(_line)]
OpenLine = Annotated[Line, AfterValidator(_line_without_secret)]
Variable = Annotated[str, AfterValidator(_variable)]


class Profile(BaseModel):
    """A site.

    Attributes:
        name: what it is called; the file's name when absent.
        description: a line for people.
        scheduler: `slurm`, or `local` for processes on this machine.
        resources: defaults for a job's `resources` section.
        gpu_types: for each type of GPU the `resources` that go with it, `{a100: {partition: gpu}}`; they hold where a
            job asks for that type.
        gpu_memory_gb: memory of a GPU of each type where its name does not tell, in GB of 1024³ bytes, `{a100: 79}`.
        modules: names for `module load`.
        setup: shell lines before the job, the only free shell there is: the profile's author is the user or the
            site's administrator.
        container: command that runs another one in a container, such as
            `[apptainer, exec, --nv, --bind, /scratch, /images/hpcft.sif]`; `python` is then the image's.
        srun: further options of srun, such as pyxis's `--container-image=/images/pytorch.sqsh`.
        node_scratch: a folder on each node's own disk for compiled parts; TMPDIR or /tmp when absent.
        internet: whether compute nodes reach the internet.
        env: variables for the job, such as HF_HOME or NCCL_SOCKET_IFNAME.
        export: names of variables that the job gets from the submitting shell.
        python: interpreter on the nodes; the submitting one when absent.
        sbatch: further sbatch options, `{exclude: node7}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    name: Identifier
    description: str = ""
    scheduler: Literal["slurm", "local"] = "slurm"
    resources: dict[str, Any] = Field(default_factory=dict)
    gpu_types: dict[Identifier, dict[str, Any]] = Field(default_factory=dict)
    gpu_memory_gb: dict[Identifier, float] = Field(default_factory=dict)
    modules: list[Identifier | Annotated[str, AfterValidator(_script_path)]] = Field(default_factory=list)
    setup: list[OpenLine] = Field(default_factory=list)
    container: list[OpenLine] = Field(default_factory=list)
    srun: Annotated[list[OpenLine], AfterValidator(_srun_options)] = Field(default_factory=list)
    node_scratch: Annotated[str, AfterValidator(_script_path)] | None = None
    internet: bool = False
    env: Annotated[dict[Variable, Line], AfterValidator(_no_secret)] = Field(default_factory=dict)
    export: Annotated[list[Variable], AfterValidator(_no_secret)] = Field(default_factory=list)
    python: Annotated[str, AfterValidator(_script_path)] | None = None
    sbatch: Annotated[dict[str, Line], AfterValidator(_not_ours)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_script_here(self) -> Self:
        for key in ("modules", "setup", "container", "srun", "sbatch", "gpu_types"):
            if self.scheduler == "local" and getattr(self, key):
                raise ValueError(f"{key} belongs to a batch script, and scheduler local has none")
        return self


def load_profile(name: str, where: str = "--cluster") -> Profile:
    """Read a profile.

    Args:
        name: of a file in `hpc/`, or a path that ends in .yaml.
        where: place of the name, for errors.

    Raises:
        ConfigError: there is none of that name, or it has errors; all of them are told.
    """
    path = assets.find("hpc", name, what="cluster profile", option=where)
    content, lines = _read(path)
    problems: list[Problem] = []
    for section, values in [("resources", content.get("resources")), *_per_type(content)]:
        if isinstance(values, dict):
            problems += _wrong_resources(section, values, str(path), lines)
    profile: Profile | None = None
    try:
        profile = Profile.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            key, message = _fault(dict(item))
            line = lines.get(key) or lines.get(key.partition(".")[0])
            problems.append(Problem(f"{path}:{line}" if line else str(path), key, message))
    if problems or profile is None:
        raise SpecError(problems)
    return profile


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML file as plain text, and the line of each key, inner ones by `outer.inner`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = compose(text, Loader=SafeLoader)
        # Plain text for every value: the types read it, and 24:00:00 stays what was written.
        content = load(text, Loader=BaseLoader)  # noqa: S506 (makes strings alone)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"is not valid YAML: {error.problem}", where=f"{path}:{line}") from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise ConfigError("is not a profile: it holds no keys", where=str(path))
    lines: dict[str, int] = {}
    _number(root, "", lines)
    return content, lines


def _number(node: Any, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            name = f"{prefix}{getattr(key, 'value', '?')}"
            lines.setdefault(name, key.start_mark.line + 1)
            _number(value, f"{name}.", lines)


def _per_type(content: dict[str, Any]) -> list[tuple[str, Any]]:
    types = content.get("gpu_types")
    return [(f"gpu_types.{name}", values) for name, values in types.items()] if isinstance(types, dict) else []


def _wrong_resources(section: str, values: dict[str, Any], path: str, lines: dict[str, int]) -> list[Problem]:
    """What is wrong with values for a job's `resources`, by the job's own rules."""
    layer = mapping_layer({f"resources.{key}": value for key, value in values.items()}, "")
    try:
        build([layer])
    except SpecError as error:
        found = []
        for problem in error.problems:
            name = problem.key.removeprefix("resources.") or _quoted(problem.message)
            key = f"{section}.{name}"
            line = lines.get(key) or lines.get(section)
            message = problem.message.replace("resources.", "") if not problem.key else problem.message
            found.append(Problem(f"{path}:{line}" if line else path, key if problem.key else "", message))
        return found
    return []


def _quoted(message: str) -> str:
    found = re.search(r"'resources\.([^']+)'", message)
    return found[1] if found else ""


def _fault(item: dict[str, Any]) -> tuple[str, str]:
    from difflib import get_close_matches

    key = ".".join(str(part) for part in item["loc"][:2])
    if item["type"] == "extra_forbidden":
        near = get_close_matches(key, list(Profile.model_fields), n=1)
        known = ", ".join(name for name in Profile.model_fields if name != "name")
        return key, "unknown key; " + (f"did you mean {near[0]}?" if near else f"known: {known}")
    return key, str(item["msg"]).removeprefix("Value error, ")


def choose_cluster(option: str | None, configured: tuple[str, str] | None) -> tuple[Profile, str]:
    """The profile that a job is for, and why, as a sentence.

    Args:
        option: `--cluster`.
        configured: (name, place) from a configuration file.
    """
    if option:
        return load_profile(option), f"cluster: {option} (--cluster)"
    if name := os.environ.get("HPCFT_CLUSTER"):
        return load_profile(name, "HPCFT_CLUSTER"), f"cluster: {name} (HPCFT_CLUSTER)"
    if configured:
        return load_profile(configured[0], configured[1]), f"cluster: {configured[0]} ({configured[1]})"
    if controller_answers():
        return load_profile("slurm"), "cluster: slurm (a controller answers; another one is named with --cluster)"
    return load_profile("local"), "cluster: local, this machine (no Slurm controller answers)"

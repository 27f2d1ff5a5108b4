"""Where the values of a job come from: YAML files, `HPCFT_*` variables, `a.b=c` pairs, named options.

All of them give plain text for each key; the job's own types read it. So `1e-4`, `yes` or `1:30:00` mean the
same wherever they stand, whatever YAML's rules for bare words would make of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from hpcft.errors import ConfigError, UsageError
from hpcft.spec.keys import allows_none, fields, is_list, nearest, sections

MAX_VALUES = 10_000
# Set beside a job's keys in configuration files; it chooses the profile and is not part of the job.
CLUSTER = "cluster"
_ENV_PREFIX = "HPCFT_"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a job: where it stands, which key, what is wrong."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


class SpecError(ConfigError):
    """All problems of a job at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        super().__init__(f"{count} in the job, nothing was started:\n" + "\n".join(f"  {p}" for p in problems))


@dataclass
class Layer:
    """Values from one source.

    Attributes:
        values: key → (value, where it stands).
        problems: what could not be read; shown together with the job's other errors.
    """

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, key: str, value: Any, where: str) -> None:
        """Add a value; text that says null, where the key allows it, is None."""
        if isinstance(value, str):
            if value.lower() in ("null", "none", "~", "") and allows_none(key):
                value = None
            elif value.lower() in ("null", "~") and key in fields():
                self.problems.append(Problem(where, key, "may not be null; leave it out for its default"))
                return
            elif is_list(key):
                value = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
        self.values[key] = (value, where)


def _shown(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def yaml_layer(path: Path) -> Layer:
    """Read a YAML file of sections and keys, remembering the line of each.

    Raises:
        ConfigError: the file cannot be read or is not YAML.
    """
    root, shown = yaml_root(path)
    if root is None:
        return Layer()
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("holds no keys; a job file is a mapping of sections", where=f"{shown}:1")
    return node_layer(root, shown)


def node_layer(node: yaml.MappingNode, shown: str) -> Layer:
    """The sections and keys of a mapping in a YAML file, with the line of each."""
    layer = Layer()
    _walk(node, "", shown, layer, [0])
    return layer


def yaml_root(path: Path) -> tuple[yaml.Node | None, str]:
    """A YAML file's top node, None of an empty file, and the file's name as it is shown.

    Raises:
        ConfigError: the file cannot be read or is not YAML.
    """
    shown = _shown(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return yaml.compose(text, Loader=yaml.SafeLoader), shown
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", where=shown) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "is a quote or a bracket left open?" if "end of stream" in str(error.problem) else None
        raise ConfigError(f"is not valid YAML: {error.problem}", where=f"{shown}:{line}", hint=hint) from error
    except yaml.YAMLError as error:
        raise ConfigError("is not valid YAML: it has control characters in it", where=shown) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=shown) from error


def entries(
    node: yaml.MappingNode, shown: str, problems: list[Problem], prefix: str = ""
) -> Iterator[tuple[str, str, yaml.Node]]:
    """The keys of a mapping in a YAML file, each with its place and its value; one that stands twice is a problem."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        where = f"{shown}:{key_node.start_mark.line + 1}"
        key = f"{prefix}{key_node.value}" if isinstance(key_node, yaml.ScalarNode) else f"{prefix}?"
        if key in seen:
            problems.append(Problem(where, key, f"stands twice, first in line {seen[key]}"))
            continue
        seen[key] = key_node.start_mark.line + 1
        yield key, where, value_node


def is_empty(node: yaml.Node) -> bool:
    """Whether nothing stands there, as of a key without a value."""
    return isinstance(node, yaml.ScalarNode) and not node.value


def _walk(node: yaml.MappingNode, prefix: str, shown: str, layer: Layer, count: list[int]) -> None:
    for key, where, value_node in entries(node, shown, layer.problems, prefix):
        if isinstance(value_node, yaml.MappingNode) and not prefix and key in sections():
            _walk(value_node, f"{key}.", shown, layer, count)
        elif key in sections() and not is_empty(value_node):
            layer.problems.append(Problem(where, key, "is a section: its keys stand indented below it"))
        elif key not in sections():
            value = _plain(value_node, count)
            quoted = isinstance(value_node, yaml.ScalarNode) and value_node.style in ("'", '"')
            if quoted:
                layer.values[key] = (value, where)
            else:
                layer.put(key, value, where)


def _plain(node: yaml.Node, count: list[int]) -> Any:
    """A node as text, or as lists and mappings of text."""
    count[0] += 1
    if count[0] > MAX_VALUES:
        raise ConfigError(f"holds more than {MAX_VALUES} values", where=str(node.start_mark.name))
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, count) for item in node.value]
    return {str(getattr(k, "value", "?")): _plain(v, count) for k, v in node.value}


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """`HPCFT_TRAINING__LEARNING_RATE=1e-4` sets training.learning_rate; names without `__` are not keys."""
    layer = Layer()
    for name in sorted(environ):
        section, mark, rest = name.removeprefix(_ENV_PREFIX).lower().partition("__")
        if name.startswith(_ENV_PREFIX) and mark:
            layer.put(f"{section}.{rest}", environ[name], name)
    return layer


def pairs_layer(pairs: Iterable[str], option: str) -> Layer:
    """`a.b=c` pairs, from `--set` or bare.

    Raises:
        UsageError: a pair without `=`.
    """
    layer = Layer()
    for pair in pairs:
        key, mark, value = pair.removeprefix("--").partition("=")
        where = f"{option} {pair}" if len(pair) <= 60 else f"{option} {pair[:57]}..."
        if not mark or not key:
            raise UsageError(f"'{pair[:60]}' is not of the form section.key=value", where=option or "argument")
        if key in layer.values and layer.values[key][0] != value:
            layer.problems.append(Problem(where.strip(), key, f"is also set by {layer.values[key][1]}"))
        layer.put(key, value, where.strip())
    return layer


def options_layer(options: Mapping[str, tuple[str, str]]) -> Layer:
    """Named options.

    Args:
        options: key → (text, the option as it is spelt).
    """
    layer = Layer()
    for key, (value, option) in options.items():
        layer.put(key, value, option)
    return layer


def mapping_layer(values: Mapping[str, Any], where: str) -> Layer:
    """Values that a program holds, such as a cluster profile's resources."""
    layer = Layer()
    for key, value in values.items():
        layer.put(key, value, where)
    return layer


def unknown_key(key: str) -> str:
    """The message for a key that does not exist."""
    if key in sections():
        first = next(name for name in fields() if name.startswith(f"{key}."))
        return f"{key!r} is a section; name a key in it, such as {first}"
    near = get_close_matches(key, sections(), n=1, cutoff=0.75) if "." not in key else []
    guess = f"the section {near[0]}" if near else nearest(key)
    shown = key if len(key) <= 60 else key[:57] + "..."
    return f"unknown key {shown!r}" + (f"; did you mean {guess}?" if guess else "; `hpcft config show` lists all")

"""W&B's sweep files, read as they are.

program: hpcft
command: [hpcft, run, --preset, quickstart, "${args_no_hyphens}"]
method: grid                                  # grid, random or bayes
metric: {name: final/validation_loss, goal: minimize}
parameters:
  lora.r: {values: [4, 8, 16, 32]}
  training.learning_rate: {distribution: log_uniform_values, min: 1e-5, max: 1e-3}
early_terminate: {type: hyperband, min_iter: 2}
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path

import yaml

from hpcft.errors import ConfigError
from hpcft.spec.layers import Problem, SpecError, entries, is_empty, yaml_root
from hpcft.spec.sweep import (
    DEFAULT_METRIC,
    DISTRIBUTIONS,
    GOALS,
    METHODS,
    EarlyEnd,
    Metric,
    Parameter,
    Sweep,
    key_problems,
)

# What W&B knows in a file and in its parts; some of it is for its server alone.
_KEYS = {
    "": (
        *("program", "command", "method", "metric", "parameters", "early_terminate", "run_cap", "name", "description"),
        *("project", "entity", "job", "image_uri", "launch", "scheduler", "controller"),
    ),
    "metric": ("name", "goal", "target", "impute", "impute_while_running"),
    "early_terminate": ("type", "min_iter", "max_iter", "s", "eta", "strict"),
}
_OF_PARAMETER = ("value", "values", "probabilities", "distribution", "min", "max", "q", "mu", "sigma", "parameters")
# exp of more is no number.
_MOST_EXPONENT = 700.0
_LISTED = ("constant", "categorical", "categorical_w_probabilities")


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        ConfigError: it cannot be read. SpecError: with everything that is wrong in it.
    """
    root, shown = yaml_root(path)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("is no sweep: it holds no keys", where=shown, hint="method: …, parameters: {…}, command: …")
    reader = _Reader(shown)
    sweep = reader.sweep(path.stem, root)
    problems = [*reader.problems, *key_problems(sweep)]
    if not sweep.parameters and not problems:
        problems.append(Problem(shown, "parameters", "there is nothing to try"))
    if problems:
        raise SpecError(problems)
    return sweep


class _Reader:
    """Reads the parts of a file, and keeps what is wrong with them."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.problems: list[Problem] = []

    def sweep(self, name: str, root: yaml.MappingNode) -> Sweep:
        """The whole file."""
        parts = self.mapping(root, "", _KEYS[""])
        method = self.choice(parts.get("method"), "method", METHODS, "grid")
        inner = self.mapping(parts.get("metric"), "metric", _KEYS["metric"])
        goal = self.choice(inner.get("goal"), "metric.goal", GOALS, "minimize")
        metric = Metric(_text(inner.get("name")) or DEFAULT_METRIC, goal)
        parameters = []
        for key, node in self.mapping(parts.get("parameters"), "parameters").items():
            if (parameter := self.parameter(key, node, method)) is not None:
                parameters.append(parameter)
        cap = self.number(parts.get("run_cap"), "run_cap")
        if cap is not None and (cap < 1 or cap != int(cap)):
            self.wrong(parts["run_cap"], "run_cap", "is the most trials: a whole number of at least 1")
        command = parts.get("command")
        words = [_text(item) for item in command.value] if isinstance(command, yaml.SequenceNode) else []
        words = words or _text(command).split()
        program = _text(parts.get("program"))
        return Sweep(
            _text(parts.get("name")) or name,
            method,
            tuple(parameters),
            metric,
            tuple(program if word == "${program}" else word for word in words),
            self.early_end(parts.get("early_terminate")),
            None if cap is None else int(cap),
            self.shown,
        )

    def mapping(self, node: yaml.Node | None, key: str, known: tuple[str, ...] = ()) -> dict[str, yaml.Node]:
        """A mapping's nodes by key; `known` are the ones that it may have, if not all."""
        if node is None or is_empty(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, key, "is no mapping: its keys stand indented below it")
            return {}
        prefix = f"{key}." if key and known else ""
        found: dict[str, yaml.Node] = {}
        for name, where, value in entries(node, self.shown, self.problems, prefix):
            own = name.removeprefix(prefix)
            if known and own not in known:
                self.problems.append(Problem(where, "", f"unknown key '{name[:60]}'{_guess(own, known, prefix)}"))
            else:
                found[own] = value
        return found

    def parameter(self, key: str, node: yaml.Node, method: str) -> Parameter | None:
        """One parameter, or None when it is wrong."""
        where, before = self.place(node), len(self.problems)
        parts = self.mapping(node, key, _OF_PARAMETER) if isinstance(node, yaml.MappingNode) else {}
        if "parameters" in parts:
            hint = f"write {key}.NAME: {{…}} as a key of its own"
            self.wrong(node, key, f"holds other parameters, which reach a command as one text; {hint}")
            return None
        values: tuple[str, ...] = ()
        listed = parts.get("values")
        if isinstance(listed, yaml.SequenceNode) and listed.value:
            values = tuple(_text(item) for item in listed.value)
        elif "value" in parts:
            values = (_text(parts["value"]),)
        numbers = {}
        for name in ("min", "max", "q", "mu", "sigma"):
            if (number := self.number(parts.get(name), f"{key}.{name}")) is not None:
                numbers[name] = number
        named = self.choice(parts.get("distribution"), f"{key}.distribution", tuple(DISTRIBUTIONS), "")
        whole = all("." not in _text(parts.get(n)) and "e" not in _text(parts.get(n)).lower() for n in ("min", "max"))
        guess = "categorical" if values else "int_uniform" if whole else "uniform"
        distribution = named or ("constant" if "value" in parts else guess)
        chances: tuple[float, ...] = ()
        if isinstance(weights := parts.get("probabilities"), yaml.SequenceNode):
            found = [self.number(item, f"{key}.probabilities") for item in weights.value]
            chances = tuple(chance for chance in found if chance is not None)
        parameter = Parameter(key, where, distribution, values, tuple(numbers.items()), chances)
        # An unknown key in it was perhaps meant to say what is missing.
        if len(self.problems) == before and (fault := _fault(parameter, method)):
            self.wrong(node, key, fault)
        return parameter if len(self.problems) == before else None

    def early_end(self, node: yaml.Node | None) -> EarlyEnd | None:
        """W&B's early_terminate: `min_iter`, or `max_iter` with `s` rungs below it."""
        if node is None:
            return None
        before = len(self.problems)
        parts = self.mapping(node, "early_terminate", _KEYS["early_terminate"])
        if len(self.problems) > before:
            return None
        self.choice(parts.get("type"), "early_terminate.type", ("hyperband",), "hyperband")
        found = {n: self.number(parts.get(n), f"early_terminate.{n}") for n in ("min_iter", "max_iter", "s", "eta")}
        eta = int(found["eta"] or 3)
        first, last, rungs = found["min_iter"], found["max_iter"], found["s"]
        if first is None and last is not None and rungs is not None and rungs >= 0:
            first = last * float(max(eta, 1)) ** -rungs
        if first is None or first < 1 or eta < 2:
            self.wrong(
                node, "early_terminate", "takes min_iter, or max_iter and s, of at least 1, and eta of at least 2"
            )
            return None
        return EarlyEnd(round(first), eta)

    def choice(self, node: yaml.Node | None, key: str, known: tuple[str, ...], default: str) -> str:
        """A text of a fixed set."""
        text = _text(node)
        if node is None or text in known:
            return text or default
        self.wrong(node, key, f"'{text[:40]}' is not one of {', '.join(known)}{_guess(text, known)}")
        return default

    def number(self, node: yaml.Node | None, key: str) -> float | None:
        """A finite number."""
        if node is None:
            return None
        try:
            value = float(_text(node))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.wrong(node, key, f"'{_text(node)[:40]}' is not a number")
            return None
        return value

    def wrong(self, node: yaml.Node, key: str, message: str) -> None:
        """Keep a problem."""
        self.problems.append(Problem(self.place(node), key, message))

    def place(self, node: yaml.Node) -> str:
        """Where a node stands."""
        return f"{self.shown}:{node.start_mark.line + 1}"


def _guess(text: str, known: tuple[str, ...], prefix: str = "") -> str:
    near = get_close_matches(text, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _fault(p: Parameter, method: str) -> str | None:
    if not p.values and not p.numbers:
        return "names no values: values: [a, b, c]; or a range: min and max"
    if p.distribution in _LISTED:
        if not p.values:
            return f"{p.distribution} needs values: [a, b, c]"
        if p.probabilities and (len(p.probabilities) != len(p.values) or sum(p.probabilities) <= 0):
            return f"has {len(p.values)} values and {len(p.probabilities)} probabilities"
        return None
    if method == "grid":
        return "is a range, and a grid needs values: [a, b, c]; or method: random"
    needed = [name for name in DISTRIBUTIONS[p.distribution] if name in ("min", "max")]
    if missing := [name for name in needed if name not in dict(p.numbers)]:
        return f"{p.distribution} needs {' and '.join(missing)}"
    if p.distribution == "log_uniform" and max(abs(p.number("min")), abs(p.number("max"))) > _MOST_EXPONENT:
        return "min and max of log_uniform are exponents of e; log_uniform_values takes the values themselves"
    low, high = p.bounds
    if needed and low >= high:
        return f"min is {p.number('min'):g}, which is not below max, {p.number('max'):g}"
    if "log_uniform" in p.distribution and low <= 0:
        return "a logarithmic range begins above 0"
    if p.distribution == "log_normal" and p.number("mu") + 9 * p.number("sigma", 1.0) > _MOST_EXPONENT:
        return "mu and sigma of log_normal are of the logarithm, to base e"
    if p.number("q", 1.0) <= 0 or p.number("sigma", 1.0) <= 0:
        return "q and sigma are above 0"
    if method == "bayes" and ("normal" in p.distribution or p.distribution == "q_log_uniform_values"):
        return f"bayes searches between bounds, and {p.distribution} has none that it knows; use log_uniform_values"
    return None


def _text(node: yaml.Node | None) -> str:
    """A scalar's text; a list's texts with commas between them, as a job's list keys take them."""
    if isinstance(node, yaml.SequenceNode):
        return ",".join(_text(item) for item in node.value)
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

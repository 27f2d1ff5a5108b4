"""Sweeps: what is tried for which key of a job, and the trials of a grid or of a random search."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from hpcft.errors import UsageError
from hpcft.spec.keys import fields
from hpcft.spec.layers import Layer, Problem, SpecError, unknown_key

METHODS = ("grid", "random", "bayes")
GOALS = ("minimize", "maximize")
DEFAULT_METRIC = "final/validation_loss"
# More than a cluster would run in months; a grid with a slip in it has more.
MOST_TRIALS = 100_000
# distribution → the keys that it is given with. The names are W&B's.
DISTRIBUTIONS = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": ("min", "max"),
    "uniform": ("min", "max"),
    "q_uniform": ("min", "max", "q"),
    "log_uniform": ("min", "max"),
    "log_uniform_values": ("min", "max"),
    "q_log_uniform_values": ("min", "max", "q"),
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
}
# Sections that all trials of a sweep share: they are one job's to Slurm, and the record's order is the sweep's.
_SHARED = ("kind", "of", "runs", "name", "results", "tracking.group")


@dataclass(frozen=True)
class Parameter:
    """One key of the job and what is tried for it.

    Attributes:
        where: the place that says so, for errors.
        values: texts to choose from; empty for a range.
        numbers: `min`, `max`, `q`, `mu`, `sigma`, as far as the distribution has them.
        probabilities: of the values, which are equally likely without them.
    """

    key: str
    where: str
    distribution: str
    values: tuple[str, ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()
    probabilities: tuple[float, ...] = ()

    def number(self, name: str, default: float = 0.0) -> float:
        """One of the distribution's numbers."""
        return dict(self.numbers).get(name, default)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value of a range; of `log_uniform` the exponents are given."""
        low, high = self.number("min"), self.number("max")
        return (math.exp(low), math.exp(high)) if self.distribution == "log_uniform" else (low, high)

    def draw(self, generator: random.Random) -> str:
        """A value by chance."""
        if self.values:
            return generator.choices(self.values, self.probabilities or None)[0]
        low, high = self.bounds
        if self.distribution == "int_uniform":
            return str(generator.randint(int(low), int(high)))
        if "normal" in self.distribution:
            value = generator.gauss(self.number("mu"), self.number("sigma", 1.0))
            value = math.exp(value) if self.distribution.startswith("log") else value
        elif "log" in self.distribution:
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        else:
            value = generator.uniform(low, high)
        if self.distribution.startswith("q_"):
            step = self.number("q", 1.0)
            value = round(value / step) * step
        return plain(value)


@dataclass(frozen=True)
class Metric:
    """What is best: a key of a run's summary, or of its validations."""

    name: str = DEFAULT_METRIC
    goal: str = "minimize"


@dataclass(frozen=True)
class EarlyEnd:
    """Successive halving, W&B's `hyperband`: at rungs of growing length the worse trials end.

    Attributes:
        first: validations before the first rung.
        eta: of the trials at a rung one in `eta` goes on, and the next rung is `eta` times as long.
    """

    first: int
    eta: int


@dataclass(frozen=True)
class Sweep:
    """What is tried.

    Attributes:
        name: the file's.
        command: the file's words, `hpcft run …`; empty without a file.
        run_cap: most trials; None: all of a grid.
    """

    name: str
    method: str
    parameters: tuple[Parameter, ...]
    metric: Metric = Metric()
    command: tuple[str, ...] = ()
    early_end: EarlyEnd | None = None
    run_cap: int | None = None
    where: str = "--sweep"

    @property
    def known(self) -> bool:
        """Whether all trials are known before the first one runs, and none of them is ended by the others."""
        return self.method != "bayes" and self.early_end is None


def plain(value: float) -> str:
    """A number with the six digits that matter.

    >>> plain(0.00012345678), plain(3.0)
    ('0.000123457', '3')
    """
    return f"{value:.6g}"


def proposals(sweep: Sweep, count: int | None, seed: int) -> Iterator[Layer]:
    """The trials of a grid, in the order of the file with the last key the quickest, or of a random search.

    Args:
        count: most trials; the file's `run_cap` when absent.
        seed: of the random values; the same seed gives the same trials, and more of them go on from there.

    Raises:
        UsageError: a random search that does not say how many; a grid over ranges or of too many trials.
    """
    most = count if count is not None else sweep.run_cap
    if sweep.method == "grid":
        size = math.prod(len(p.values) for p in sweep.parameters)
        if min(size, most or size) > MOST_TRIALS:
            hint = f"--count N takes the first N of them, up to {MOST_TRIALS:,}"
            raise UsageError(f"the grid has {size:,} trials", where=sweep.where, hint=hint)
        for values in itertools.islice(itertools.product(*(p.values for p in sweep.parameters)), most):
            yield trial_layer(sweep, values)
        return
    if most is None or most > MOST_TRIALS:
        what = "does not say how many trials to make" if most is None else f"is to make {most:,} trials"
        raise UsageError(
            f"a sweep by {sweep.method} {what}", where=sweep.where, hint=f"--count N, up to {MOST_TRIALS:,}"
        )
    generator = random.Random(seed)  # noqa: S311 (no secret is made)
    for _ in range(most):
        yield trial_layer(sweep, [p.draw(generator) for p in sweep.parameters])


def trial_layer(sweep: Sweep, values: list[str] | tuple[str, ...]) -> Layer:
    """A trial's own values, one for each parameter."""
    layer = Layer()
    for parameter, value in zip(sweep.parameters, values, strict=True):
        layer.put(parameter.key, value, parameter.where)
    return layer


def short_sweep(texts: list[str], seeds: int | None, first_seed: int) -> Sweep:
    """A grid from `--sweep lora.r=4,8` options, and `--seeds` of each.

    Raises:
        UsageError: a text without values. SpecError: with every wrong key.
    """
    parameters = []
    for text in texts:
        key, mark, values = text.partition("=")
        where = f"--sweep {text}" if len(text) <= 60 else f"--sweep {text[:57]}..."
        parts = tuple(part.strip() for part in values.split(",") if part.strip())
        if not mark or not parts:
            raise UsageError(f"'{text[:60]}' is not of the form section.key=a,b,c", where="--sweep")
        parameters.append(Parameter(key, where, "categorical", parts))
    if seeds is not None:
        numbers = tuple(str(first_seed + i) for i in range(seeds))
        parameters.append(Parameter("training.seed", f"--seeds {seeds}", "categorical", numbers))
    sweep = Sweep("sweep", "grid", tuple(parameters))
    if problems := list(key_problems(sweep)):
        raise SpecError(problems)
    return sweep


def key_problems(sweep: Sweep) -> Iterator[Problem]:
    """Keys that do not exist, or that trials cannot differ in."""
    seen: set[str] = set()
    for parameter in sweep.parameters:
        key, where = parameter.key, parameter.where
        if key not in fields():
            yield Problem(where, "", unknown_key(key))
        elif key in _SHARED or key.startswith("resources."):
            yield Problem(where, key, "is the same for all trials of a sweep; set it in the job")
        elif key in seen:
            yield Problem(where, key, "is swept twice")
        seen.add(key)

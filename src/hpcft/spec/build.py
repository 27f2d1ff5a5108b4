"""From layers to a job: the strongest value of each key wins, and every error is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from hpcft.spec.distill import PROFILES, SHARES
from hpcft.spec.faults import faults
from hpcft.spec.job import Job
from hpcft.spec.keys import fields
from hpcft.spec.layers import CLUSTER, Layer, Problem, SpecError, unknown_key
from hpcft.spec.types import Lang
from hpcft.spec.variants import VARIANTS

DEFAULT = "default"
# Each of them says when training ends. The stronger layer's one takes the weaker layer's other one away.
_LIMITS = ("training.max_steps", "training.num_train_epochs")


@dataclass(frozen=True)
class Resolved:
    """A job with the place that each of its values comes from.

    Attributes:
        job: the job.
        origins: key → file and line, option or variable; a key that is absent has its default.
        cluster: (profile name, where it stands) as configuration files name it, or None.
    """

    job: Job
    origins: dict[str, str]
    cluster: tuple[str, str] | None

    def origin(self, key: str) -> str:
        """Where a key's value comes from."""
        return self.origins.get(key, DEFAULT)


def merge(layers: list[Layer]) -> tuple[dict[str, tuple[Any, str]], list[Problem]]:
    """Lay stronger layers over weaker ones (weakest first)."""
    merged: dict[str, tuple[Any, str]] = {}
    problems: list[Problem] = []
    for layer in layers:
        problems += layer.problems
        given = [key for key in _LIMITS if layer.values.get(key, (None, ""))[0] is not None]
        if len(given) == 1:
            other = _LIMITS[1 - _LIMITS.index(given[0])]
            merged[other] = (None, layer.values[given[0]][1])
        merged |= _other_share(layer) | layer.values
    return merged, problems


def _other_share(layer: Layer) -> dict[str, tuple[Any, str]]:
    """What is left for the other one of two weights that are one together, where a layer names one of them."""
    given = [key for key in SHARES if key in layer.values]
    if len(given) != 1:
        return {}
    value, where = layer.values[given[0]]
    try:
        rest = 1 - float(value)
    except (TypeError, ValueError):
        return {}
    # Of a weight that is out of its range the error is told once.
    return {SHARES[1 - SHARES.index(given[0])]: (round(rest, 12), where)} if 0 <= rest <= 1 else {}


def build(layers: list[Layer]) -> Resolved:
    """Build the job.

    Args:
        layers: weakest first.

    Raises:
        SpecError: with every problem of every layer.
    """
    merged, problems = merge(layers)
    cluster = merged.pop(CLUSTER, None)
    known = fields()
    for key in [k for k in merged if k not in known]:
        problems.append(Problem(merged[key][1], "", unknown_key(key)))
        del merged[key]
    merged = _recipe(merged) | merged
    job: Job | None = None
    try:
        job = Job.model_validate(_nested(merged))
    except ValidationError as error:
        for item in error.errors(include_url=False):
            key = _key_of(item["loc"])
            value, where = merged.pop(key, (item.get("input"), DEFAULT))
            problems.append(Problem(where, key, _message(dict(item), value)))
        # What the wrong values hide is still told: the rest is checked with their defaults in place.
        job = Job.model_validate(_nested(merged))
    wrong = {p.key for p in problems}
    problems += [Problem(merged.get(k, (0, DEFAULT))[1], k, m) for k, m in faults(job) if k not in wrong]
    if problems:
        raise SpecError(problems)
    origins = {key: where for key, (_, where) in merged.items()}
    return Resolved(job, origins, None if cluster is None else (str(cluster[0]), cluster[1]))


def _recipe(merged: dict[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """What the variant, LoRA in phases, which is on all of their modules, the job's language, and a profile of the
    distillation begin with, as the weakest layers."""
    name = str(merged.get("variant", (Job.model_fields["variant"].default, ""))[0])
    variant = VARIANTS.get(name)
    found = {} if variant is None else {key: (value, f"variant {name}") for key, value in variant.recipe.items()}
    phases, where = merged.get("lora.phase_strategy", (None, ""))
    if phases not in (None, "null"):
        found["lora.target_module_group"] = ("both", where)
    lang, where = merged.get("lang", (None, ""))
    # Of another one the error is told once.
    if name == "distill" and lang in get_args(Lang):
        found["distill.lang"] = (lang, where)
    profile = str(merged.get("distill.profile", ("", ""))[0])
    return found | {key: (value, f"profile {profile}") for key, value in PROFILES.get(profile, {}).items()}


def flat(job: Job) -> dict[str, Any]:
    """The job as key → value, in order."""
    result: dict[str, Any] = {}
    for name, value in job.model_dump(mode="json").items():
        if isinstance(value, dict):
            result |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            result[name] = value
    return result


def _nested(merged: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, (value, _) in merged.items():
        section, mark, inner = key.partition(".")
        if mark:
            tree.setdefault(section, {})[inner] = value
        else:
            tree[section] = value
    return tree


def _key_of(loc: tuple[int | str, ...]) -> str:
    """The job's key that a pydantic location lies in: union branches and list positions left out."""
    known = fields()
    for length in (2, 1):
        key = ".".join(str(part) for part in loc[:length])
        if key in known:
            return key
    return str(loc[0])


_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
    "string_too_long": ("max_length", "is too long; the longest allowed has"),
}
_KINDS = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not a text",
    "list_type": "is not a list",
}


def _message(item: dict[str, Any], value: Any) -> str:
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    context = item.get("ctx", {})
    kind = item["type"]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        unit = " characters" if kind == "string_too_long" else ""
        return f"{words} {context[name]}{unit}, not {shown}"
    if kind in _KINDS:
        return f"{shown} {_KINDS[kind]}"
    if kind == "literal_error":
        expected = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        # What a shell leaves of a word is its beginning: of an unquoted attn->mlp->both `attn-`.
        near = get_close_matches(str(value), expected, n=1) or [
            e for e in expected if value and e.startswith(str(value))
        ]
        guess = f"; did you mean {near[0]}?" if near else ""
        return f"{shown} is not one of {', '.join(expected)}{guess}"
    return str(item["msg"]).removeprefix("Value error, ")

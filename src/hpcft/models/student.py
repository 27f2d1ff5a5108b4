"""A student that is made after its teacher: fewer layers, a smaller width, or both, and the teacher's tokens."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError
from hpcft.models.groups import layer_of
from hpcft.runs.files import make_private
from hpcft.spec.distill import DistillSection

if TYPE_CHECKING:
    from hpcft.spec.job import Job

log = logging.getLogger(__name__)

# What architectures call it.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "inner": ("intermediate_size", "n_inner"),
}


def matched_layers(student: int, teacher: int) -> list[int]:
    """The teacher's layer that stands as deep as each of the student's, both counted from 1: the last one for the
    last.

    >>> matched_layers(3, 12), matched_layers(5, 12), matched_layers(2, 1)
    ([4, 8, 12], [2, 4, 7, 9, 12], [1, 1])
    """
    return [max(1, layer * teacher // student) for layer in range(1, student + 1)]


def width_of(config: Mapping[str, Any]) -> int | None:
    """How wide the hidden states are, by a model's configuration; None where it does not say so."""
    return next((int(config[name]) for name in _NAMES["hidden"] if isinstance(config.get(name), int)), None)


def student_shape(config: Mapping[str, Any], asked: DistillSection) -> dict[str, Any]:
    """What the student's configuration has otherwise than the teacher's.

    Heads keep their size, so a smaller width has fewer of them, of queries and of keys alike; the inner width of the
    MLP keeps its ratio.

    Args:
        config: the teacher's.

    Raises:
        ConfigError: the teacher has no such layers, or its heads do not fit into the width.
    """
    names = {what: next((n for n in own if n in config), None) for what, own in _NAMES.items()}
    if names["layers"] is None or names["hidden"] is None:
        raise ConfigError(
            f"a student cannot be made after a model of architecture '{config.get('model_type')}'",
            where="distill.teacher",
            hint="name one yourself: --model FOLDER",
        )
    layers, width = int(config[names["layers"]]), int(config[names["hidden"]])
    wanted = asked.student_layers or max(1, layers // 2)
    changes: dict[str, Any] = {names["layers"]: wanted}
    if wanted > layers:
        raise ConfigError(
            f"the teacher has {layers} layers, and a student of {wanted} would be the larger one",
            where="distill.student_layers",
        )
    if isinstance(config.get("layer_types"), list):
        changes["layer_types"] = [config["layer_types"][layer - 1] for layer in matched_layers(wanted, layers)]
    hidden = asked.student_hidden or width
    if hidden == width:
        return changes
    if asked.init_from_teacher != "none":
        raise ConfigError(
            f"the teacher's layers are {width} wide and do not fit into {hidden}",
            where="distill.init_from_teacher",
            hint="leave student_hidden out, or begin with random weights: distill.init_from_teacher=none",
        )
    heads = int(config[names["heads"]]) if names["heads"] else 1
    if heads * hidden % width:
        step = width // gcd(width, heads)
        raise ConfigError(
            f"a width of {hidden} would cut the teacher's {heads} heads in pieces",
            where="distill.student_hidden",
            hint=f"take a multiple of {step}, such as {max(1, round(hidden / step)) * step}",
        )
    changes[str(names["hidden"])] = hidden
    fewer = heads * hidden // width
    if names["heads"]:
        changes[names["heads"]] = fewer
    keys = config.get("num_key_value_heads")
    if keys:
        most = max(1, int(keys) * hidden // width)
        changes["num_key_value_heads"] = next(n for n in range(most, 0, -1) if fewer % n == 0)
    if names["inner"] and config[names["inner"]]:
        changes[names["inner"]] = max(1, round(int(config[names["inner"]]) * hidden / width))
    return changes


def make_student(job: Job, folder: Path) -> Path:
    """Make the student of a job, or find the one that an earlier attempt made: the same weights for the same seed.

    Args:
        folder: receives configuration, weights in float32 and the teacher's tokenizer. It is made aside and renamed
            when whole.

    Raises:
        UnavailableError, ConfigError: the teacher cannot be had, or gives no such student.
    """
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM

    from hpcft.models.load import undivided
    from hpcft.models.open import open_tokenizer
    from hpcft.models.teacher import open_teacher, teacher_config, teacher_job

    config = teacher_config(job)
    layers = int(config.num_hidden_layers)
    changes = student_shape(config.to_dict(), job.distill)
    for name, value in changes.items():
        setattr(config, name, value)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    make_private(folder.parent)
    with torch.random.fork_rng(devices=[]), undivided():
        torch.manual_seed(job.training.seed)
        try:
            student = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"no student of this shape can be made: {str(error).splitlines()[0]}", where="distill.student_hidden"
            ) from error
    if job.distill.init_from_teacher == "every_nth":
        whole = job.model_copy(update={"distill": job.distill.model_copy(update={"teacher_quantization": "none"})})
        with undivided():
            _copy(open_teacher(whole, torch.device("cpu")), student, layers)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        student.save_pretrained(aside)
        open_tokenizer(teacher_job(job)).save_pretrained(aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _copy(teacher: Any, student: Any, layers: int) -> None:
    """Give the student evenly spaced layers of the teacher, and everything that stands outside of layers."""
    import torch

    own, told = student.state_dict(), teacher.state_dict()
    places = matched_layers(int(student.config.num_hidden_layers), layers)
    with torch.no_grad():
        for name, tensor in own.items():
            layer = layer_of(name)
            source = name if layer is None else name.replace(f".{layer}.", f".{places[layer] - 1}.", 1)
            if source not in told or told[source].shape != tensor.shape:
                raise ConfigError(
                    f"the teacher has no weight {source} of shape {tuple(tensor.shape)}",
                    where="distill.init_from_teacher",
                    hint="begin with random weights: distill.init_from_teacher=none",
                )
            tensor.copy_(told[source])
    log.info("the student begins with the teacher's layers %s", ", ".join(map(str, places)))

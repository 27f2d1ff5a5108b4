"""Gradient norms of several experiments side by side: one summary, and pictures of each and of all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import DataError, UsageError
from hpcft.report.points import number
from hpcft.runs.files import explained, make_private, read_json, write_json
from hpcft.runs.gradients import GradientLog, gradients_of
from hpcft.runs.run import Run, RunState
from hpcft.runs.sweep import SweepFolder, SweepPaths

if TYPE_CHECKING:
    from hpcft.viz.texts import Lang

# Of a run's job: what experiments are told apart by.
_KEYS = {
    "variant": "variant",
    "model": "model.name",
    "dataset": "data.dataset",
    "target_module_group": "lora.target_module_group",
    "phase_strategy": "lora.phase_strategy",
    "r": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
}
_FIGURES = ("train/steps", "train/final_loss", "final/validation_loss", "model/trainable_params")
_SCORES = ("bleu", "rouge1", "rouge2", "rougeL", "meteor", "accuracy", "f1_macro", "em", "f1")


@dataclass(frozen=True)
class Experiment:
    """One experiment of a comparison.

    Attributes:
        about: what else the summary says of it.
    """

    name: str
    gradients: GradientLog
    about: dict[str, Any] = field(default_factory=dict)


def experiment_of(run: Run) -> Experiment:
    """A finished run as an experiment; a sweep's trial is named with what it differs in.

    Raises:
        DataError: it has not finished, or its gradients were not measured.
    """
    if run.state is not RunState.SUCCESS:
        raise DataError("has not finished", where=run.name, hint=f"hpcft show {run.name}")
    gradients = gradients_of(run)
    if gradients is None:
        raise DataError(
            "has no gradient norms", where=run.name, hint="gradients.enabled=true measures them: hpcft sensitivity"
        )
    return Experiment(_name(run), gradients, _about(run))


def _name(run: Run) -> str:
    folder = run.paths.root.parent
    if not SweepPaths(folder).settings.is_file():
        return run.name
    own = [
        t.overrides for t in SweepFolder(folder).trials() if SweepPaths(folder).trial(t.number).root.name == run.name
    ]
    words = [f"{key.rpartition('.')[2]}={value}" for overrides in own for key, value in overrides.items()]
    return " ".join([run.name, *words])


def _about(run: Run) -> dict[str, Any]:
    about: dict[str, Any] = {"directory": str(run.paths.root)}
    for name, key in _KEYS.items():
        section, _, inner = key.rpartition(".")
        values = run.config.get(section, {}) if section else run.config
        if isinstance(values, dict) and values.get(inner) is not None:
            about[name] = values[inner]
    about |= {key: run.metrics[key] for key in _FIGURES if number(run.metrics.get(key)) is not None}
    scores = read_json(run.paths.evaluation)
    if isinstance(scores, dict):
        about["evaluation"] = {key: scores[key] for key in _SCORES if key in scores}
    return about


def generate_summary_report(
    logs: Mapping[str, GradientLog],
    output_dir: Path | str,
    *,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    lang: Lang = "en",
) -> dict[str, Any]:
    """Compare experiments by their gradient norms.

    Writes `experiment_summary.json`, of each experiment `<name>_layer_heatmap.png` and `<name>_layer_comparison.png`,
    and of all `comparison_gradient_norms.png`; each picture in a logarithmic version too, `_log`.

    Args:
        logs: name → gradient norms.
        output_dir: folder; is made where it is missing.
        about: name → what else the summary is to say of an experiment.
        lang: of the pictures.

    Returns:
        What the summary holds: `experiments` (name → `gradient_stats`, `measured_steps` and `about`) and `comparison`
        (name → `attention_mean` and `mlp_mean` over the steps, and `attention_to_mlp_ratio`, which is None where one
        of both has no gradient).

    Raises:
        UsageError: no experiment.
    """
    from hpcft.viz.gradients import plot_gradient_norms, plot_layer_comparison, plot_layer_heatmap

    if not logs:
        raise UsageError("names no experiment", where="logs")
    folder = Path(output_dir)
    with explained(folder, "make the folder"):
        make_private(folder)
    stats = {name: found.summary() for name, found in logs.items()}
    summary: dict[str, Any] = {
        "experiments": {
            name: {
                **(about or {}).get(name, {}),
                "measured_steps": len(found.steps),
                "gradient_stats": stats[name],
            }
            for name, found in logs.items()
        },
        "comparison": {name: _comparison(of_groups) for name, of_groups in stats.items()},
    }
    write_json(folder / "experiment_summary.json", summary)
    for (name, found), file in zip(logs.items(), _file_names(list(logs)), strict=True):
        if found.layers:
            plot_layer_heatmap(found, name, save_path=folder / f"{file}_layer_heatmap.png", lang=lang)
            plot_layer_comparison(found, name, save_path=folder / f"{file}_layer_comparison.png", lang=lang)
    plot_gradient_norms(logs, save_path=folder / "comparison_gradient_norms.png", lang=lang)
    return summary


def _comparison(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    attention, mlp = stats["attention"]["mean"], stats["mlp"]["mean"]
    # A norm of 0 is that of what is not trained: there is nothing to compare.
    ratio = attention / mlp if attention and mlp else math.inf
    return {
        "attention_mean": attention,
        "mlp_mean": mlp,
        "attention_to_mlp_ratio": ratio if math.isfinite(ratio) else None,
    }


def _file_names(names: list[str]) -> list[str]:
    """A file's name for each experiment, all different."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.=-]+", "_", name).strip(".") or "experiment"
        copy, file = 1, plain
        while file in found:
            copy += 1
            file = f"{plain}_{copy}"
        found.append(file)
    return found

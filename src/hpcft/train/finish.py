"""The end of a run: keep the model, verify it, write what it came to, and only then the end marker."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from hpcft.errors import HpcftError, NotAllowedError
from hpcft.report.figures import history, parameters
from hpcft.runs.attempt import require_newest
from hpcft.runs.files import write_json
from hpcft.runs.gradients import gradients_of, write_gradients
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.train.checkpoint import (
    checkpoints,
    contents,
    copy_files,
    faults,
    folder_of,
    make_durable,
    model_part,
    read_manifest,
    remove,
    step_of,
    sync_folders,
)
from hpcft.viz import Lang, guarded, plot_parameter_distribution, plot_training_curves, plot_training_loss
from hpcft.viz.gradients import draw_gradients

log = logging.getLogger(__name__)


def verify_model(folder: Path) -> dict[str, Any]:
    """Load every weight file of a model folder and look at its tensors.

    Returns:
        `files`, `tensors`, `bytes` and `kind` (`adapter` or `model`).

    Raises:
        HpcftError: no weights, an empty or non-finite tensor, an unreadable file or configuration.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise HpcftError("holds no weights", where=str(folder), hint="the job's log says what went before")
    tensors = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a dict)
                    tensor = weights.get_tensor(name)
                    if tensor.numel() == 0:
                        raise HpcftError(f"the tensor '{name}' is empty", where=str(file))
                    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                        raise HpcftError(f"the tensor '{name}' has NaN or infinite values", where=str(file))
                    tensors += 1
        except SafetensorError as error:
            raise HpcftError(f"cannot be read: {error}", where=str(file)) from error
    adapter = folder / "adapter_config.json"
    config = adapter if adapter.is_file() else folder / "config.json"
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HpcftError(f"cannot be read: {error}", where=str(config)) from error
    return {
        "kind": "adapter" if adapter.is_file() else "model",
        "files": [f.name for f in files],
        "tensors": tensors,
        "bytes": sum(f.stat().st_size for f in files),
    }


def keep_best(paths: RunPaths, best: int) -> int:
    """Make the best checkpoint's weights `final_model/`, and return its step. Where it could not be saved, or is
    damaged, the best of those that are left takes its place.

    Raises:
        NotAllowedError: no checkpoint of a validated step is good, since they could not be saved.
        HpcftError: none is good, and why is not known.
    """
    run = Run(paths.root)
    validated = {int(e["step"]): float(e["metrics"]["validation/loss"]) for e in run.events("validation")}
    for step in [best, *sorted(validated.keys() - {best}, key=lambda s: (validated[s], s))]:
        folder = folder_of(paths, step)
        manifest = read_manifest(folder)
        if manifest is None:
            continue
        model = model_part(manifest)
        if bad := faults(folder, model):
            log.warning("%s is damaged and is not used (%s)", folder.name, "; ".join(bad))
            continue
        copy_files(folder, model, paths.final_model)
        return step
    lacking = "no checkpoint of a validated step is left to become the model"
    if failed := [e for e in run.events("save_failed") if int(e["step"]) in validated]:
        raise NotAllowedError(
            f"{lacking}; checkpoint-{failed[-1]['step']} could not be saved: {failed[-1]['reason']}",
            where=str(paths.checkpoints),
            hint=f"free some space, then the run goes on from {failed[-1]['left'] or 'its beginning'}: "
            f"hpcft resume {paths.root.name}",
        )
    raise HpcftError(
        lacking,
        where=str(paths.checkpoints),
        hint="logs.txt says what became of them; was there space enough? training again: hpcft submit config.yaml",
    )


def tidy_checkpoints(paths: RunPaths, keep: set[int]) -> None:
    """Remove the checkpoints of other steps than `keep` (best and last); the folder too when none is left."""
    for folder in checkpoints(paths):
        if step_of(folder) not in keep:
            remove(folder)
    if paths.checkpoints.is_dir() and not any(paths.checkpoints.iterdir()):
        paths.checkpoints.rmdir()


def draw(paths: RunPaths, lang: Lang = "en") -> None:
    """`training_loss.png`, `training_curves.png` and `parameter_distribution.png` from what the run has recorded, and
    the pictures of its gradients where they were measured. A picture that fails stops nothing."""
    folder, run = paths.root, Run(paths.root)
    found = history(run)
    guarded(plot_training_loss, lang)(
        found.get("train_loss", []), found.get("eval_loss", []), folder / "training_loss.png", lang
    )
    guarded(plot_training_curves, lang)(found, title=folder.name, save_path=folder / "training_curves.png", lang=lang)
    guarded(plot_parameter_distribution, lang)(parameters(run), folder / "parameter_distribution.png", lang)
    if (gradients := guarded(gradients_of, lang)(run)) is not None:
        draw_gradients(gradients, folder, folder.name, lang)


def write_results(
    paths: RunPaths,
    config: dict[str, Any],
    metrics: dict[str, Any],
    evaluation: dict[str, Any] | None,
) -> None:
    """`metrics.json`, `evaluation_results.json` (with validation), `results_summary.json`, and the tables of the
    gradients' norms where they were measured."""
    write_json(paths.metrics, metrics)
    if evaluation is not None:
        write_json(paths.evaluation, evaluation)
    summary = {"config": config, "train_loss": metrics.get("train/final_loss"), "evaluation": evaluation}
    if (stats := guarded(keep_gradients)(paths)) is not None:
        summary["gradient_stats"] = stats
    write_json(paths.results_summary, summary)


def keep_gradients(paths: RunPaths) -> dict[str, Any] | None:
    """Write the tables of the event log's gradient norms.

    Returns:
        Their statistics by group; None when none were measured.
    """
    gradients = gradients_of(Run(paths.root))
    if gradients is None:
        return None
    write_gradients(gradients, paths.gradients)
    return gradients.summary()


def mark_done(paths: RunPaths, attempt: int, step: int, artifacts: dict[str, Any]) -> None:
    """Bring the kept model to the disk and write the end marker. Its presence is what success means, so it comes last.

    Raises:
        SecondAttemptError: a newer attempt has begun. OSError: the disk is full after all, or failing.
    """
    if paths.final_model.is_dir():
        make_durable(paths.final_model, contents(paths.final_model))
        sync_folders(paths.final_model)
    require_newest(paths, attempt, "end the run")
    write_json(paths.done, {"time": time.time(), "attempt": attempt, "step": step, "artifacts": artifacts})

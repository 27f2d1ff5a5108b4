"""Several models scored on one data set in this process, side by side: for a notebook or a script.

`hpcft evaluate` does the same as jobs, and `hpcft compare` says how sure the differences are.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError, UsageError
from hpcft.runs.files import explained, make_private, write_json
from hpcft.runs.run import Run
from hpcft.spec.identifiers import identifier_fault, user_path

if TYPE_CHECKING:
    from hpcft.spec.job import Job

log = logging.getLogger(__name__)

_ORIGIN = "compare_models"


def compare_models(
    model_paths: Mapping[str, Path | str],
    base_model_id: str | None,
    dataset_type: str,
    num_samples: int,
    output_dir: Path | str,
    *,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score each model on the validation split of a data set.

    Writes `<name>_eval.json` of each model as soon as it is scored, and `comparison_summary.json` at the end.

    Args:
        model_paths: name → folder of a whole model or of an adapter, or a hub id. An adapter in a run directory is
            put on its base as it was trained: on 4 bits where the run was QLoRA.
        base_model_id: that the adapters are for; None where the adapters' own word is enough.
        dataset_type: `e2e_nlg`, `samsum`, `quickstart`, a hub id, or the path of a file.
        num_samples: distinct inputs that each model answers; 0 for all.
        output_dir: is made where it is missing.
        settings: further keys of a job, the same for all models, such as `{"data.max_length": 256}`.

    Returns:
        Name → what `evaluation_results.json` holds of a run: `bleu`, `rouge1`, `rouge2`, `rougeL`, `meteor`,
        `num_samples`, `perplexity` and more; for questions `em` and `f1`, for classes `accuracy` and `f1_macro`.

    Raises:
        UsageError: no model, or a name that is no file's name.
        ConfigError: an adapter that is for another base.
        HpcftError: a model or the data cannot be had, or they do not go together.
    """
    from hpcft.stages.evaluate import score
    from hpcft.train.device import choose_device
    from hpcft.train.ranks import Rank

    if not model_paths:
        raise UsageError("names no model", where="model_paths")
    for name in model_paths:
        if fault := identifier_fault(name):
            raise UsageError(f"the name {fault}", where=f"model_paths[{name[:60]!r}]")
    jobs = {
        name: _job(str(path), base_model_id, {"data.dataset": dataset_type, "data.eval_samples": num_samples}, settings)
        for name, path in model_paths.items()
    }
    folder = Path(output_dir)
    with explained(folder, "make the folder"):
        make_private(folder)
    device = choose_device("auto", "local", Rank())
    results: dict[str, dict[str, Any]] = {}
    for name, job in jobs.items():
        log.info("scoring %s: %s", name, job.model.name)
        results[name] = score(job, device, Rank()).results
        write_json(folder / f"{name}_eval.json", results[name])
        # The next model may need the room.
        gc.collect()
        if device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
    summary = {name: _scores(found) for name, found in results.items()}
    write_json(folder / "comparison_summary.json", {"dataset": dataset_type, "base": base_model_id, "models": summary})
    return results


def print_comparison_table(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a line for each model and a column for each score; `-` where a model has none.

    Args:
        results: of `compare_models`.
    """
    columns = list(dict.fromkeys(score for found in results.values() for score in _scores(found)))
    lines = [["model", *columns]]
    for name, found in results.items():
        scores = _scores(found)
        lines.append([name, *(_shown(column, scores.get(column)) for column in columns)])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for first, *cells in lines:
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([f"{first:<{widths[0]}}", *numbers]))


def _shown(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if column == "num_samples" else f"{value:.4f}"


def _scores(results: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in results.items() if isinstance(v, int | float) and k != "confidence"}


def _job(model: str, base: str | None, data: Mapping[str, Any], settings: Mapping[str, Any] | None) -> Job:
    from hpcft.models.open import check_subject, subject
    from hpcft.spec.build import build
    from hpcft.spec.layers import mapping_layer

    given = {"kind": "evaluate", "model.name": model, **data}
    if (variant := _variant_of(user_path(model))) is not None:
        given["variant"] = variant
    job = build([mapping_layer(settings or {}, "settings"), mapping_layer(given, _ORIGIN)]).job
    found = subject(job)
    if found.adapter is not None and base is not None and not _same(found.base.name, base):
        raise ConfigError(
            f"the adapter is for '{found.base.name}', not for '{base}'",
            where=str(found.adapter),
            hint="give its own base as base_model_id; where that was moved, mend base_model_name_or_path in "
            "adapter_config.json",
        )
    check_subject(job, internet=True)
    return job


def _variant_of(folder: Path) -> str | None:
    """How the run that a model lies in was trained."""
    if not (folder.parent / "config.yaml").is_file():
        return None
    variant = Run(folder.parent).config.get("variant")
    return None if variant is None else str(variant)


def _same(one: str, other: str) -> bool:
    return one == other or user_path(one).resolve() == user_path(other).resolve()

"""The pictures of a lab: one PEFT method trained, measured beside its base, merged or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.errors import DataError
from hpcft.measure.lab import draw_training
from hpcft.models.load import load_config
from hpcft.models.open import subject
from hpcft.models.shapes import adapter_parts
from hpcft.report.contents import gather
from hpcft.report.figures import answering, comparison_row, history, parameters, task_row
from hpcft.report.page import html_of
from hpcft.runs.files import write_atomic, write_json
from hpcft.runs.run import Run
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.labs import LABS, title_of
from hpcft.spec.layers import yaml_layer
from hpcft.stages.carry import finish, finished_runs
from hpcft.stages.merge import merge_sizes
from hpcft.train.context import Context
from hpcft.viz import (
    guarded,
    plot_adapter_structure,
    plot_inference_benchmark,
    plot_model_sizes,
    plot_parameter_efficiency,
    plot_peft_comparison,
    plot_task_comparison,
)
from hpcft.viz.texts import text


@dataclass
class Parts:
    """The runs of a lab.

    Attributes:
        trained: of the lab's method; the first is the one that was measured, others are of other tasks.
        others: trainings of other methods, to compare with.
        base: benchmark of the base model.
        measured: benchmark of the tuned model, and of the merged one where there is one.
        merged: the run that merged the adapter.
    """

    trained: list[Run]
    others: list[Run]
    base: Run | None
    measured: dict[str, Run]
    merged: Run | None


def lab(context: Context) -> dict[str, Any]:
    """Draw the pictures of a lab's runs, and write `lab.json` and `report.html`.

    Raises:
        DataError: a run has not finished, or none has trained the lab's method.
    """
    job, folder = context.job, context.paths.root
    runs = finished_runs(job)
    found = sort_out(runs, job.variant)
    title = title_of(job.variant)
    context.say("working", f"drawing the pictures of {len(runs)} runs")
    first = found.trained[0]
    draw_training(history(first), lambda: parameters(first), folder, title, job.lang)
    told: dict[str, Any] = {"method": job.variant, "title": title, "parameters": parameters(first)}
    told["inference"] = inference(found, title, context)
    if found.merged is not None:
        told["sizes_gb"] = _sizes(found.merged)
        path = folder / "model_size_comparison.png"
        guarded(plot_model_sizes, job.lang)(told["sizes_gb"], path, job.lang, method=title, verbose=True)
    if found.others:
        told["comparison"] = [comparison_row(run) for run in (first, *found.others)]
        rows = told["comparison"]
        score = task_row(first)["metric"]
        path = folder / "peft_comparison.png"
        guarded(plot_peft_comparison, job.lang)(rows, save_path=path, lang=job.lang, score_name=score)
        path = folder / "parameter_efficiency.png"
        guarded(plot_parameter_efficiency, job.lang)(rows, path, job.lang, score_name=score)
    if job.variant == "adapter":
        told["tasks"] = [task_row(run) for run in found.trained]
        guarded(plot_task_comparison, job.lang)(told["tasks"], folder / "task_comparison.png", job.lang)
        guarded(_draw_structure, job.lang)(first, context)
    report = gather(runs, f"{title} lab")
    if job.variant in LABS:
        told["deploy"] = LABS[job.variant].deploy
        report.notes.insert(0, told["deploy"])
        print(told["deploy"])
    write_atomic(folder / "report.html", html_of(report))
    told["pictures"] = sorted(path.name for path in folder.glob("*.png"))
    write_json(folder / "lab.json", told)
    return finish(context, {}, {"files": ["lab.json", "report.html", *told["pictures"]]})


def sort_out(runs: list[Run], variant: str) -> Parts:
    """Which of a lab's runs is what.

    Args:
        variant: the lab's method.

    Raises:
        DataError: none has trained it.
    """
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(str(run.config.get("kind", "train")), []).append(run)
    trained = [run for run in kinds.get("train", []) if run.config.get("variant") == variant]
    if not trained:
        raise DataError(f"none of the runs has trained {variant}", where="runs", hint="name one that has")
    merged = next(iter(kinds.get("merge", [])), None)
    of_base = [run for run in kinds.get("bench", []) if run.config.get("of") is None]
    measured: dict[str, Run] = {}
    for run in kinds.get("bench", []):
        if run not in of_base:
            is_merged = merged is not None and run.config["model"]["name"] == str(merged.paths.final_model)
            measured.setdefault("merged" if is_merged else "tuned", run)
    others = [run for run in kinds.get("train", []) if run not in trained]
    return Parts(trained, others, next(iter(of_base), None), measured, merged)


def inference(found: Parts, title: str, context: Context) -> dict[str, dict[str, float]]:
    """Draw what answering costs the base, the tuned and the merged model, and return the figures by model."""
    lang = context.job.lang
    names = {"tuned": f"{title} Fine-tuned", "merged": text("merged", lang)}
    runs = {text("base_model", lang): found.base} | {names[k]: found.measured.get(k) for k in names}
    figures = {name: answering(run) for name, run in runs.items() if run is not None}
    if figures:
        path = context.paths.root / "inference_benchmark.png"
        guarded(plot_inference_benchmark, lang)(figures, path, lang, verbose=True)
    return figures


def _draw_structure(run: Run, context: Context) -> Path | None:
    layers = int(load_config(_job_of(run).model).num_hidden_layers)
    path = context.paths.root / "adapter_structure.png"
    return plot_adapter_structure(adapter_parts(run.paths.final_model), layers, path, context.job.lang)


def _job_of(run: Run) -> Job:
    return build([yaml_layer(run.paths.config)]).job


def _sizes(merged: Run) -> dict[str, float]:
    """Sizes of the adapter that a run has merged, of what came out, and of the base."""
    found = subject(_job_of(merged))
    if found.adapter is None:
        raise DataError("has merged no adapter", where=str(merged.paths.root))
    return merge_sizes(found.adapter, merged.paths.final_model, found.base)

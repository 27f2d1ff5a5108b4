"""A notebook's own measurements: what a training came to, how fast a model answers, how large it is on disk.

`hpcft bench` measures the same with real prompts, batches and confidence intervals; this is the quick look.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import DataError, HpcftError
from hpcft.measure.memory import GB
from hpcft.models.counts import print_trainable_parameters
from hpcft.viz import guarded, history_by_step, plot_parameter_distribution, plot_training_curves
from hpcft.viz.texts import Lang, text

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase, Trainer

log = logging.getLogger(__name__)

_BANNER = "=" * 60
# What belongs to a model: weights, configuration, tokenizer.
_MODEL_FILE = re.compile(
    r"""(?!optimizer|scheduler) .* \.safetensors (\.index\.json)?
    | (config | generation_config | adapter_config | quantization_config | quantize_config) \.json
    | (preprocessor_config | processor_config) \.json
    | tokenizer .* \. (json | model)
    | (special_tokens_map | added_tokens | vocab) \.json
    | vocab\.txt | merges\.txt | spiece\.model | sentencepiece .* \.model | chat_template .*
    """,
    re.VERBOSE,
)
_OTHER_FOLDER = re.compile(r"checkpoints? ([-_]\d+)? | runs | wandb | attempts | \..*", re.VERBOSE)


def analyze_training_results(
    trainer: Trainer,
    output_dir: Path | str,
    save_visualizations: bool = True,
    *,
    method_name: str | None = None,
    lang: Lang = "en",
) -> dict[str, float]:
    """What a finished training came to, with its pictures.

    Args:
        trainer: after `train()` and the last evaluation.
        output_dir: gets `training_curves.png` and `parameter_distribution.png`; from the first rank alone.
        save_visualizations: draw them. One that fails is told and changes nothing else.
        method_name: over the curves, such as `LoRA`.
        lang: of the pictures and of what is printed.

    Returns:
        `train_loss` and `eval_loss`, the last ones logged; `best_eval_loss`, the lowest finite one;
        `total_time_seconds` and `total_time_minutes` of the training. A figure that was not logged is absent.
    """
    entries = trainer.state.log_history
    history = history_by_step(entries)
    results: dict[str, float] = {}
    for name in ("train_loss", "eval_loss"):
        if name in history:
            results[name] = history[name][-1][1]
    finite = [loss for _, loss in history.get("eval_loss", []) if math.isfinite(loss)]
    if finite:
        results["best_eval_loss"] = min(finite)
    seconds = [float(entry["train_runtime"]) for entry in entries if "train_runtime" in entry]
    if seconds:
        results["total_time_seconds"] = seconds[-1]
        results["total_time_minutes"] = seconds[-1] / 60
    if save_visualizations and trainer.state.is_world_process_zero:

        def counted() -> dict[str, float]:
            if trainer.model is None:
                raise HpcftError("the trainer has no model", where="trainer")
            return print_trainable_parameters(trainer.model, verbose=False)

        draw_training(history, counted, Path(output_dir), method_name, lang)
    return results


def draw_training(
    history: Mapping[str, Sequence[Any]],
    counted: Callable[[], Mapping[str, float]],
    folder: Path,
    method: str | None = None,
    lang: Lang = "en",
) -> None:
    """Draw `training_curves.png` and `parameter_distribution.png`, and print that they are there.

    Args:
        history: series, as `plot_training_curves` takes them.
        counted: gives the numbers of parameters.
        folder: for both.
        method: over the curves, such as `LoRA`.
        lang: of the pictures and of what is printed.
    """
    print(_BANNER)
    print(text("drawing_training", lang))
    print(_BANNER)
    title = text("method_training", lang, method=method) if method else None
    curves = guarded(plot_training_curves, lang)(
        history, title=title, save_path=folder / "training_curves.png", lang=lang
    )
    if curves:
        print(text("curves_drawn", lang))

    def distribution() -> Path:
        return plot_parameter_distribution(counted(), folder / "parameter_distribution.png", lang, verbose=True)

    if guarded(distribution, lang)() and curves:
        print(text("all_drawn", lang, folder=folder))


def open_run(run: Path | str) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model of a run that has finished, an adapter with its base, and its tokenizer, ready to answer here.

    Args:
        run: its directory.

    Raises:
        HpcftError: it has no model, or the model cannot be loaded.
    """
    import torch

    from hpcft.models.open import labels_of, open_model, open_tokenizer
    from hpcft.runs.paths import RunPaths
    from hpcft.spec.build import build
    from hpcft.spec.layers import mapping_layer, yaml_layer

    paths = RunPaths(Path(run))
    if not paths.final_model.is_dir():
        raise DataError("has no final_model/", where=str(run), hint="give the directory of a run that made a model")
    kept = mapping_layer({"model.name": str(paths.final_model.absolute())}, str(run))
    job = build([yaml_layer(paths.config), kept]).job
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return open_model(job, device, labels_of(job)), open_tokenizer(job)


def benchmark_inference(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str = "What is machine learning?",
    num_runs: int = 5,
    warmup: int = 2,
    max_new_tokens: int = 50,
) -> dict[str, float]:
    """Time a model's greedy answer to a prompt, several times over.

    The first runs are not counted, the device is waited for before each look at the clock, and the tokens are those
    that were generated: a model may stop before `max_new_tokens`.

    Args:
        model: a transformers or PEFT model that generates; it is left in the mode (training or not) it came in.
        tokenizer: of the model.
        prompt: one text.
        num_runs: timed runs.
        warmup: runs before them.
        max_new_tokens: at most so many a run.

    Returns:
        `latency_ms`, the mean; `latency_p50_ms` and `latency_p95_ms`, interpolated between runs; `throughput` in
        generated tokens a second; `prompt_tokens`; `generated_tokens`, the mean of a run; on GPUs `memory_gb`, the
        peak that the process's tensors held on them during the timed runs.

    Raises:
        HpcftError: an empty prompt, or a number out of range.
    """
    import numpy as np
    import torch

    for name, value, least in (("num_runs", num_runs, 1), ("warmup", warmup, 0), ("max_new_tokens", max_new_tokens, 1)):
        if value < least:
            raise HpcftError(f"is {value}, must be at least {least}", where=name)
    if not prompt.strip():
        raise HpcftError("is empty", where="prompt", hint="give a text")
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    prompt_tokens = inputs["input_ids"].shape[1]
    # An encoder-decoder's output begins with its start token, a decoder's with the prompt.
    given = 1 if model.config.is_encoder_decoder else prompt_tokens
    devices = {parameter.device for parameter in model.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    seconds: list[float] = []
    generated: list[int] = []
    with _evaluating(model), torch.no_grad():
        for number in range(warmup + num_runs):
            if number == warmup:
                for gpu in gpus:
                    torch.cuda.reset_peak_memory_stats(gpu)
            _wait_for(devices)
            start = time.perf_counter()
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
            _wait_for(devices)
            if number >= warmup:
                seconds.append(time.perf_counter() - start)
                generated.append(output.shape[1] - given)
    p50, p95 = (1000 * float(value) for value in np.percentile(seconds, [50, 95]))
    result = {
        "latency_ms": 1000 * sum(seconds) / num_runs,
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "throughput": sum(generated) / sum(seconds),
        "prompt_tokens": float(prompt_tokens),
        "generated_tokens": sum(generated) / num_runs,
    }
    if gpus:
        result["memory_gb"] = sum(torch.cuda.max_memory_allocated(gpu) for gpu in gpus) / GB
    return result


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _wait_for(devices: set[torch.device]) -> None:
    """Until the devices have done what was asked of them: a GPU's call returns before its work is done."""
    import torch

    for device in devices:
        if device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(device)


def get_model_size(path: Path | str) -> float:
    """Size of a model on disk in GB of 1024³ bytes.

    Counted are its weights (safetensors), configuration and tokenizer, in this folder and those below; checkpoints,
    optimizer states, logs and pictures of the run that made it are not.

    Args:
        path: folder of a model or an adapter.

    Raises:
        DataError: no folder, or no weights in it.
    """
    folder = Path(path)
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _OTHER_FOLDER.fullmatch(name)]
        files += [Path(place, name) for name in names if _MODEL_FILE.fullmatch(name)]
    if not any(file.suffix == ".safetensors" for file in files):
        raise DataError(
            "holds no weights",
            where=str(folder),
            hint="give the folder with the *.safetensors files, such as final_model/",
        )
    return sum(file.stat().st_size for file in files) / GB

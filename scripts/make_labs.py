"""Writes the notebooks of the labs into labs/: four stages of each method, from one template a stage.

python scripts/make_labs.py            writes them
python scripts/make_labs.py --check    says which ones are not as they would be written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hpcft.spec.labs import LABS, Lab

ROOT = Path(__file__).resolve().parent.parent / "labs"
STAGES = ("Setup", "Train", "Inference", "Merge_and_Deploy")
Cell = tuple[str, str]

SETTINGS = """\
import os
import sys
from pathlib import Path

# Yours are set here, or as variables of these names before Jupyter starts: a model (hub id or folder), data (a file
# or a hub id), a cluster, and the folder of this lab's runs and pictures.
os.environ.setdefault("HPCFT_MODEL__NAME", "quickstart")
os.environ.setdefault("HPCFT_DATA__DATASET", "quickstart")
os.environ.setdefault("HPCFT_CLUSTER", "local")
os.environ.setdefault("LAB", str(Path("results", "{folder}").absolute()))
METHOD_NAME = "{title}"
OUTPUT_DIR = Path(os.environ["LAB"])
# The programs of the environment that this notebook runs in.
os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]"""


def text(words: str) -> Cell:
    return "markdown", words


def python(code: str) -> Cell:
    return "code", code


def shell(*commands: str) -> Cell:
    return "code", "\n".join(("%%bash", *commands))


def picture(name: str) -> str:
    return f'display(Image(OUTPUT_DIR / "{name}"))'


def setup(lab: Lab) -> list[Cell]:
    asks = f"--preset lab --variant {lab.method}"
    return [
        text(
            f"{lab.title} trains {lab.about}. The four notebooks of this lab set it up, train it, ask it, and make it "
            f"ready for use. All of it at once, as jobs that need no notebook: `hpcft lab {lab.method}`."
        ),
        python(SETTINGS.format(folder=lab.folder, title=lab.title)),
        text("The job, and where each value comes from. The method begins with a learning rate of its own."),
        shell(f"hpcft config show {asks} --origin"),
        text("Does it fit into this machine's memory?"),
        shell(f"hpcft fit {asks}"),
        text("What would be submitted. Nothing is, yet."),
        shell(f'hpcft submit {asks} --results "$LAB" --name train --dry-run'),
    ]


def train(lab: Lab) -> list[Cell]:
    cells = [
        python(SETTINGS.format(folder=lab.folder, title=lab.title)),
        text("Train, validate after each epoch, keep the best. On a cluster the job waits in the queue first."),
        shell(f'hpcft submit --preset lab --variant {lab.method} --results "$LAB" --name train --wait'),
        text("## Step 5: pictures of the training"),
        python(
            "from IPython.display import Image, display\n\n"
            "from hpcft.lab import draw_training, history, parameters\n\n"
            'run = OUTPUT_DIR / "train"\n'
            "draw_training(history(run), lambda: parameters(run), OUTPUT_DIR, METHOD_NAME)\n"
            f"{picture('training_curves.png')}\n{picture('parameter_distribution.png')}"
        ),
        shell('hpcft show "$LAB/train"'),
    ]
    if lab.method == "ia3":
        cells += [
            text("How many parameters fewer than LoRA, and what is lost by it? The same with LoRA:"),
            shell('hpcft submit --preset lab --variant lora --results "$LAB" --name lora --wait'),
            python(
                "from hpcft.lab import comparison_row, plot_peft_comparison\n\n"
                'rows = [comparison_row(OUTPUT_DIR / name) for name in ("train", "lora")]\n'
                'plot_peft_comparison(rows, save_path=OUTPUT_DIR / "peft_comparison.png")\n'
                f"{picture('peft_comparison.png')}"
            ),
        ]
    return cells


def inference(lab: Lab) -> list[Cell]:
    return [
        python(SETTINGS.format(folder=lab.folder, title=lab.title)),
        text("Answers to the validation inputs, scored; the first three of them."),
        shell('hpcft evaluate "$LAB/train" --name scores --wait', 'head -n 3 "$LAB/scores/predictions.jsonl"'),
        text("What an answer costs: the base model and the tuned one, asked the same."),
        shell(
            'hpcft bench "$HPCFT_MODEL__NAME" --preset lab --results "$LAB" --name base --wait',
            'hpcft bench "$LAB/scores" --preset lab --name tuned --wait',
        ),
        python(
            "from IPython.display import Image, display\n\n"
            "from hpcft.lab import answering, plot_inference_benchmark\n\n"
            'names = {"Base Model": "base", f"{METHOD_NAME} Fine-tuned": "tuned"}\n'
            "figures = {name: answering(OUTPUT_DIR / run) for name, run in names.items()}\n"
            'plot_inference_benchmark(figures, OUTPUT_DIR / "inference_benchmark.png", verbose=True)\n'
            f"{picture('inference_benchmark.png')}"
        ),
    ]


def deploy(lab: Lab) -> list[Cell]:
    cells = [python(SETTINGS.format(folder=lab.folder, title=lab.title)), text(lab.deploy)]
    if lab.merges:
        return cells + _merged()
    if lab.method == "adapter":
        return cells + _tasks()
    return [
        *cells,
        text("The base with what was trained beside it, answering:"),
        python(
            "from hpcft.lab import benchmark_inference, get_model_size, open_run\n\n"
            'run = OUTPUT_DIR / "train"\n'
            "model, tokenizer = open_run(run)\n"
            "print(benchmark_inference(model, tokenizer, num_runs=3))\n"
            "print(f\"to ship beside the base: {1024 * get_model_size(run / 'final_model'):.2f} MB\")"
        ),
    ]


def _merged() -> list[Cell]:
    return [
        text("Merge. The answers before and after are compared, and a merge that changes them fails."),
        shell('hpcft merge "$LAB/train" --name merged --wait', 'cat "$LAB/merged/merge.json"'),
        python(
            "from IPython.display import Image, display\n\n"
            'display(Image(OUTPUT_DIR / "merged" / "model_size_comparison.png"))'
        ),
        text("It is as fast as its base again:"),
        shell('hpcft bench "$LAB/merged" --preset lab --name bench-merged --wait'),
        python(
            "from hpcft.lab import answering, plot_inference_benchmark\n\n"
            "names = {\n"
            '    "Base Model": "base",\n'
            '    f"{METHOD_NAME} Fine-tuned": "tuned",\n'
            '    "Merged Model": "bench-merged",\n'
            "}\n"
            "figures = {name: answering(OUTPUT_DIR / run) for name, run in names.items()}\n"
            'plot_inference_benchmark(figures, OUTPUT_DIR / "inference_merged.png", verbose=True)\n'
            f"{picture('inference_merged.png')}"
        ),
        text("A folder like any model's, which needs neither hpcft nor PEFT:"),
        python(
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'folder = OUTPUT_DIR / "merged" / "final_model"\n'
            "model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
            'inputs = tokenizer("What is machine learning?", return_tensors="pt")\n'
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))"
        ),
    ]


def _tasks() -> list[Cell]:
    return [
        text("A second task: an adapter of its own, on the same base."),
        shell(
            "hpcft submit --preset lab --variant adapter --dataset quickstart-notices"
            ' --results "$LAB" --name second --wait'
        ),
        python(
            "from IPython.display import Image, display\n\n"
            "from hpcft.lab import plot_task_comparison, task_row\n\n"
            'rows = [task_row(OUTPUT_DIR / name) for name in ("train", "second")]\n'
            'plot_task_comparison(rows, OUTPUT_DIR / "task_comparison.png")\n'
            f"{picture('task_comparison.png')}"
        ),
        text("Both on one base in one process, and a switch between them:"),
        python(
            "from hpcft.lab import benchmark_inference, open_run\n\n"
            'model, tokenizer = open_run(OUTPUT_DIR / "train")\n'
            'model.load_adapter(str(OUTPUT_DIR / "second" / "final_model"), "second")\n'
            'for task in ("default", "second"):\n'
            "    model.set_adapter(task)\n"
            "    print(task, benchmark_inference(model, tokenizer, num_runs=3))"
        ),
        text("Which layers carry an adapter, and what AdapterDrop leaves:"),
        python(
            "from hpcft.lab import adapter_parts, plot_adapter_structure\n\n"
            'parts = adapter_parts(OUTPUT_DIR / "train" / "final_model")\n'
            "layers = model.config.num_hidden_layers\n"
            'plot_adapter_structure(parts, layers, OUTPUT_DIR / "adapter_structure.png")\n'
            f"{picture('adapter_structure.png')}"
        ),
        text("Without the adapters of the lower half of the layers:"),
        python(
            "from hpcft.models.bottleneck import drop_layers\n\n"
            'print(drop_layers(model, layers // 2), "bottlenecks are off")\n'
            "print(benchmark_inference(model, tokenizer, num_runs=3))"
        ),
    ]


TEMPLATES = dict(zip(STAGES, (setup, train, inference, deploy), strict=True))


def notebook(lab: Lab, number: int, stage: str) -> str:
    """A notebook as its file has it: version 4.5, without outputs."""
    before = f"Run `{number - 1:02d}-{STAGES[number - 2]}` first. " if number > 2 else ""
    title = f"# Lab {lab.number:02d}, {lab.title}: {number} {stage.replace('_', ' ')}"
    cells = [text(f"{title}\n\n{before}All four are the same jobs that `hpcft` runs from a terminal.")]
    cells += TEMPLATES[stage](lab)
    body = {
        "cells": [_cell(kind, source, f"cell-{place}") for place, (kind, source) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, source: str, name: str) -> dict[str, object]:
    cell: dict[str, object] = {"cell_type": kind, "id": name, "metadata": {}, "source": source.splitlines(True)}
    return cell if kind == "markdown" else cell | {"execution_count": None, "outputs": []}


def notebooks() -> dict[Path, str]:
    """Every notebook's path inside labs/, and its text."""
    return {
        Path(lab.folder, f"{number:02d}-{stage}.ipynb"): notebook(lab, number, stage)
        for lab in LABS.values()
        for number, stage in enumerate(STAGES, 1)
    }


def main() -> int:
    """Write them all, or with --check name those that differ."""
    made = notebooks()
    if "--check" in sys.argv[1:]:
        differ = [str(path) for path, body in made.items() if _read(ROOT / path) != body]
        print("\n".join(differ) or "as they are to be")
        return 1 if differ else 0
    for path, body in made.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(body, encoding="utf-8")
    print(f"{len(made)} notebooks written")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())

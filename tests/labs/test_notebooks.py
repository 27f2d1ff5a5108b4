"""The labs' notebooks: what they hold, and that they run."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from support.notebook import SMALL, code_cells, commands, run_cells

from hpcft.cli.main import VERBS
from hpcft.spec.labs import LABS

ROOT = Path(__file__).parent.parent.parent
STAGES = ["01-Setup.ipynb", "02-Train.ipynb", "03-Inference.ipynb", "04-Merge_and_Deploy.ipynb"]
NOTEBOOKS = [ROOT / "labs" / lab.folder / stage for lab in LABS.values() for stage in STAGES]


def name_of(notebook: Path) -> str:
    return f"{notebook.parent.name}-{notebook.stem}"


def test_a4_a35_four_stages_of_each_of_the_eight_methods() -> None:
    assert sorted((ROOT / "labs").glob("*/*.ipynb")) == NOTEBOOKS
    assert [lab.method for lab in LABS.values()] == [
        *("lora", "adapter", "prompt-tuning", "prefix-tuning", "ia3", "bitfit", "p-tuning", "p-tuning-v2")
    ]
    assert [lab.number for lab in LABS.values()] == list(range(1, 9))


def test_the_notebooks_are_those_that_the_templates_make() -> None:
    spec = importlib.util.spec_from_file_location("make_labs", ROOT / "scripts" / "make_labs.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    differ = [str(p) for p, text in made.notebooks().items() if (ROOT / "labs" / p).read_text("utf-8") != text]
    assert differ == [], "run: make labs"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_valid_and_keeps_no_output(notebook: Path) -> None:
    import nbformat

    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    assert not any(cell.get("outputs") for cell in read.cells)
    for cell in code_cells(notebook):
        if not cell.startswith("%%bash"):
            compile(cell, str(notebook), "exec")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_every_command_of_a_notebook_takes_its_options(notebook: Path) -> None:
    found = commands(notebook)
    stage = notebook.stem
    if stage != "04-Merge_and_Deploy":
        assert found
    for verb, *words in found:
        assert verb in VERBS
        inner = typer.main.get_command(import_module(f"hpcft.cli.{verb}").app)
        while words and words[0] in getattr(inner, "commands", {}):
            inner = inner.commands[words.pop(0)]  # type: ignore[attr-defined]
        inner.make_context(verb, words)


def test_a27_a30_method_and_folder_are_parameters_and_title_the_curves() -> None:
    for lab in LABS.values():
        cells = "\n".join(code_cells(ROOT / "labs" / lab.folder / "02-Train.ipynb"))
        assert f'METHOD_NAME = "{lab.title}"' in cells
        assert "OUTPUT_DIR = Path(" in cells
        assert "draw_training(history(run), lambda: parameters(run), OUTPUT_DIR, METHOD_NAME)" in cells


def test_a17_base_and_tuned_model_are_asked_the_same_and_labelled() -> None:
    for lab in LABS.values():
        notebook = ROOT / "labs" / lab.folder / "03-Inference.ipynb"
        cells = "\n".join(code_cells(notebook))
        assert '{"Base Model": "base", f"{METHOD_NAME} Fine-tuned": "tuned"}' in cells
        assert sorted(words[1] for words in commands(notebook) if words[0] == "bench") == [
            "$HPCFT_MODEL__NAME",
            "$LAB/scores",
        ]


@pytest.mark.usefixtures("forked_jobs")
def test_a32_a37_lab_01_runs_through_all_four_stages_from_a_folder_deep_down(
    hpcft: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = project / "one" / "two" / "three"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    for name in ("HPCFT_MODEL__NAME", "HPCFT_DATA__DATASET", "LAB", "PATH"):
        # The notebooks set them; here they go with the test.
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("HPCFT_MODEL__NAME", "HPCFT_DATA__DATASET", "LAB"):
        monkeypatch.delenv(name)
    for stage in STAGES:
        space = run_cells(ROOT / "labs" / "01-lora" / stage, hpcft)
    lab = deep / "results" / "01-lora"
    assert space["OUTPUT_DIR"] == lab
    assert sorted(path.name for path in lab.glob("*.png")) == [
        *("inference_benchmark.png", "inference_merged.png", "parameter_distribution.png", "training_curves.png")
    ]
    assert (lab / "merged" / "model_size_comparison.png").is_file()
    # The job itself leaves them in its own folder (A11).
    assert (lab / "train" / "training_curves.png").is_file()
    assert (lab / "train" / "parameter_distribution.png").is_file()
    assert json.loads((lab / "merged" / "merge.json").read_text())["merged"]["same_choice_frac"] == 1.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", LABS)
def test_a33_a34_a35_each_lab_runs_in_jupyter(method: str, project: Path, small_quickstart: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    lab = LABS[method]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | SMALL | {"HPCFT_CACHE": str(small_quickstart), "PATH": path, "OMP_NUM_THREADS": "1"}
    for stage in STAGES:
        read = nbformat.read(ROOT / "labs" / lab.folder / stage, as_version=4)
        client = NotebookClient(read, timeout=600, resources={"metadata": {"path": str(project)}})
        client.execute(env=environment)
    pictures = {path.name for path in (project / "results" / lab.folder).glob("**/*.png")}
    assert {"training_curves.png", "parameter_distribution.png", "inference_benchmark.png"} <= pictures
    assert ("model_size_comparison.png" in pictures) is lab.merges
    assert {"task_comparison.png", "adapter_structure.png"} <= pictures or method != "adapter"
    assert "peft_comparison.png" in pictures or method != "ia3"

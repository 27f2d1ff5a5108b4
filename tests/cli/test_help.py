"""Help: every verb shows examples that run and says what its exit codes mean."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from safetensors.torch import save_file
from support.gradients import events, made
from support.sweeps import sweep_folder

from hpcft.cli.main import VERBS
from hpcft.cli.texts import EXIT_CODES
from hpcft.cluster.trial import find_trial, make_trial
from hpcft.runs.events import EventLog
from hpcft.runs.gradients import write_gradients
from hpcft.runs.paths import RunPaths
from hpcft.runs.sweep import SweepFolder

Call = Callable[..., Any]
NESTED = {"config": ("show",), "cluster": ("ls", "show", "probe"), "dashboard": ("push",), "tools": ("list", "install")}
COMMANDS = [(verb, *inner) for verb in VERBS for inner in [(), *((i,) for i in NESTED.get(verb, ()))]]


STARTING = ["submit", "evaluate", "merge", "quantize", "bench", "pipeline", "lab", "sweep", "drill", "sensitivity"]


def examples(text: str) -> list[str]:
    block = text.partition("Examples:\n")[2].partition("Exit codes:")[0]
    return [line.strip() for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_verb_has_two_examples_and_its_exit_codes(hpcft: Call, words: tuple[str, ...]) -> None:
    text = hpcft(*words, "--help").out
    shown = examples(text)
    assert len(shown) >= 2, text
    assert all("hpcft" in line for line in shown)
    codes = re.findall(r"^ +(\d+)  \S", text.partition("Exit codes:")[2], re.MULTILINE)
    assert codes
    assert codes[0] == "0"
    assert {int(code) for code in codes} <= set(EXIT_CODES)


def finish(run: Path, model: Path | None = None) -> None:
    """What a finished run has: an end marker and a model, an adapter to the quickstart model or a whole one."""
    folder = run / "final_model"
    if model is not None:
        shutil.copytree(model, folder)
    else:
        folder.mkdir()
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "quickstart"}')
        save_file({}, folder / "adapter_model.safetensors")
    (run / "done.json").write_text("{}")


def evaluate(run: Path) -> None:
    """What an evaluated run has besides."""
    scores = {"rougeL": 0.5}
    (run / "evaluation_results.json").write_text(json.dumps(scores))
    line = {"input": "a", "references": ["b"], "prediction": "c", "scores": scores}
    (run / "predictions.jsonl").write_text(json.dumps(line) + "\n")


def measure(run: Path) -> None:
    """What a run has besides whose gradients were measured."""
    paths = RunPaths(run)
    paths.attempt(1).mkdir(parents=True)
    with EventLog(paths.events(1)) as log:
        for event in events(made(4, 2)):
            log.append(event.pop("kind"), **event)
    write_gradients(made(4, 2), paths.gradients)


def dry(line: str) -> list[str]:
    """The words of an example behind `hpcft`, without starting a job: `run` takes what `submit` takes."""
    line = line.removeprefix("source <(").removesuffix(")").removeprefix("until ").partition("; do")[0]
    words = shlex.split(line.partition(" > ")[0])
    words = words[words.index("hpcft") + 1 :]
    if words[0] == "run":
        words[0] = "submit"
    words = [word for word in words if word != "--wait"]
    starts = words[0] in STARTING and "--compare" not in words
    if (starts or words[:2] == ["tools", "install"]) and "--dry-run" not in words:
        words.append("--dry-run")
    # Without jobs a drill reads a cluster's settings, and this machine has none.
    return ["slurm" if word == "local" and words[0] == "drill" else word for word in words]


def finished_runs(hpcft: Call, project: Path, model: Path) -> None:
    """Runs that have finished and were scored, as the examples of most verbs name them."""
    for name in ("first", "first_merge", "second"):
        assert hpcft("render", "--preset", "quickstart", "--name", name, "--cluster", "local").code == 0
        (project / "results" / name / "job.log").write_text("words\n")
    for name in ("first", "second"):
        finish(project / "results" / name)
        evaluate(project / "results" / name)
        measure(project / "results" / name)
    finish(project / "results" / "first_merge", model)
    (project / "results/first/attempts/1/rank3.log").write_text("words\n")


def job_of_slurm(hpcft: Call, fake_slurm: Any, state: str) -> None:
    """`first` as a job of Slurm's, and a sweep with a trial."""
    words = ("--preset", "quickstart", "--model", "quickstart", "--name", "first", "--cluster", "slurm")
    assert hpcft("submit", *words).code == 0
    fake_slurm.set_state(fake_slurm.jobs()[-1]["id"], state)
    folder = sweep_folder(Path("results"), 4).paths.root
    sweep = SweepFolder(folder.rename(folder.with_name("mysweep")))
    make_trial(sweep, find_trial(sweep, 3))


# Verbs that are for runs that go on, or went wrong: Slurm's state of the run that their examples name.
STATES = {"cancel": "RUNNING", "requeue": "RUNNING", "resume": "CANCELLED by 0"}


# A probe asks a cluster: tests/slurm has one that answers.
@pytest.mark.parametrize("words", [w for w in COMMANDS if w != ("cluster", "probe")], ids=" ".join)
def test_u11_every_example_runs(
    hpcft: Call,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_quickstart: Path,
    fake_slurm: Any,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    if words == ("sensitivity",):
        # Its pictures are many; docs/sensitivity.md has them rendered.
        monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: Path(path).touch())
    (project / "pairs.csv").write_text("source,target\na,b\nc,d\n")
    (project / "job.yaml").write_text("model: {name: quickstart}\ndata: {dataset: quickstart}\n")
    (project / "test.csv").write_text("source,target\na,b\nc,d\n")
    mine = "base: {model: {name: quickstart}, data: {dataset: quickstart}}\nstages: {lora: {variant: lora}}\n"
    if words == ("sweep",):
        mine = "command: [hpcft, run, --preset, quickstart, '${args_no_hyphens}']\nmethod: grid\n"
        mine += "parameters: {lora.r: {values: [4, 8]}}\n"
    (project / "mine.yaml").write_text(mine)
    if words[0] not in STATES:
        finished_runs(hpcft, project, next(small_quickstart.glob("quickstart*")))
    for line in examples(hpcft(*words, "--help").out):
        if words[0] in STATES:
            shutil.rmtree(project / "results", ignore_errors=True)
            job_of_slurm(hpcft, fake_slurm, STATES[words[0]])
        command = dry(line)
        if command[:2] == ["cluster", "probe"]:
            continue
        result = hpcft(*command)
        assert result.code == 0, f"{line}\n{result.out}{result.err}"


def test_help_verb_is_verb_help(hpcft: Call) -> None:
    assert hpcft("help").out == hpcft("--help").out
    assert hpcft("help", "config", "show").out == hpcft("config", "show", "--help").out
    assert hpcft("help", "sumbit").code == 2


def test_help_names_the_values_that_can_be_chosen(hpcft: Call) -> None:
    page = " ".join(hpcft("submit", "--help").out.split())
    assert "attention_only|mlp_only|both|all" in page
    # Many stand in the text, where lines may break.
    assert "way of fine-tuning: full, lora, qlora" in page

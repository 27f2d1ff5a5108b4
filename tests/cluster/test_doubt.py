"""A refusal has words; everything else that goes wrong with sbatch is a doubt, and a doubt is never a second sbatch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.slurm import find_by_name

from hpcft.cluster import executor
from hpcft.cluster import submit as submission
from hpcft.cluster.profile import Profile
from hpcft.cluster.slurm import Answer
from hpcft.cluster.submit import record_intent, submit_slurm
from hpcft.errors import ConfigError, HpcftError, UnavailableError
from hpcft.runs.create import make_run_directory
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.runs.submission import Journal
from hpcft.spec.job import Job

SAMPLES = Path(__file__).parent.parent / "data" / "slurm"
PROFILE = Profile.model_validate({"name": "site"})
FAILED = "sbatch: error: Batch job submission failed: "


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.setattr(submission, "_LOOKS_S", (0.0, 0.01))
    paths = make_run_directory(tmp_path / "results", "mine", "mine")
    paths.config.write_text("variant: lora\n")
    return paths


@pytest.fixture
def sbatch_says(
    monkeypatch: pytest.MonkeyPatch, fake_slurm: Any
) -> Callable[[Answer | BaseException], list[list[str]]]:
    """Let sbatch answer so; gives the calls of it."""

    def answer_with(answer: Answer | BaseException) -> list[list[str]]:
        calls: list[list[str]] = []

        def call(command: list[str], timeout_s: float = 0, keep_open: Sequence[int] = ()) -> Answer:
            calls.append(command)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(executor, "call", call)
        return calls

    return answer_with


def send(paths: RunPaths) -> str:
    job = Job()
    with Journal(paths) as journal:
        record_intent(journal, job, PROFILE, paths, "k3f9x2m1qa")
        return submit_slurm(job, PROFILE, paths, "k3f9x2m1qa", journal, lambda _: None).job_id


@pytest.mark.parametrize(
    "answer",
    [
        Answer(None, "", "sbatch did not answer within 60 s"),
        Answer(-9, "", ""),
        Answer(-15, "", "half a sen"),
        Answer(1, "", ""),
        Answer(1, "", (SAMPLES / "sbatch_timed_out.txt").read_text()),
        Answer(1, "", FAILED + "Unable to contact slurm controller (send failure)"),
        Answer(1, "", FAILED + "Unable to contact slurm controller (receive failure)"),
        Answer(1, "", FAILED + "Zero Bytes were transmitted or received"),
        Answer(1, "", FAILED + "Insane message length"),
        Answer(0, "", ""),
        Answer(0, "the site's wrapper says hello", ""),
    ],
    ids=lambda a: f"{a.code}:{a.err[-30:].strip() or a.out[:12]}",
)
def test_r2_a_doubt_keeps_the_run_and_calls_sbatch_once(run: RunPaths, sbatch_says: Any, answer: Answer) -> None:
    calls = sbatch_says(answer)
    with pytest.raises(UnavailableError, match="not known whether the job was queued") as caught:
        send(run)
    assert len(calls) == 1
    assert Run(run.root).journal()[-1]["kind"] == "unsure"
    assert "hpcft show mine" in str(caught.value)


def test_r2_an_interrupted_call_keeps_the_run(run: RunPaths, sbatch_says: Any) -> None:
    sbatch_says(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        send(run)
    assert Run(run.root).journal()[-1]["kind"] == "unsure"


def test_a_connect_failure_is_no_doubt(run: RunPaths, sbatch_says: Any) -> None:
    sbatch_says(Answer(1, "", (SAMPLES / "sbatch_no_controller.txt").read_text()))
    with pytest.raises(UnavailableError, match="nothing was queued"):
        send(run)
    assert Run(run.root).journal()[-1]["kind"] == "refused"


def _refusals() -> list[tuple[str, str]]:
    """Real samples, and words of Slurm's own table of errors, with the key that each is about."""
    keys = {
        "partition": "resources.partition",
        "account": "resources.account",
        "qos": "resources.qos",
        "gres": "resources",
        "gres_word": "resources.gpu_type",
        "time": "resources.time",
        "nodes": "resources.nodes",
        # QOSMaxWallDurationPerJobLimit: its second line speaks of "accounting/QOS policy".
        "limit": "resources.time",
        "option": "sbatch: in the profile",
    }
    words = {
        "User's group not permitted to use this partition": "resources.partition",
        "Required partition not available (inactive or drain)": "resources.partition",
        "Invalid feature specification": "resources.constraint",
        "More processors requested than permitted": "resources.cpus_per_task",
        "Memory required by task is not available": "resources.mem_gb",
        "Invalid node name specified": "sbatch: in the profile",
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)": "resources",
    }
    real = [((SAMPLES / f"sbatch_refused_{name}.txt").read_text(), key) for name, key in keys.items()]
    return real + [(FAILED + text, key) for text, key in words.items()]


@pytest.mark.parametrize(("words", "key"), _refusals())
def test_a_refusal_names_the_key_to_change(run: RunPaths, sbatch_says: Any, words: str, key: str) -> None:
    calls = sbatch_says(Answer(1, "", words))
    with pytest.raises(ConfigError) as caught:
        send(run)
    assert caught.value.where == key
    assert words.splitlines()[-1].removeprefix("sbatch: error: ") in str(caught.value)
    assert len(calls) == 1


def test_words_that_are_not_known_are_passed_on(run: RunPaths, sbatch_says: Any) -> None:
    sbatch_says(Answer(1, "", "sbatch: error: Please add a project code\n" + FAILED + "Unspecified error"))
    with pytest.raises(HpcftError, match="Please add a project code"):
        send(run)


def test_a_gpu_that_is_not_there_is_answered_with_those_that_are(run: RunPaths, sbatch_says: Any) -> None:
    sbatch_says(Answer(1, "", (SAMPLES / "sbatch_refused_gres.txt").read_text()))
    with pytest.raises(ConfigError, match="gpu: 4 × h100"):
        send(run)


def test_a_job_that_only_accounting_knows_is_found_whatever_it_made_of_the_name(
    fake_slurm: Any, tmp_path: Path
) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n#SBATCH --job-name=gr??e.k3f9x2m1qa\n")
    assert executor.call(["sbatch", str(script)]).ok
    fake_slurm.set_state(1, "COMPLETED")
    record = json.loads((fake_slurm.folder / "jobs/1.json").read_text())
    assert record["name"] == "gr??e.k3f9x2m1qa"
    assert find_by_name("größe.k3f9x2m1qa") == "1"
    assert find_by_name("größe.another") is None

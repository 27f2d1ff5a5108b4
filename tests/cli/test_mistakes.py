"""Mistakes of a user: each is told with what, where and what next, and leaves nothing half-made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
LOCAL = ("--preset", "quickstart", "--cluster", "local")


def refused(result: Any, code: int, *words: str) -> None:
    text = result.out + result.err
    assert result.code == code, text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text
    assert not Path("results").exists() or not any(Path("results").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--preset", "quikstart", "--cluster", "local"), 78, ("--preset", "did you mean 'quickstart'?")),
        ((*LOCAL, "--variant", "qlroa"), 78, ("--variant", "did you mean qlora?")),
        (("--preset", "quickstart", "--cluster", "locla"), 78, ("--cluster", "did you mean 'local'?")),
        ((*LOCAL, "--set", "training.lernin_rate=1"), 78, ("did you mean training.learning_rate?",)),
        ((*LOCAL, "--lrr", "1"), 2, ("--lrr",)),
        ((*LOCAL, "--r", "0"), 78, ("--r: lora.r: must be at least 1, not '0'",)),
        ((*LOCAL, "--lr", "-1e-4"), 78, ("--lr: training.learning_rate: must be greater than 0",)),
        ((*LOCAL, "--batch-size", "0"), 78, ("--batch-size", "must be at least 1")),
        ((*LOCAL, "--time", "soon"), 78, ("'soon' is not a time",)),
        ((*LOCAL, "--epochs", "2", "--max-steps", "5"), 78, ("keep one of them",)),
        ((*LOCAL, "--lr", "1e-4", "--set", "training.learning_rate=1e-3"), 78, ("keep one of them",)),
        ((*LOCAL, "--nodes", "2"), 78, ("this machine is one",)),
        ((*LOCAL, "nonsense"), 2, ("neither a job file",)),
        ((*LOCAL, "missing.yaml"), 78, ("missing.yaml", "cannot be read")),
        ((*LOCAL, "--dataset", "missing.csv"), 65, ("missing.csv", "no such file")),
        ((*LOCAL, "--dataset", "quickstrat"), 65, ("did you mean 'quickstart'?",)),
        ((*LOCAL, "--dataset", "x" * 300 + ".csv"), 78, ("data.dataset", "255 bytes")),
        ((*LOCAL, "--dataset", "~nobody-of-that-name/x.csv"), 65, ("x.csv",)),
        ((*LOCAL, "--model", "./nowhere"), 78, ("there is no folder './nowhere'", "--model quickstart")),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_way_out(
    hpcft: Call, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    refused(hpcft("submit", *arguments), code, *words)


def test_several_mistakes_are_told_together(hpcft: Call) -> None:
    result = hpcft("submit", *LOCAL, "--r", "0", "--lr", "x", "--variant", "nope", "--set", "a.b=1")
    refused(result, 78, "4 errors", "lora.r", "training.learning_rate", "variant", "unknown key 'a.b'")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", ("empty.csv", "is empty")),
        ("columns.csv", b"a,b\n1,2\n", ("data.input_column", "it has a, b")),
        ("short.csv", b"mr,ref\nx,y\nonly-one\n", ("short.csv:3", "has 1 fields; the header has 2")),
        ("quote.csv", b'mr,ref\nx,"never closed\n', ("quote.csv", "quote")),
        ("bad.csv", b"mr,ref\nx,\xff\xfe\n", ("bad.csv:2", "not UTF-8", "0xff")),
        ("nul.csv", b"mr,ref\nx,a\0b\n", ("nul.csv:2", "NUL")),
        ("broken.jsonl", b'{"input":"a","output":"b"}\n{"input":\n', ("broken.jsonl:2", "not a JSON object")),
        ("list.jsonl", b"[1]\n", ("list.jsonl:1", "not a JSON object")),
        ("data.txt", b"hello\n", ("ends in '.txt'",)),
        ("header.csv", b"mr,ref\n", ("no row with both",)),
    ],
)
def test_a_data_file_that_cannot_be_used_is_named_with_its_line(
    hpcft: Call, project: Path, name: str, content: bytes, words: tuple[str, ...]
) -> None:
    (project / name).write_bytes(content)
    result = hpcft("submit", *LOCAL, "--dataset", name)
    refused(result, 78 if "columns" in name else 65, *words)


def test_a_named_column_that_is_missing_is_told_with_those_there_are(hpcft: Call, project: Path) -> None:
    (project / "d.csv").write_text("mr,ref\na,b\n")
    result = hpcft("submit", *LOCAL, "--dataset", "d.csv", "--set", "data.input_column=mrr")
    refused(result, 65, "no column 'mrr'; it has mr, ref", "data.input_column=mr")


def test_a_model_that_is_not_cached_is_refused_offline_and_quickstart_is_named(
    hpcft: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = hpcft("submit", *LOCAL, "--model", "some-org/some-model")
    refused(result, 78, "some-org/some-model", "hpcft fetch", "--model quickstart")


HOSTILE = ["a\nb", 'a"b', "a'b", "$(touch pwned)", "`touch pwned`", "a;b", "-x", "../up", "x" * 65_536]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "option", ["--name", "--partition", "--account", "--qos", "--preset", "--cluster", "--variant"]
)
def test_s1_hostile_texts_are_refused_and_run_nothing(hpcft: Call, project: Path, option: str, text: str) -> None:
    result = hpcft("submit", *LOCAL, f"{option}={text}")
    assert result.code in (2, 78)
    assert "Traceback" not in result.err
    assert list(project.iterdir()) == []


@pytest.mark.parametrize("text", ["a\nb", 'a"b', "$(touch pwned)", "`touch pwned`", "a;b", "a%j"])
def test_s1_a_hostile_results_folder_is_refused(hpcft: Call, project: Path, text: str) -> None:
    result = hpcft("submit", *LOCAL, f"--results={text}")
    assert result.code == 78
    assert list(project.iterdir()) == []


def test_a_results_folder_that_is_a_file_is_named(hpcft: Call, project: Path) -> None:
    (project / "results").write_text("")
    result = hpcft("submit", *LOCAL)
    assert result.code == 77
    assert "results" in result.err
    assert "Traceback" not in result.err


def test_a_results_folder_that_cannot_be_made_is_named(hpcft: Call, project: Path) -> None:
    result = hpcft("submit", *LOCAL, "--results", "/proc/nowhere")
    assert result.code == 77
    assert "/proc/nowhere" in result.err
    assert "Traceback" not in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_results_folder_that_cannot_be_written_is_named(hpcft: Call, project: Path) -> None:
    project.chmod(0o500)
    result = hpcft("submit", *LOCAL)
    project.chmod(0o700)
    assert result.code == 77
    assert "permission denied" in result.err


def test_no_space_left_is_said_and_nothing_stays(hpcft: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from hpcft.runs import provenance

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(provenance.shutil, "copytree", full)
    result = hpcft("submit", *LOCAL)
    refused(result, 77, "no space left", "--results")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("completion", "fish", "--install"), "home/.config/fish/completions/hpcft.fish"),
        (("shell", "--cluster", "slurm"), "home/.cache/hpcft"),
        (("drill", "--cluster", "local", "--results", "afile/x"), "afile/x"),
        (("report", "--out", "afile/x.html"), "afile"),
        (("pareto", "--out", "afile/x"), "afile/x"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_folder_that_cannot_be_made_is_named(
    hpcft: Call,
    make_run: Call,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    named: str,
) -> None:
    for file in (project / "afile", Path.home() / ".config", Path.home() / ".cache"):
        file.write_text("")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    for name, score in (("first", 0.5), ("second", 0.4)):
        figures = {"final/validation_f1_score": score, "inference/avg_latency_ms_per_sample": 9.0 * score}
        make_run(name, done=True).metrics.write_text(json.dumps(figures))
    result = hpcft(*arguments)
    assert result.code == 77, result.err
    assert named in result.err
    assert "a part of the path is a file" in result.err or "a file of that name is in the way" in result.err


def test_what_the_system_refuses_is_text_whatever_it_is(hpcft: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", "results/mine")

    monkeypatch.setattr("hpcft.cli.show.find_run", broken)
    refused(hpcft("show", "mine"), 77, "hpcft: [Errno 5] Input/output error: 'results/mine'")


def test_no_sbatch_is_said_with_the_way_out(hpcft: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(hpcft("submit", "--preset", "quickstart", "--cluster", "slurm"), 69, "srun is not found", "--cluster local")


def test_a_partition_that_there_is_not_is_told_before_sbatch(hpcft: Call, fake_slurm: Any) -> None:
    result = hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--partition", "nope")
    refused(result, 78, "there is no partition 'nope'", "resources.partition", "debug, gpu, low")
    assert fake_slurm.submissions == 0


def test_a_partition_that_slurm_refuses_leaves_nothing(hpcft: Call, fake_slurm: Any) -> None:
    fake_slurm.fault(sbatch="refuse_partition")
    result = hpcft("submit", "--preset", "quickstart", "--cluster", "slurm")
    refused(result, 78, "invalid partition specified", "resources.partition", "valid here: debug")


def test_a_doubt_keeps_the_run_directory(hpcft: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcft.cluster import submit

    monkeypatch.setattr(submit, "_LOOKS_S", (0.0,))
    fake_slurm.fault(sbatch="timeout_before_accept")
    result = hpcft("submit", "--preset", "quickstart", "--cluster", "slurm", "--name", "mine")
    assert result.code == 69
    assert "not known whether the job was queued" in result.err
    assert (Path("results") / "mine" / "client.jsonl").is_file()
    assert fake_slurm.submissions == 1


def test_an_unknown_verb_and_an_unknown_run_are_named(hpcft: Call) -> None:
    assert "Did you mean 'submit'?" in hpcft("submti").err
    result = hpcft("show", "nothing")
    assert result.code == 2
    assert "no run called 'nothing'" in result.err

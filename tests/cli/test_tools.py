"""`hpcft tools`, and what is refused where a tool is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcft.cli.launch import absolute
from hpcft.spec.job import Job

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCFT_TOOLS", str(tmp_path / "tools"))


def environment(folder: Path) -> Path:
    """As `hpcft tools install gptq` leaves it, without the packages."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "hpcft-tool.json").write_text(json.dumps({"requirements": ["llmcompressor==0.14.0.1"], "versions": {}}))
    return folder


def test_list_says_what_there_is_and_whether_it_is_installed(hpcft: Call, tmp_path: Path) -> None:
    assert "not installed" in hpcft("tools", "list").out
    environment(tmp_path / "tools" / "gptq")
    (told,) = json.loads(hpcft("tools", "list", "--json").out)
    assert (told["name"], told["state"]) == ("gptq", "installed")
    assert told["folder"] == str(tmp_path / "tools" / "gptq")


def test_install_can_be_looked_at_before(hpcft: Call, tmp_path: Path) -> None:
    result = hpcft("tools", "install", "gptq", "--dry-run")
    assert result.code == 0
    assert "6 GB" in result.out
    assert "llmcompressor==" in result.out
    assert not (tmp_path / "tools").exists()


def test_install_of_something_else_names_what_there_is(hpcft: Call) -> None:
    result = hpcft("tools", "install", "gtpq")
    assert result.code == 2
    assert "known: gptq" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "--variant", "ptq", "--preset", "quickstart", "--method", "gptq-int4"),
        ("pipeline", "ptq", "--model", "quickstart", "--dataset", "quickstart", "--method", "gptq-int8"),
    ],
    ids=" ".join,
)
def test_a_pipeline_is_refused_before_its_first_stage_is_submitted(
    hpcft: Call, project: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    result = hpcft(*words, "--cluster", "local", "--dry-run")
    assert result.code == 78
    assert "hpcft tools install gptq" in result.err
    environment(tmp_path / "tools" / "gptq")
    assert hpcft(*words, "--cluster", "local", "--dry-run").code == 0
    assert not (project / "results").exists()


def test_a_job_keeps_the_environment_that_was_found_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node need not have the variable that the user's shell has."""

    def kept(**quantize: Any) -> str | None:
        return absolute(Job.model_validate({"kind": "quantize", "quantize": quantize})).quantize.environment

    monkeypatch.chdir(tmp_path)
    assert kept(method="gptq-int4") == str(tmp_path / "tools" / "gptq")
    assert kept(method="gptq-int4", environment="own") == str(tmp_path / "own")
    assert kept(method="bnb-nf4") is None

"""Environments of their own: made once, noticed when half made, refused in words."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcft.errors import HpcftError, NotAllowedError, UnavailableError, UsageError
from hpcft.models.tools import TOOLS, ToolState, environment_of, find_tool, install, installed, interpreter, state

GPTQ = TOOLS["gptq"]
VERSIONS = {"llmcompressor": "0.14.0.1"}
Fake = Callable[..., Path]


@pytest.fixture(autouse=True)
def _tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCFT_TOOLS", str(tmp_path / "tools"))


@pytest.fixture
def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A uv on the PATH that notes its calls and makes environments whose Python tells versions."""

    def make(*, venv: int = 0, pip: int = 0, python: int = 0) -> Path:
        calls = tmp_path / "calls"
        told = f"echo loading; echo '{json.dumps(VERSIONS)}'; exit {python}"
        lines = [
            "#!/bin/sh",
            f'echo "$@" >> {calls}',
            f'if [ "$1" = pip ]; then exit {pip}; fi',
            'for folder in "$@"; do :; done',
            'mkdir -p "$folder/bin"',
            f"printf '%s\\n' '#!/bin/sh' \"{told.replace(chr(34), chr(92) + chr(34))}\" > \"$folder/bin/python\"",
            'chmod 700 "$folder/bin/python"',
            f"exit {venv}",
        ]
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "uv").write_text("\n".join(lines) + "\n")
        (folder / "uv").chmod(0o700)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return calls

    return make


def test_it_is_made_from_pinned_requirements_and_tried(fake_uv: Fake) -> None:
    calls = fake_uv()
    said: list[str] = []
    folder = install(GPTQ, said.append)
    assert state(GPTQ) is ToolState.INSTALLED
    made, filled = calls.read_text().splitlines()
    assert made == f"venv --quiet --python {sys.executable} {folder}"
    assert filled == f"pip install --python {interpreter(folder)} --compile-bytecode llmcompressor==0.14.0.1"
    assert (installed(GPTQ) or {})["versions"] == VERSIONS
    assert any("6 GB, from the network" in line for line in said)


def test_a_second_call_does_nothing(fake_uv: Fake) -> None:
    calls = fake_uv()
    said: list[str] = []
    install(GPTQ, said.append)
    before = calls.read_text()
    install(GPTQ, said.append)
    assert calls.read_text() == before
    assert "installed already" in said[-1]


def test_an_interrupted_installation_is_noticed_and_made_anew(fake_uv: Fake) -> None:
    fake_uv()
    left = environment_of(GPTQ) / "bin" / "half"
    left.parent.mkdir(parents=True)
    left.touch()
    assert state(GPTQ) is ToolState.INCOMPLETE
    said: list[str] = []
    install(GPTQ, said.append)
    assert "interrupted" in said[0]
    assert not left.exists()
    assert state(GPTQ) is ToolState.INSTALLED


def test_one_of_another_version_is_replaced(fake_uv: Fake) -> None:
    fake_uv()
    install(GPTQ, lambda _: None)
    marker = environment_of(GPTQ) / "hpcft-tool.json"
    marker.write_text(json.dumps({"requirements": ["llmcompressor==0.1"]}))
    assert state(GPTQ) is ToolState.OUTDATED
    install(GPTQ, lambda _: None)
    assert state(GPTQ) is ToolState.INSTALLED


def test_without_network_it_says_where_to_run_it_and_counts_as_interrupted(fake_uv: Fake) -> None:
    fake_uv(pip=2)
    with pytest.raises(UnavailableError, match=r"login node: hpcft tools install gptq") as caught:
        install(GPTQ, lambda _: None)
    assert caught.value.exit_code == 69
    assert state(GPTQ) is ToolState.INCOMPLETE


def test_what_does_not_work_does_not_count(fake_uv: Fake) -> None:
    fake_uv(python=1)
    with pytest.raises(HpcftError, match="does not work"):
        install(GPTQ, lambda _: None)
    assert state(GPTQ) is ToolState.INCOMPLETE


def test_where_no_environment_can_be_made_the_way_out_is_named(fake_uv: Fake) -> None:
    fake_uv(venv=1)
    with pytest.raises(HpcftError, match="python3-venv"):
        install(GPTQ, lambda _: None)


def test_two_installations_at_once_do_not_mix(fake_uv: Fake) -> None:
    fake_uv()
    lock = environment_of(GPTQ).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(HpcftError, match="another process"):
            install(GPTQ, lambda _: None)


def test_a_disk_that_is_too_full_is_told_before(fake_uv: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_uv()
    usage = type("Usage", (), {"free": 1024**3})
    monkeypatch.setattr("hpcft.models.tools.shutil.disk_usage", lambda _: usage)
    with pytest.raises(NotAllowedError, match=r"takes 6 GB, and 1\.0 GB are free"):
        install(GPTQ, lambda _: None)
    assert not calls.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HPCFT_TOOLS", str(tmp_path / "file" / "tools"))
    with pytest.raises(NotAllowedError, match="HPCFT_TOOLS"):
        install(GPTQ, lambda _: None)


def test_a_name_that_is_none_gives_those_that_are() -> None:
    with pytest.raises(UsageError, match="known: gptq"):
        find_tool("awq")


def test_they_lie_in_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPCFT_TOOLS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert environment_of(GPTQ) == tmp_path / "data" / "hpcft" / "tools" / "gptq"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment_of(GPTQ) == tmp_path / ".local" / "share" / "hpcft" / "tools" / "gptq"

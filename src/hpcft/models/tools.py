"""Programs whose libraries do not go together with ours, each in a virtual environment of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from hpcft.errors import ConfigError, HpcftError, NotAllowedError, UnavailableError, UsageError
from hpcft.runs.files import make_private, write_json
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job

# Written last, so that an installation that was interrupted has none.
_MARKER = "hpcft-tool.json"
GB = 1024**3


@dataclass(frozen=True)
class Tool:
    """What is installed.

    Attributes:
        about: a line for people.
        requirements: as pip takes them; pinned, since they are used through what they do today.
        program: our file that the environment's interpreter runs; with `--versions` it tells what it works with.
        size_gb: of the environment on disk.
    """

    name: str
    about: str
    requirements: tuple[str, ...]
    program: Path
    size_gb: float


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "gptq",
            "calibrated quantisation: quantize.method=gptq-int4, gptq-int8",
            ("llmcompressor==0.14.0.1",),
            Path(__file__).with_name("gptq_program.py"),
            6.0,
        ),
    )
}


class ToolState(StrEnum):
    """How far an installation is."""

    ABSENT = "not installed"
    INCOMPLETE = "interrupted"
    OUTDATED = "of another version"
    INSTALLED = "installed"


def find_tool(name: str) -> Tool:
    """The tool of a name.

    Raises:
        UsageError: there is none; names those that there are.
    """
    if name not in TOOLS:
        raise UsageError(f"there is no tool '{name[:60]}'", hint=f"known: {', '.join(TOOLS)}")
    return TOOLS[name]


def tools_folder() -> Path:
    """Where tools are installed: HPCFT_TOOLS, or the user's data folder, which a cluster's nodes usually share."""
    if chosen := os.environ.get("HPCFT_TOOLS"):
        return user_path(chosen).absolute()
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "hpcft" / "tools"


def environment_of(tool: Tool) -> Path:
    """Folder of the tool's environment, there or not."""
    return tools_folder() / tool.name


def interpreter(environment: Path) -> Path:
    """The Python of a virtual environment."""
    return environment / "bin" / "python"


def installed(tool: Tool) -> dict[str, Any] | None:
    """What the end of an installation wrote; None when it has not come to its end."""
    try:
        found = json.loads((environment_of(tool) / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def state(tool: Tool) -> ToolState:
    """How far the tool's installation is."""
    if not environment_of(tool).exists():
        return ToolState.ABSENT
    found = installed(tool)
    if found is None or not interpreter(environment_of(tool)).exists():
        return ToolState.INCOMPLETE
    same = found.get("requirements") == list(tool.requirements)
    return ToolState.INSTALLED if same else ToolState.OUTDATED


def install(tool: Tool, say: Callable[[str], None]) -> Path:
    """Make the tool's environment; nothing is done when it is there. What an interrupted or older one left is
    replaced.

    Args:
        say: takes lines about what is being done.

    Returns:
        Folder of the environment.

    Raises:
        UnavailableError: the packages cannot be had. HpcftError: the environment cannot be made or does not work.
    """
    folder = environment_of(tool)
    try:
        make_private(folder.parent)
    except OSError as error:
        raise NotAllowedError(
            f"cannot be made: {error.strerror}", where=str(folder.parent), hint="set HPCFT_TOOLS to a folder of yours"
        ) from error
    with _alone(folder.with_suffix(".lock")):
        before = state(tool)
        if before is ToolState.INSTALLED:
            say(f"{tool.name} is installed already, in {folder}")
            return folder
        if before is not ToolState.ABSENT:
            say(f"{folder} is {before}; it is made anew")
            shutil.rmtree(folder)
        _check_space(folder.parent, tool)
        say(f"installing {', '.join(tool.requirements)} into {folder}: {tool.size_gb:g} GB, from the network")
        _make(folder)
        _fill(folder, tool)
        say("trying it; its first start takes a while")
        answer = {"requirements": list(tool.requirements), "versions": _versions(folder, tool), "time": time.time()}
        write_json(folder / _MARKER, answer)
    return folder


def check_environment(job: Job) -> None:
    """Refuse a job that needs a tool which is not there.

    Raises:
        ConfigError: with the command that installs it.
    """
    if job.kind != "quantize" or not job.quantize.calibrated:
        return
    tool = TOOLS["gptq"]
    hint = "install it once, where there is internet: hpcft tools install gptq"
    if job.quantize.environment is not None:
        if not interpreter(user_path(job.quantize.environment)).exists():
            raise ConfigError(
                f"'{job.quantize.environment}' is no virtual environment: it has no bin/python",
                where="quantize.environment",
                hint=f"leave it out, or {hint}",
            )
    elif (found := state(tool)) is not ToolState.INSTALLED:
        raise ConfigError(
            f"{job.quantize.method} needs an environment of its own, which is {found} in {environment_of(tool)}",
            where="quantize.method",
            hint=f"{hint}; or take bnb-nf4 or bnb-int8, which need none",
        )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep a second installation of the same tool out.

    Raises:
        HpcftError: one is running.
    """
    with lock.open("w") as file:
        _lock(file, lock)
        yield


def _lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise HpcftError("is being installed by another process", where=str(path), hint="wait for its end") from error


def _check_space(folder: Path, tool: Tool) -> None:
    free = shutil.disk_usage(folder).free / GB
    if free < tool.size_gb:
        raise NotAllowedError(
            f"{tool.name} takes {tool.size_gb:g} GB, and {free:.1f} GB are free",
            where=str(folder),
            hint="set HPCFT_TOOLS to a folder with more space, in your shell's start file",
        )


def _make(folder: Path) -> None:
    if uv := shutil.which("uv"):
        command = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
    else:
        command = [sys.executable, "-m", "venv", str(folder)]
    if subprocess.run(command, stdout=sys.stderr, check=False, env=_environment()).returncode != 0:
        raise HpcftError(
            f"no virtual environment can be made in {folder}",
            where=" ".join(command[:3]),
            hint="with uv on the PATH it needs nothing else; Debian has venv in a package of its own, python3-venv",
        )


def _fill(folder: Path, tool: Tool) -> None:
    python = str(interpreter(folder))
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", python, "--compile-bytecode"]
    else:
        command = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    if subprocess.run([*command, *tool.requirements], stdout=sys.stderr, check=False, env=_environment()).returncode:
        raise UnavailableError(
            f"{', '.join(tool.requirements)} cannot be installed; what went wrong stands above",
            where=str(folder),
            hint=f"run it where there is internet, such as a login node: hpcft tools install {tool.name}",
        )


def _versions(folder: Path, tool: Tool) -> dict[str, str]:
    command = [str(interpreter(folder)), "-I", str(tool.program), "--versions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise HpcftError(f"what was installed does not work: {said}", where=str(folder))
    found: dict[str, str] = json.loads(lines[-1])
    return found


def _environment() -> dict[str, str]:
    """Without what would lead to another environment's packages."""
    return {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }

"""Completion in real shells: what is offered for verbs, options, values and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcft.cli.completion import Shell, script

BIN = Path(sys.executable).parent


@pytest.fixture
def folder(project: Path) -> Path:
    for name in ("first", "second"):
        (project / "results" / name).mkdir(parents=True)
        (project / "results" / name / "config.yaml").write_text("variant: lora\n")
    return project


def shell(name: str, commands: str, folder: Path) -> list[str]:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    options = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    done = subprocess.run(
        [name, *options, "-c", commands], cwd=folder, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def offered(name: str, line: str, folder: Path) -> list[str]:
    """What a shell offers behind a line."""
    if name == "bash":
        ask = f"COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; _hpcft_completion hpcft 2>/dev/null"
        return shell("bash", f'source <(hpcft completion bash); {ask}; printf "%s\\n" "${{COMPREPLY[@]}}"', folder)
    if name == "zsh":
        return shell("zsh", _ASK_ZSH.replace("LINE", line), folder)
    return shell("fish", f"hpcft completion fish | source; complete -C {line!r}", folder)


# zsh completes only while a line is edited. Here its function is called with the words that the line editor would
# give it, and what it would offer is printed instead.
_ASK_ZSH = """
compdef() { }
_arguments() { print -r -- "$1" | sed 's/" "/"\\n"/g' | sed -E 's/^[^"]*"([^"]*)".*/\\1/' }
source <(hpcft completion zsh)
line='LINE'
words=(${(Q)${(z)line}})
[[ $line == *' ' ]] && words+=('')
CURRENT=$#words
_hpcft_completion
"""


@pytest.mark.parametrize("name", ["bash", "fish", "zsh"])
@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("hpcft su", {"submit"}),
        ("hpcft submit --preset q", {"quickstart"}),
        ("hpcft submit --cluster l", {"local"}),
        ("hpcft submit --variant q", {"qlora"}),
        ("hpcft submit --zero ", {"auto", "0", "3"}),
        ("hpcft submit --max-st", {"--max-steps"}),
        ("hpcft show f", {"first"}),
    ],
)
def test_a_shell_offers_what_fits(folder: Path, name: str, line: str, some: set[str]) -> None:
    assert some <= set(offered(name, line, folder))


@pytest.mark.parametrize("name", ["bash", "fish", "zsh"])
def test_a_file_s_name_is_never_run(folder: Path, name: str) -> None:
    """zsh evaluates what it is offered."""
    for title in (r"\$(touch pwned).yaml", "`touch pwned`.yaml", '";touch pwned;".yaml', "fine.yaml"):
        (folder / title).write_text("variant: lora\n")
    shown = " ".join(offered(name, "hpcft submit ", folder))
    assert "fine.yaml" in shown
    assert "pwned" not in shown
    assert not (folder / "pwned").exists()


def test_bash_completes_a_key_and_then_its_values(folder: Path) -> None:
    """bash keeps what stands before `=` and asks for the rest."""
    assert "training.zero=" in offered("bash", "hpcft submit --set training.z", folder)
    assert {"0", "1", "2", "3", "auto"} <= set(offered("bash", "hpcft submit --set training.zero=", folder))
    assert offered("bash", "hpcft submit data.task=q", folder) == ["qa"]


def test_fish_completes_a_key_s_values(folder: Path) -> None:
    assert "data.task=qa" in offered("fish", "hpcft submit data.task=q", folder)


def test_zsh_s_script_loads_and_defines_its_function(folder: Path) -> None:
    commands = "autoload -Uz compinit && compinit -u -D; source <(hpcft completion zsh); print $_comps[hpcft]"
    assert shell("zsh", commands, folder) == ["_hpcft_completion"]


@pytest.mark.parametrize("name", Shell)
def test_install_writes_where_the_shell_looks(hpcft, folder: Path, name: Shell) -> None:
    result = hpcft("completion", name.value, "--install")
    assert result.code == 0
    place = Path(result.err.partition("written: ")[2].splitlines()[0])
    assert place.is_relative_to(Path(os.environ["HOME"]))
    assert place.read_text() == script(name)


def test_verbs_are_completed_without_loading_one(folder: Path) -> None:
    code = (
        "import sys; from hpcft.cli.main import main; sys.argv = ['hpcft']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('hpcft.') and m.split('.')[1] not in ('cli', 'errors')])"
    )
    asked = {"_HPCFT_COMPLETE": "complete_bash", "COMP_WORDS": "hpcft s", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked)
    assert {"submit", "show", "status"} <= set(done.stdout.split("\n"))
    assert done.stdout.splitlines()[-1] == "[]"


def test_completion_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from hpcft.cli.complete import pairs, presets; assert pairs('data.ta') and presets('q'); "
        "print([m for m in ('torch', 'transformers', 'wandb', 'submitit') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

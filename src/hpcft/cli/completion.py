"""`hpcft completion`: the script that lets a shell complete verbs, options, values and runs."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

import typer

from hpcft.cli.main import COMPLETE
from hpcft.cli.output import say
from hpcft.cli.texts import ending
from hpcft.runs.files import explained

app = typer.Typer(rich_markup_mode=None, add_completion=False)

# bash breaks words at `=`, and would ask for what follows `lora.r` alone. The words are counted from the line itself,
# and what stands before the last `=` is taken off the answers, since bash keeps it.
_BASH = """\
_hpcft_completion() {{
    local IFS=$'\\n' line="${{COMP_LINE:0:COMP_POINT}}" cur="" words
    words=$(IFS=$' \\t'; set -f; set -- $line; echo $#)
    case "$line" in *[[:space:]]) words=$((words + 1)) ;; *) cur="${{line##*[[:space:]]}}" ;; esac
    COMPREPLY=( $(env COMP_WORDS="$line" COMP_CWORD=$((words - 1)) {variable}=complete_bash "$1" 2>/dev/null) )
    case "$cur" in *=*) COMPREPLY=( "${{COMPREPLY[@]#"${{cur%=*}}="}}" ) ;; esac
    case "${{COMPREPLY[0]-}}" in *=) compopt -o nospace ;; esac
    return 0
}}
complete -o default -F _hpcft_completion hpcft
"""


class Shell(StrEnum):
    """Shells with a completion of their own."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def script(shell: Shell) -> str:
    """The completion script of a shell."""
    if shell is Shell.bash:
        return _BASH.format(variable=COMPLETE)
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name="hpcft", complete_var=COMPLETE, shell=shell.value) + "\n"


def _place(shell: Shell) -> Path:
    """Where the shell looks for it by itself."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {
        Shell.bash: data / "bash-completion" / "completions" / "hpcft",
        Shell.zsh: Path.home() / ".zfunc" / "_hpcft",
        Shell.fish: config / "fish" / "completions" / "hpcft.fish",
    }[shell]


@app.command(
    epilog=ending(
        ["source <(hpcft completion bash)", "hpcft completion fish --install", "hpcft completion zsh"],
        {0: "printed, or installed", 2: "", 77: ""},
    )
)
def completion(
    shell: Shell = typer.Argument(..., help="bash, zsh or fish."),
    install: bool = typer.Option(False, "--install", help="Write it where the shell looks, in your home."),
) -> None:
    """Print a shell's completion script, or install it."""
    text = script(shell)
    if not install:
        print(text, end="")
        return
    place = _place(shell)
    with explained(place, "write"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    say(f"written: {place}")
    if shell is Shell.zsh:
        say("your ~/.zshrc needs, before compinit: fpath+=~/.zfunc; and then: autoload -Uz compinit && compinit")
    else:
        say("it works in the next shell that you open")

"""`hpcft init`: a project of the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer

from hpcft.cli.output import say, table
from hpcft.cli.texts import ending
from hpcft.errors import ConfigError
from hpcft.spec import assets
from hpcft.spec.identifiers import user_path

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_PROJECT = """\
# Keys of every job in this folder; `hpcft config show --origin` says what holds.
# cluster: mysite          # a profile in hpc/
# tracking:
#   project: my-project    # wandb's
# resources:
#   account: my-account
"""
_IGNORED = "results/\nwandb/\n"


@app.command(
    epilog=ending(
        ["hpcft init", "hpcft init study --presets"], {0: "made, or all of it was there", 2: "", 77: "", 78: ""}
    )
)
def init(
    folder: str = typer.Argument(".", metavar="[DIR]", help="Where; made if it is not there."),
    presets: bool = typer.Option(False, "--presets", help="Copy the presets and sweeps too, to edit them."),
) -> None:
    """Make a project of your own: configuration, a profile to fill in, presets. What is there is never touched."""
    root = user_path(folder)
    rows: list[tuple[str, str]] = []
    try:
        root.mkdir(parents=True, exist_ok=True)
        _write(root / "hpcft.yaml", _PROJECT, rows)
        _write(root / ".gitignore", _IGNORED, rows)
        _copy(assets.packaged_folder("hpc") / "example.yaml", root / "hpc" / "example.yaml", rows)
        (root / "jobs").mkdir(exist_ok=True)
        for preset in sorted(assets.packaged_folder("jobs").glob("*.yaml")) if presets else ():
            _copy(preset, root / "jobs" / preset.name, rows)
        for sweep in sorted(assets.packaged_folder("sweeps").glob("*.yaml")) if presets else ():
            _copy(sweep, root / "sweeps" / sweep.name, rows)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=str(error.filename or root)) from error
    table(str(root), rows)
    if folder != ".":
        say(f"next: cd {folder}")
    say("on a cluster's login node: hpcft cluster probe --name mysite")
    say("a first job: hpcft run --preset quickstart --variant lora --max-steps 20")


def _write(path: Path, text: str, rows: list[tuple[str, str]]) -> None:
    if path.exists():
        rows.append((path.name, "was there, left as it is"))
        return
    path.write_text(text, encoding="utf-8")
    rows.append((path.name, "made"))


def _copy(source: Path, target: Path, rows: list[tuple[str, str]]) -> None:
    name = f"{target.parent.name}/{target.name}"
    if target.exists():
        rows.append((name, "was there, left as it is"))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    rows.append((name, "made"))

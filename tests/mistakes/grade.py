"""Makes every mistake of the corpus and grades what the tool says.

    PYTHONPATH=tests:src python -m mistakes.grade [--write PAGE]

A mistake counts as caught when it is refused before `sbatch`, with its exit code, and the message names the place
(file and line, or option), what is wrong, and the way out (the nearest valid, or what to do). What Slurm itself refuses
comes after `sbatch`; those cases are graded by the same rules.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
QUICK = "submit --preset quickstart --cluster local --dry-run"


@dataclass(frozen=True)
class Mistake:
    """One mistake: what is there, what is typed, what the message must name."""

    area: str
    typed: str
    code: int
    where: str
    what: str
    way: str
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    fault: str | None = None

    @property
    def name(self) -> str:
        """To be found by in the corpus."""
        shown = next(iter([*self.environment, *(self.files.values())]), "")[:40].replace("\n", "⏎")
        return f"{self.area}: {self.typed.removeprefix(QUICK).strip()[:70]} {shown}".strip()


@dataclass(frozen=True)
class Grade:
    """What the tool did."""

    mistake: Mistake
    code: int
    said: str
    submitted: bool

    @property
    def faults(self) -> list[str]:
        """What is missing of a good answer; empty when nothing is."""
        m = self.mistake
        found = []
        if "Traceback" in self.said:
            found.append("a traceback")
        if self.submitted and m.fault is None:
            found.append("not caught before sbatch")
        if self.code != m.code:
            found.append(f"exit code {self.code}, not {m.code}")
        wanted = {"place": m.where, "matter": m.what, "way out": m.way}
        found += [f"does not name the {what} ({text})" for what, text in wanted.items() if text not in self.said]
        return found


def _read(name: str) -> Any:
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def corpus() -> list[Mistake]:
    """All mistakes."""
    found: list[Mistake] = []
    for typed, *rest in _read("options.yaml"):
        words = typed.removeprefix("whole ") if typed.startswith("whole ") else f"{QUICK} {typed}"
        found.append(Mistake("options", words, *rest))
    files = _read("files.yaml")
    for content, *rest in files["job"]:
        job = "submit job.yaml --cluster local --dry-run"
        if content.startswith("cluster:"):
            job = "submit job.yaml --dry-run"
        found.append(Mistake("job files", job, *rest, files={"job.yaml": content}))
    for content, *rest in files["profile"]:
        typed = "submit --preset quickstart --cluster site.yaml --dry-run"
        found.append(Mistake("profiles", typed, *rest, files={"site.yaml": content}))
    for content, *rest in files["project"]:
        found.append(Mistake("project", "submit --preset quickstart --dry-run", *rest, files={"hpcft.yaml": content}))
    for file, content, options, *rest in _read("data.yaml"):
        typed = f"submit --model quickstart --cluster local --dry-run --dataset {file} {options}"
        found.append(Mistake("data", typed, *rest, files={file: content}))
    places = _read("places.yaml")
    for variable, value, *rest in places["environment"]:
        found.append(Mistake("environment", QUICK, *rest, environment={variable: value}))
    for parts, *rest in places["model"]:
        inside = {f"folder/{name}": text for name, text in parts.items()} or {"folder/README.md": "x"}
        found.append(Mistake("models", f"{QUICK} --model folder", *rest, files=inside))
    for fault, *rest in _read("cluster.yaml"):
        typed = "submit --preset quickstart --cluster slurm --name refused"
        found.append(Mistake("Slurm's answers", typed, *rest, fault=fault))
    return found


@contextlib.contextmanager
def _place(mistake: Mistake) -> Iterator[Path]:
    """An empty project with the mistake's files, a home of its own, and its variables."""
    before, cwd = dict(os.environ), Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        (Path(name) / "home").mkdir()
        folder.mkdir()
        for file, content in mistake.files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(content, encoding="utf-8")
        for variable in [v for v in os.environ if v.startswith(("HPCFT_", "SBATCH_", "SLURM_"))]:
            del os.environ[variable]
        os.environ.update(HOME=str(Path(name) / "home"), HF_HUB_OFFLINE="1", **mistake.environment)
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(before)


def make(mistake: Mistake, slurm: Any = None) -> Grade:
    """Make one mistake, in this process.

    Args:
        slurm: the fake Slurm, for what Slurm answers.
    """
    from hpcft.cli.main import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    before = slurm.submissions if slurm is not None else 0
    with _place(mistake), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if slurm is not None:
            slurm.fault(sbatch=mistake.fault)
        arguments, sys.argv = sys.argv, ["hpcft", *shlex.split(mistake.typed)]
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        except BaseException as error:
            err.write(f"Traceback {type(error).__name__}: {error}")
        finally:
            sys.argv = arguments
        left = Path("results")
        submitted = (slurm is not None and slurm.submissions > before) or (left.is_dir() and any(left.iterdir()))
    return Grade(mistake, code, out.getvalue() + err.getvalue(), submitted)


def page(grades: list[Grade]) -> str:
    """The table by area, and what is not as it should be."""
    areas = list(dict.fromkeys(g.mistake.area for g in grades))
    lines = [
        "# Mistakes",
        "",
        "Made by `make mistakes` from the corpus in `tests/mistakes`. A mistake counts when it is",
    ]
    lines += ["refused with its exit code before `sbatch` and the message names the place, the matter and the way out."]
    lines += ["", "| area | mistakes | as they should be | tracebacks |", "|---|---|---|---|"]
    for area in [*areas, "all"]:
        own = [g for g in grades if area in ("all", g.mistake.area)]
        traces = sum("Traceback" in g.said for g in own)
        lines.append(f"| {area} | {len(own)} | {sum(not g.faults for g in own)} | {traces} |")
    wrong = [f"- {g.mistake.name}: {'; '.join(g.faults)}" for g in grades if g.faults]
    lines += ["", "Not as they should be:" if wrong else "All are as they should be.", *wrong, ""]
    lines += [f"{platform.system()} {platform.machine()}, Python {platform.python_version()}.", ""]
    return "\n".join(lines)


def main() -> int:
    """Grade the corpus; those of Slurm's answers are graded by the tests, which have the fake Slurm."""
    grades = [make(m) for m in corpus() if m.fault is None]
    text = page(grades)
    if "--write" in sys.argv:
        Path(sys.argv[sys.argv.index("--write") + 1]).write_text(text, encoding="utf-8")
    print(text)
    for grade in grades:
        if grade.faults and "--verbose" in sys.argv:
            print(f"== {grade.mistake.name}\n{grade.mistake.typed}\n{grade.said}\n-> {grade.faults}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The repository itself: the lock, what comes with it, the README's commands."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_committed_lock_names_no_address() -> None:
    shown = subprocess.run(["git", "-C", str(ROOT), "show", "HEAD:uv.lock"], capture_output=True, text=True)
    if shown.returncode:
        pytest.skip("not a git checkout")
    assert "://" not in shown.stdout
    assert 'name = "torch"' in shown.stdout


def test_the_lock_is_stripped_of_what_uv_writes_back() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from strip_lock import strip
    finally:
        sys.path.pop(0)
    full = (
        '[[package]]\nname = "a"\nversion = "1"\nsource = { registry = "mirror://host/index" }\n'
        'sdist = { url = "mirror://host/a", hash = "sha256:0" }\n'
        'wheels = [\n    { url = "mirror://host/b" },\n]\n\n'
        '[[package]]\nname = "root"\nsource = { editable = "." }\n\n'
        '[package.metadata]\nrequires-dist = [\n    { name = "a" },\n]\n'
    )
    stripped = strip(full)
    assert "mirror:" not in stripped
    assert "requires-dist" not in stripped
    assert strip(stripped) == stripped


def test_e1_wandb_comes_with_the_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [name for name in project["dependencies"] if re.match(r"wandb\b(?!-)", name)]


def tour() -> list[str]:
    """The commands of the README's tour, in order."""
    section = (ROOT / "README.md").read_text().partition("## Five minutes")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_u11_the_readmes_tour_runs_as_it_stands(tmp_path: Path, small_quickstart: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {
        "PATH": path,
        "HOME": str(tmp_path),
        "HPCFT_CACHE": str(small_quickstart),
        "HPCFT_CLUSTER": "local",
        "OMP_NUM_THREADS": "1",
    }
    commands = tour()
    assert len(commands) >= 6
    for line in commands:
        if line.startswith("source "):
            continue
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "results" / "first" / "final_model" / "adapter_model.safetensors").is_file()


def test_b1_what_the_gradient_study_needs_comes_with_the_package() -> None:
    needed = "torch transformers peft datasets matplotlib numpy pandas tqdm accelerate nltk rouge_score sacrebleu"
    assert [name for name in needed.split() if importlib.util.find_spec(name) is None] == []
    # What earlier tools needed besides, for the looks of their pictures and for one score.
    text = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    assert not re.search(r"^\s*(?:import|from) (?:seaborn|pandas|evaluate)\b", text, re.MULTILINE)

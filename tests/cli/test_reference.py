"""The reference is made from the command line and the job, and the page in docs/ is the newest one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcft.cli.main import VERBS
from hpcft.cli.reference import job_options, keys, man_page, page, profile_keys
from hpcft.spec.keys import SHORT_NAMES, fields

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_page_in_the_docs_is_the_newest(project: Path) -> None:
    assert PAGE.read_text() == page(), "run: make reference"


def test_the_reference_has_every_verb_key_and_option(project: Path) -> None:
    text = page()
    for verb in VERBS:
        assert f"### hpcft {verb}" in text
    for key in fields():
        assert f"`{key}`" in text
    for name in SHORT_NAMES:
        assert "--" + name.replace("_", "-") in text


def test_every_option_and_key_says_what_it_means(project: Path) -> None:
    assert [row[0] for row in job_options() if not row[2]] == []
    assert [row[0] for row in keys() if not row[3] or row[3].startswith("--")] == []
    assert [key for key, meaning in profile_keys() if not meaning] == []


def test_the_options_of_a_job_stand_once(project: Path) -> None:
    assert page().count("`--warmup-steps") == 1
    assert "`--dry-run`" in page()


def test_the_man_page_is_read_without_a_warning(project: Path, tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done: Any = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-k", "-P-cbou"],
        input=man_page(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "learning_rate" in done.stdout

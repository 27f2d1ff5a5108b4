"""S1: whatever the texts of a job and a profile hold, the script has its own directives and commands and no others."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hpcft.cluster.profile import Profile
from hpcft.cluster.render import render
from hpcft.errors import ConfigError
from hpcft.runs.paths import RunPaths
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import SpecError, mapping_layer

PIECES = ["\n", "\r", "\0", "\x85", "\u2028", "#SBATCH --wrap=id", "touch pwned", ";", "&&", "|", "$(id)", "`id`"]
PIECES += [
    "'",
    '"',
    "\\",
    " ",
    "#",
    "%j",
    "-",
    "--",
    "{{",
    "}}",
    "{%",
    "a",
    "ü",
    "/",
    "..",
    "~",
    "*",
    "<",
    ">",
    "=",
    ",",
]
HOSTILE = st.one_of(st.text(max_size=20), st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
FIELDS = ["env", "sbatch", "modules", "container", "python", "results", "name", "partition", "account", "qos"]
FIELDS += ["constraint", "gpu_type"]


def rendered(field: str, text: str) -> str | None:
    """The script with the text in one of its fields; None where the gate refuses it."""
    profile: dict[str, object] = {"name": "site", "python": "/opt/python"}
    values: dict[str, object] = {}
    if field in ("env", "sbatch"):
        profile[field] = {"X" if field == "env" else "exclude": text}
    elif field in ("modules", "container"):
        profile[field] = [text]
    elif field == "python":
        profile[field] = text
    else:
        values[field if field in ("results", "name") else f"resources.{field}"] = text
    try:
        job: Job = build([mapping_layer(values, "x")]).job
        paths = RunPaths(Path("/r") / job.results / (job.name or "run"))
        return render(job, Profile.model_validate(profile), paths, "k3f9x2m1qa")
    except (SpecError, ValidationError, ConfigError):
        return None


def directives(script: str) -> list[str]:
    """The options of the header, read as sbatch does: up to the first command, words split as a shell would."""
    found: list[str] = []
    for line in re.split(r"[\n\r]", script):
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            words = shlex.split(line.removeprefix("#SBATCH"))
            assert len(words) == 1, line
            found.append(words[0].partition("=")[0])
    return found


def commands(script: str) -> list[str]:
    """The first word of every line that is one, quoted texts taken as one word each."""
    body = re.sub(r"^\s*#.*$", "", script, flags=re.MULTILINE)
    return re.findall(r"^\s*([^\s=]+)", re.sub(r"'[^']*'", "q", body), flags=re.MULTILINE)


@pytest.mark.parametrize("field", FIELDS)
def test_s1_a_text_is_a_value_or_it_is_refused(field: str, tmp_path: Path) -> None:
    harmless = rendered(field, "abc")
    assert harmless is not None

    @settings(max_examples=60, deadline=None)
    @given(HOSTILE)
    def check(text: str) -> None:
        made = rendered(field, text)
        if made is None:
            return
        # None more and none twice; an empty text means that the option is not set.
        assert not Counter(directives(made)) - Counter(directives(harmless))
        if field not in ("container", "python"):  # there the text itself is the first word of a line
            assert commands(made) == commands(harmless)
        read = subprocess.run(["bash", "-n"], input=made, capture_output=True, text=True, check=False)
        assert read.stderr == ""

    check()


@settings(max_examples=60, deadline=None)
@given(HOSTILE)
def test_s1_a_containers_words_and_python_reach_srun_as_they_are(text: str) -> None:
    for field in ("container", "python"):
        made = rendered(field, text)
        if made is not None:
            call = made[made.index("srun --export") : made.index("code=$?")]
            words = shlex.split(call.replace("\\\n", " ", 3 if field == "container" else 1))
            assert words[-5 if field == "python" else -6] == text

"""The recipe of the container images, and jobs that run in one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.shell import lint

from hpcft.cluster.containers import container_findings
from hpcft.cluster.findings import Light
from hpcft.cluster.profile import Profile
from hpcft.runs.run import Run, RunState
from hpcft.spec.secrets import is_secret_name

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "deploy" / "Containerfile"
DEFINITION = ROOT / "deploy" / "hpcft.def"
STAND_IN = Path(__file__).with_name("apptainer")
PROGRAMS = Path(sys.executable).parent


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows), with lines put together."""
    lines = [line for line in RECIPE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", "")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Stage → (what it begins with, its instructions)."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif found:
            found[name][1].append((word, rest))
    return found


def all_of(stage: str) -> list[tuple[str, str]]:
    """A stage's instructions behind those of the stages that it begins with."""
    base, own = stages()[stage]
    return [*(all_of(base) if base in stages() else []), *own]


def test_c9_one_recipe_makes_a_small_image_of_the_service_and_the_whole_one() -> None:
    found = stages()
    assert list(found)[-1] == "full"
    assert {found[name][0] for name in ("service", "full")} == {"runtime"}
    # One base for all, which is an argument; and PyTorch's build is another.
    assert {base for base, _ in found.values() if base not in found} == {"${BASE}"}
    assert ("ARG", "TORCH=") in found["all-packages"][1]
    # Neither image has what the packages were installed with.
    for name in ("service", "full"):
        assert [rest for word, rest in all_of(name) if word == "COPY"] == [
            f"--from={'all' if name == 'full' else name}-packages /opt/hpcft /opt/hpcft"
        ]


@pytest.mark.parametrize("name", ["service", "full"])
def test_c9_an_image_runs_as_nobody_s_root(name: str) -> None:
    users = [rest for word, rest in all_of(name) if word == "USER"]
    # A number, which Kubernetes can judge.
    assert users[-1] == "10001:10001"
    assert ("ENTRYPOINT", '["hpcft"]') in all_of(name)


def test_c9_versions_are_the_lock_s_and_nothing_but_the_package_is_copied() -> None:
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert copied == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "src", *carried}
    installs = re.findall(r"uv pip install ([^&;]*)", RECIPE.read_text())
    for words in installs:
        assert re.search(r"-r (all|plain|service)\.txt|--no-deps /wheel", words), words


def test_c9_s3_the_recipe_has_no_address_and_no_secret() -> None:
    for file in (RECIPE, DEFINITION):
        text = file.read_text()
        assert "://" not in text
        assert not re.search(r"\b[\w-]+\.(?:io|org|com|dev|net)\b", text)
        assert not re.search(r"--(?:index|extra-index|find-links|trusted-host)", text)
    for word, rest in instructions():
        if word in ("ARG", "ENV"):
            assert [name for name in re.findall(r"(\w+)=", rest) if is_secret_name(name)] == []


def test_c9_the_recipe_is_lint_free(tmp_path: Path) -> None:
    # Versions of Debian's compiler and of uv are the base image's day's.
    ignored = ["--ignore", "DL3008", "--ignore", "DL3013", "--ignore", "DL3006"]
    done = subprocess.run([str(PROGRAMS / "hadolint"), *ignored, str(RECIPE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for number, (word, rest) in enumerate(instructions()):
        if word == "RUN":
            (tmp_path / str(number)).mkdir()
            lint(f"#!/bin/sh\n{rest}\n", tmp_path / str(number))


def left_out(name: str) -> set[str]:
    """The packages that a set of the recipe is without, as it names them."""
    (words,) = (w for _, rest in instructions() for w in re.findall(rf"list {name}\.txt ([^&]*)", rest))
    return set(words.replace("--prune", "").split())


def test_c9_the_service_is_without_pytorch_and_whatever_needs_it() -> None:
    lock = {p["name"]: p for p in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    needs = {n: {d["name"] for d in p.get("dependencies", [])} for n, p in lock.items()}
    direct = {
        re.split(r"[<>=]", d)[0]
        for d in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    out = left_out("service")
    assert left_out("plain") == {"torch"}
    assert out <= needs.keys()
    reached, left = set[str](), [name for name in direct if name not in out]
    while left:
        reached.add(name := left.pop())
        left += [d for d in needs[name] - reached if d not in out]
    assert {name for name in reached if needs[name] & out} == set()
    assert {name for name in reached if name.startswith("nvidia-")} == {"nvidia-ml-py"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["ls"],
        ["query", "--where", "loss>0"],
        ["show", "first"],
        ["stats"],
        ["serve", "--help"],
        ["config", "show", "--preset", "quickstart", "--variant", "lora"],
        ["submit", "--preset", "quickstart", "--variant", "lora", "--cluster", "slurm", "--dry-run"],
    ],
    ids=" ".join,
)
def test_c9_what_the_service_s_image_has_does_not_need_what_it_lacks(
    words: list[str], project: Path, small_quickstart: Path
) -> None:
    run = project / "results" / "first"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("variant: lora\n")
    without = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))"
    without += "; from hpcft.cli.main import main; main()"
    missing = " ".join(name.replace("-", "_") for name in left_out("service"))
    done = subprocess.run(
        [sys.executable, "-c", without, missing, *words],
        env=os.environ | {"HPCFT_CACHE": str(small_quickstart)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_c9_apptainer_s_image_is_made_of_the_same_one() -> None:
    header, _, sections = DEFINITION.read_text().partition("\n%")
    assert re.search(r"^Bootstrap: docker-archive\nFrom: hpcft\.tar$", header, re.MULTILINE)
    assert re.findall(r"^%(\w+)", f"%{sections}", re.MULTILINE) == ["test", "runscript"]


# A profile that runs its jobs in one


def site(**values: Any) -> Profile:
    return Profile.model_validate({"name": "site", **values})


def lights(profile: Profile) -> list[tuple[Light, str]]:
    return [(finding.light, finding.message) for finding in container_findings(profile)]


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, with the stand-in in PATH."""
    monkeypatch.setenv("PATH", f"{STAND_IN.parent}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "my image.sif"
    path.touch()
    return path


def test_what_a_container_needs_is_looked_for_before_a_job_waits_for_it(image: Path, tmp_path: Path) -> None:
    assert lights(site()) == []
    good = ["apptainer", "exec", "--nv", "--bind", f"{tmp_path}:/data:ro", str(image)]
    assert [light for light, _ in lights(site(container=good))] == [Light.GREEN]
    # A folder that is here and lacks it: a typing mistake. One that is not may be the nodes' own.
    lacking = [*good[:-1], str(tmp_path / "other.sif")]
    assert lights(site(container=lacking)) == [(Light.RED, f"there is no image {tmp_path}/other.sif")]
    assert lights(site(container=[*good[:-1], "/no/such/x.sif"])) == [
        (Light.YELLOW, "there is no image /no/such/x.sif here")
    ]
    ((light, message),) = lights(site(container=[*good[:-1], "x.sif"]))
    assert (light, message) == (Light.RED, "x.sif would be looked for in each run's own directory")
    bound = ["apptainer", "exec", f"--bind={tmp_path},/no/such:/data", str(image)]
    assert [(light, "/no/such," in message) for light, message in lights(site(container=bound))] == [
        (Light.YELLOW, True)
    ]


def test_a_container_s_program_that_is_not_here_may_come_with_a_module() -> None:
    words = ["no-apptainer", "exec", "oras://site/image.sif"]
    assert lights(site(container=words)) == [(Light.YELLOW, "there is no no-apptainer here")]
    ((light, message),) = lights(site(container=words, modules=["apptainer"]))
    assert (light, "modules" in message) == (Light.GREY, True)


def test_a_job_whose_image_is_not_there_is_not_submitted(
    hpcft: Callable[..., Any],
    fake_slurm: Any,
    project: Path,
    image: Path,
    small_quickstart: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    monkeypatch.setattr("hpcft.cluster.preflight.PATIENCE_S", 60.0)
    missing = image.with_name("gone.sif")
    profile = {
        "scheduler": "slurm",
        "resources": {"accelerator": "cpu"},
        "container": ["apptainer", "exec", str(missing)],
    }
    (project / "site.yaml").write_text(yaml.safe_dump(profile))
    words = ["--cluster", "site.yaml", "--preset", "quickstart", "--variant", "lora"]
    answer = hpcft("submit", *words)
    assert answer.code == 78
    assert f"there is no image {missing}" in answer.err
    assert "container in the profile site" in answer.err
    assert not (project / "results").exists()
    told = hpcft("doctor", *words[:2])
    assert "RED container" in " ".join(told.out.split())


@pytest.mark.slurm
def test_a_job_runs_in_the_container_and_one_without_its_image_says_why(
    slurm_cluster: Any, slurm_home: Path, small_quickstart: Path
) -> None:
    shutil.copytree(small_quickstart, slurm_home / "cache")
    image = slurm_home / "my image.sif"
    image.touch()
    words = [str(STAND_IN), "exec", "--nv", "--bind", str(slurm_home)]
    profile = {
        "scheduler": "slurm",
        "resources": {"accelerator": "cpu", "time": "00:10:00", "cpus_per_task": 1, "account": "acme"},
        "env": {"OMP_NUM_THREADS": "1", "HPCFT_CACHE": str(slurm_home / "cache")},
    }
    environment = os.environ | {"HPCFT_CACHE": str(slurm_home / "cache"), "HOME": str(slurm_home)}

    def hpcft(*arguments: str) -> str:
        done = subprocess.run(
            [PROGRAMS / "hpcft", *arguments],
            cwd=slurm_home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return done.stdout + done.stderr

    small = ["--preset", "quickstart", "--variant", "lora", "--max-steps", "2", "--set", "data.eval_samples=2"]
    # The second one waits, and the first has ended meanwhile.
    for name, path, wait in (("outside", Path("/no/such.sif"), []), ("inside", image, ["--wait"])):
        (slurm_home / f"{name}.yaml").write_text(yaml.safe_dump(profile | {"container": [*words, str(path)]}))
        hpcft("submit", "--cluster", f"{name}.yaml", "--name", name, *small, *wait)
    run = Run(slurm_home / "results" / "inside")
    assert run.state is RunState.SUCCESS, run.paths.batch_log.read_text()
    (call,) = Path(f"{image}.called").read_text().splitlines()
    assert call == f"{run.job_id}.0 {slurm_home} {image} {sys.executable} -P -m hpcft.worker {run.paths.root}"
    assert "could not open image /no/such.sif" in hpcft("explain", "outside")

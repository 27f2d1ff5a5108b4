"""The batch script: golden files, shellcheck, and a gate that nothing hostile passes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.shell import lint

from hpcft.cluster.profile import Profile, choose_cluster, load_profile
from hpcft.cluster.render import job_name, render
from hpcft.errors import ConfigError
from hpcft.runs.paths import RunPaths
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import SpecError, mapping_layer, pairs_layer

GOLDEN = Path(__file__).parent.parent / "data" / "golden"
# To write them anew, when a change is meant, and read the difference.
WRITE_GOLDEN = "HPCFT_TEST_WRITE_GOLDEN" in os.environ

CASES: dict[str, tuple[dict[str, object], list[str]]] = {
    "lora_one_gpu": ({}, ["variant=lora", "resources.time=04:00:00"]),
    "qlora_two_nodes": (
        {
            "modules": ["cuda/12.4", "gcc"],
            "setup": ["ulimit -n 65536"],
            "container": ["apptainer", "exec", "--nv", "--bind", "/scratch", "/shared/my image.sif"],
            "env": {"HF_HOME": "/scratch/hugging face", "NCCL_SOCKET_IFNAME": "ib0"},
            "sbatch": {"exclude": "node[7-9]", "exclusive": ""},
        },
        [
            "variant=qlora",
            "resources.nodes=2",
            "resources.gpus_per_node=2",
            "resources.gpu_type=a100",
            "resources.cpus_per_task=8",
            "resources.mem_gb=120.5",
            "resources.partition=gpu",
            "resources.account=my-project",
            "resources.qos=long",
            "resources.constraint=nvlink",
            "resources.time=1-12:00:00",
            "resources.signal_seconds=180",
        ],
    ),
    "cpu_ranks": ({"internet": True}, ["resources.accelerator=cpu", "resources.gpus_per_node=4"]),
}


def script(profile: dict[str, object], pairs: list[str], root: str = "/home/me/my results/run_1") -> str:
    job = build([pairs_layer(pairs, "--set")]).job
    site = Profile.model_validate({"name": "site", "python": "/opt/venv/bin/python", **profile})
    return render(job, site, RunPaths(Path(root)), "k3f9x2m1qa")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name in ("HOME", "USER", "PATH", "LANG"):
        monkeypatch.setenv(name, "/usr/bin:/bin" if name == "PATH" else "x")


@pytest.mark.parametrize("name", CASES)
def test_rendered_scripts_are_the_golden_ones_and_shellcheck_clean(name: str, tmp_path: Path) -> None:
    text = script(*CASES[name])
    golden = GOLDEN / f"{name}.sh"
    if WRITE_GOLDEN:
        golden.write_text(text)
    assert text == golden.read_text()
    lint(text, tmp_path)


HOSTILE = [
    "a\nb",
    'a"b',
    "a'b",
    "$(touch pwned)",
    "`id`",
    "a;b",
    "-x",
    "a\0b",
    "../../x",
    "x" * 65_536,
    "a b",
    "a\u2028b",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", ["name", "resources.partition", "resources.account", "resources.gpu_type"])
def test_s1_hostile_identifiers_are_refused_before_a_script_exists(key: str, text: str) -> None:
    with pytest.raises(SpecError, match=key):
        build([mapping_layer({key: text}, "--x")])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30))
def test_s1_no_text_makes_a_further_directive_or_a_live_line(text: str) -> None:
    plain = script({}, [])
    fields = [
        ({"env": {"X": text}}, {}),
        ({"sbatch": {"exclude": text}}, {}),
        ({"modules": [text]}, {}),
        ({"container": [text]}, {}),
        ({"python": text}, {}),
        ({}, {"results": text}),
        ({}, {"name": text}),
        ({}, {"resources.partition": text}),
    ]
    for profile, job in fields:
        try:
            spec = build([mapping_layer(job, "x")]).job
            site = Profile.model_validate({"name": "site", "python": "/opt/venv/bin/python", **profile})
            root = Path("/r") / spec.results / (spec.name or "run")
            made = render(spec, site, RunPaths(root), "k3f9x2m1qa")
        except (SpecError, ValidationError, ConfigError):
            continue
        directives = [line for line in made.splitlines() if line.startswith("#SBATCH")]
        allowed = 1 + len([line for line in plain.splitlines() if line.startswith("#SBATCH")])
        assert len(directives) <= allowed, made
        # Whatever the text is, it is one quoted word: the script has no more lines than without it.
        assert len(made.split("\n")) <= len(plain.split("\n")) + 20


def test_s1_shell_words_survive_as_they_are(tmp_path: Path) -> None:
    value = "a b $HOME `id` \"q\" 'p' ; touch pwned"
    text = script({"env": {"X": value}}, [])
    line = next(line for line in text.splitlines() if line.startswith("export X="))
    done = subprocess.run(["bash", "-c", f'{line}\nprintf %s "$X"'], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "MY_SECRET", "DB_PASSWORD"])
def test_s3_a_profile_cannot_carry_a_secret(name: str) -> None:
    with pytest.raises(ValidationError, match="netrc"):
        Profile.model_validate({"name": "site", "env": {name: "x"}})


def test_s3_secrets_of_the_environment_are_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-secret")
    monkeypatch.setenv("HF_TOKEN", "planted-secret")
    text = script({}, [])
    assert "planted-secret" not in text
    assert "WANDB_API_KEY" not in text
    assert "HF_TOKEN," not in text


@pytest.mark.parametrize("option", ["output", "signal", "export", "job-name", "wrap"])
def test_our_own_options_cannot_be_set_twice(option: str) -> None:
    with pytest.raises(ValidationError, match="is set from the job"):
        Profile.model_validate({"name": "site", "sbatch": {option: "x"}})


def test_a_model_that_is_spread_over_gpus_is_one_process_that_has_them_all() -> None:
    pairs = ["kind=bench", "bench.device_map=auto", "resources.gpus_per_node=4"]
    text = script({}, pairs)
    assert "#SBATCH --gpus-per-node=4\n" in text
    assert "#SBATCH --ntasks-per-node=1\n" in text
    with pytest.raises(SpecError, match="one process on one node"):
        script({}, [*pairs[::2]])
    with pytest.raises(SpecError, match="one process on one node"):
        script({}, [*pairs, "resources.nodes=2"])


def test_the_key_stands_in_the_jobs_name_and_comment() -> None:
    text = script({}, ["name=größe_1"], root="/r/größe_1")
    assert "#SBATCH --job-name=größe_1.k3f9x2m1qa" in text
    assert "#SBATCH --comment=hpcft:k3f9x2m1qa" in text
    assert job_name(RunPaths(Path("/r/with blank")), "k") == "with-blank.k"


def test_profiles_of_the_package_are_valid() -> None:
    for name in ("local", "slurm", "example"):
        profile = load_profile(name)
        resources = {f"resources.{k}": v for k, v in profile.resources.items()}
        assert isinstance(build([mapping_layer(resources, name)]).job, Job)
    assert load_profile("local").resources["time"] == "24:00:00"


def test_a_misspelt_profile_and_a_misspelt_key_are_named(project: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'local'"):
        load_profile("locla")
    (project / "mine.yaml").write_text("schedular: slurm\nenv: {A-B: x}\n")
    with pytest.raises(ConfigError) as caught:
        load_profile("mine.yaml")
    assert "schedular: unknown key; did you mean scheduler?" in str(caught.value)
    assert "A-B" in str(caught.value)


def test_the_users_own_profile_comes_before_the_packaged_one(project: Path) -> None:
    (project / "hpc").mkdir()
    (project / "hpc" / "local.yaml").write_text("description: mine\nscheduler: local\n")
    assert load_profile("local").description == "mine"


def test_which_cluster_and_why_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_cluster("local", None)[1] == "cluster: local (--cluster)"
    assert choose_cluster(None, ("local", "hpcft.yaml:1"))[1] == "cluster: local (hpcft.yaml:1)"
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no Slurm controller answers" in choose_cluster(None, None)[1]
    monkeypatch.setenv("HPCFT_CLUSTER", "local")
    assert "HPCFT_CLUSTER" in choose_cluster(None, None)[1]

"""Hostile texts in every field: refused, or harmless in the script that they reach; never a traceback."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.hostile import few, harmless, hostile

from hpcft.cluster.profile import load_profile
from hpcft.cluster.render import render
from hpcft.errors import HpcftError
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import find_run
from hpcft.spec.build import build
from hpcft.spec.keys import fields
from hpcft.spec.layers import environment_layer, mapping_layer, pairs_layer, yaml_layer

KEYS = sorted(fields())


def rendered(values: dict[str, Any], folder: Path) -> str:
    job = build([mapping_layer(values, "test")]).job
    return render(job, load_profile("slurm"), RunPaths(folder / "run"), "abc")


def test_s1_no_text_in_any_key_runs_or_adds_a_directive(stage: Path, tmp_path: Path) -> None:
    plain = rendered({}, tmp_path)

    @few
    @given(st.sampled_from(KEYS), hostile)
    def check(key: str, text: str) -> None:
        with contextlib.suppress(HpcftError):
            script = rendered({key: text}, tmp_path)
            if script != plain:
                harmless(script, stage, plain)

    check()


@few
@given(hostile, hostile)
def test_s1_no_pair_or_variable_is_too_strange_to_be_refused(key: str, text: str) -> None:
    for layers in (
        lambda: [pairs_layer([f"{key}={text}"], "--set")],
        lambda: [environment_layer({f"HPCFT_{key}": text})],
    ):
        with contextlib.suppress(HpcftError):
            build(layers())


def test_s1_no_file_is_too_strange_to_be_refused(tmp_path: Path) -> None:
    @few
    @given(st.lists(st.tuples(hostile, hostile), max_size=4), st.sampled_from(["job.yaml", "site.yaml"]))
    def check(pairs: list[tuple[str, str]], name: str) -> None:
        path = tmp_path / name
        path.write_bytes("\n".join(f"{k}: {v}" for k, v in pairs).encode("utf-8", "surrogatepass"))
        with contextlib.suppress(HpcftError):
            if name == "job.yaml":
                build([yaml_layer(path)])
            else:
                load_profile(str(path))

    check()


def test_s1_a_profile_s_texts_are_harmless_in_the_script(stage: Path, tmp_path: Path) -> None:
    plain = rendered({}, tmp_path)

    @few
    @given(st.sampled_from(["env", "srun", "container", "modules", "sbatch", "python", "node_scratch"]), hostile)
    def check(key: str, text: str) -> None:
        import yaml

        shapes: dict[str, Any] = {
            "env": {"NAME": text},
            "srun": [f"--mpi={text}"],
            "container": [text],
            "modules": [text],
            "sbatch": {"exclude": text},
        }
        path = tmp_path / "site.yaml"
        with contextlib.suppress(HpcftError, yaml.YAMLError, UnicodeEncodeError):
            path.write_text(yaml.safe_dump({"scheduler": "slurm", key: shapes.get(key, text)}, allow_unicode=True))
            script = render(build([]).job, load_profile(str(path)), RunPaths(tmp_path / "run"), "abc")
            harmless(script.replace("#SBATCH --exclude", "#exclude"), stage, plain)

    check()


def test_s2_no_reference_to_a_run_leaves_the_results_folder(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()

    @few
    @given(hostile)
    def check(text: str) -> None:
        with contextlib.suppress(HpcftError):
            find_run(text, tmp_path / "results")
            raise AssertionError(f"{text!r} is no run")

    check()

"""`hpcft cluster`, `init` and `shell`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.site_facts import facts

from hpcft.cluster import probe as module


def test_without_slurm_the_message_says_where_to_run_it(hpcft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = hpcft("cluster", "probe")
    assert result.code == 69
    assert "login node" in result.err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe", facts)


@pytest.mark.usefixtures("asked")
def test_probe_writes_a_profile_that_cluster_takes_and_never_over_a_file(hpcft: Any, project: Path) -> None:
    assert hpcft("cluster", "probe", "--name", "mysite").code == 0
    assert "partition: debug" in (project / "hpc" / "mysite.yaml").read_text()
    shown = hpcft("submit", "--cluster", "mysite", "--preset", "quickstart", "--dry-run")
    assert "#SBATCH --partition=debug" in shown.out
    again = hpcft("cluster", "probe", "--name", "mysite")
    assert again.code == 78
    assert "--force" in again.err
    assert hpcft("cluster", "probe", "--name", "mysite", "--force").code == 0


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("name", ["../up", "a b", "x\ny"])
def test_a_profile_s_name_is_no_path(hpcft: Any, project: Path, name: str) -> None:
    assert hpcft("cluster", "probe", "--name", name).code == 2
    assert list(project.iterdir()) == []


def test_ls_and_show_tell_what_is_there(hpcft: Any, project: Path) -> None:
    (project / "hpc").mkdir()
    (project / "hpc" / "mine.yaml").write_text("description: ours\nscheduler: slurm\n")
    (project / "hpc" / "bad.yaml").write_text("schedular: slurm\n")
    listed = hpcft("cluster", "ls")
    assert listed.code == 0
    assert "ours" in listed.out
    assert "broken" in listed.out
    assert '"scheduler": "local"' in hpcft("cluster", "show", "local", "--json").out


def test_a_job_s_gpu_type_brings_its_partition(hpcft: Any, project: Path) -> None:
    (project / "site.yaml").write_text(
        "scheduler: slurm\nresources: {partition: cpu}\ngpu_types:\n  a100: {partition: big, cpus_per_task: 8}\n"
    )
    words = ("submit", "--cluster", "site.yaml", "--preset", "quickstart", "--dry-run", "--set")
    shown = hpcft(*words, "resources.gpu_type=a100")
    assert "#SBATCH --partition=big" in shown.out
    assert "#SBATCH --cpus-per-task=8" in shown.out
    assert "#SBATCH --partition=cpu" in hpcft(*words, "training.seed=1").out
    assert "#SBATCH --partition=mine" in hpcft(*words, "resources.gpu_type=a100", "--partition", "mine").out


def test_a_profile_s_mistakes_are_named_with_their_lines(hpcft: Any, project: Path) -> None:
    (project / "site.yaml").write_text(
        "scheduler: slurm\nresources:\n  partitoin: gpu\n  mem_gb: lots\nmodule: [cuda]\n"
    )
    result = hpcft("submit", "--cluster", "site.yaml", "--preset", "quickstart", "--dry-run")
    assert result.code == 78
    for words in ("site.yaml:3", "partition", "site.yaml:4", "mem_gb", "site.yaml:5", "did you mean modules?"):
        assert words in result.err


def test_srun_s_own_options_and_the_node_s_disk_reach_the_script(hpcft: Any, project: Path) -> None:
    (project / "site.yaml").write_text(
        "scheduler: slurm\nnode_scratch: /local\nsrun: ['--container-image=/images/a b.sqsh', '--mpi=none']\n"
    )
    text = hpcft("submit", "--cluster", "site.yaml", "--preset", "quickstart", "--dry-run").out
    assert "'--container-image=/images/a b.sqsh'" in text
    assert "export HPCFT_NODE_SCRATCH=/local" in text


def test_init_makes_a_project_and_touches_nothing_that_is_there(hpcft: Any, project: Path) -> None:
    (project / "hpcft.yaml").write_text("training: {seed: 3}\n")
    result = hpcft("init", "--presets")
    assert result.code == 0
    assert (project / "hpcft.yaml").read_text() == "training: {seed: 3}\n"
    assert "left as it is" in result.out
    assert (project / "jobs" / "quickstart.yaml").is_file()
    assert hpcft("config", "show", "--preset", "quickstart").code == 0
    assert hpcft("init", "--presets").code == 0


def test_shell_asks_for_what_a_job_would_and_has_its_environment(hpcft: Any, project: Path) -> None:
    (project / "site.yaml").write_text("scheduler: slurm\nmodules: [cuda/12]\nenv: {HF_HOME: /scratch/hf}\n")
    text = hpcft("shell", "--cluster", "site.yaml", "--gpus-per-node", "2", "--time", "30", "--dry-run").out
    assert text.startswith("salloc --nodes=1 --ntasks-per-node=2 --gpus-per-node=2 --time=00:30:00 srun --pty")
    assert "module load cuda/12" in text
    assert "export HF_HOME=/scratch/hf" in text
    assert "set -u" not in text
    refused = hpcft("shell", "--cluster", "local")
    assert refused.code == 78
    assert "a shell already" in refused.err

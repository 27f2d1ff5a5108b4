"""Models from a hub: the real client, and a hub on this machine that asks for a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.fake_hub import COMMIT, FakeHub

from hpcft.models.quickstart import build_model

HPCFT = str(Path(sys.executable).with_name("hpcft"))
TOKEN = "hf_" + "aTokenThatNobodyHas" * 2


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = tmp_path_factory.mktemp("model")
    build_model(folder, steps=0, hidden=64, layers=2, vocab=512)
    with FakeHub("guild/tiny", folder, TOKEN).running() as running:
        yield running


def submit(folder: Path, hub: FakeHub, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
    told = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    short = ["--num-samples", "8", "--max-steps", "1", "--no-eval", "--wait", "--variant", "lora"]
    return subprocess.run(
        [HPCFT, "submit", "--cluster", "local", "--model", "guild/tiny", "--dataset", "quickstart", *short, *words],
        cwd=folder, env=kept | told | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def login(folder: Path) -> None:
    """What `hf auth login` leaves."""
    (folder / "hf").mkdir(exist_ok=True)
    (folder / "hf" / "token").write_text(TOKEN)


def test_a_gated_model_names_the_licence_and_the_login(hub: FakeHub, tmp_path: Path) -> None:
    done = submit(tmp_path, hub)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "asks for a licence to be accepted" in said
    assert "hf auth login" in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def online(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str, bool]]]:
    """A folder with a run of the pinned model that came through the stored token, and what the hub was asked."""
    folder = tmp_path_factory.mktemp("online")
    login(folder)
    hub.asked.clear()
    done = submit(folder, hub, "--name", "online", "--set", f"model.revision={COMMIT}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, list(hub.asked)


def test_a_gated_model_comes_through_the_stored_token_and_then_from_the_cache(
    hub: FakeHub, online: tuple[Path, list[tuple[str, str, bool]]]
) -> None:
    folder, asked = online
    assert any(known for _, path, known in asked if path.endswith("model.safetensors"))

    hub.asked.clear()
    (folder / "hf" / "token").unlink()
    done = submit(folder, hub, "--name", "offline", "--set", f"model.revision={COMMIT}", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not hub.asked, "an offline job asks nobody"

    written = [p for p in (folder / "results").rglob("*") if p.is_file()]
    assert written
    assert not [p for p in written if TOKEN.encode() in p.read_bytes()], "the token is written nowhere"


def test_a_pinned_revision_is_the_one_that_is_asked_for(
    hub: FakeHub, online: tuple[Path, list[tuple[str, str, bool]]]
) -> None:
    folder, asked = online
    read = [path for method, path, _ in asked if method == "GET" and "/resolve/" in path]
    assert {path.split("/resolve/")[1].split("/")[0] for path in read} == {COMMIT}
    adapter = json.loads((folder / "results" / "online" / "final_model" / "adapter_config.json").read_text())
    assert adapter["revision"] == COMMIT, "who loads the adapter finds the base that it was trained on"
    login(folder)
    done = submit(folder, hub, "--set", "model.revision=" + "7" * 40)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "7" * 40 in done.stdout + done.stderr


def test_an_offline_job_without_the_model_is_refused_before_it_is_submitted(hub: FakeHub, tmp_path: Path) -> None:
    done = submit(tmp_path, hub, HF_HUB_OFFLINE="1")
    assert done.returncode != 0
    assert "hpcft fetch --model guild/tiny" in done.stderr
    assert not list((tmp_path / "results").glob("*"))

"""Planted secrets: of a dozen in files, variables and addresses, none stands anywhere in a run's record."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcft.runs.run import Run
from hpcft.spec.secrets import without_secrets

HPCFT = str(Path(sys.executable).with_name("hpcft"))
VARIABLES = (
    "WANDB_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GITHUB_TOKEN",
    "DB_PASSWORD",
)
SECRET = "planted0123456789abcdef0123456789abcdefpl"


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def planted(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with secrets in variables, in a changed .env that git knows, in a remote's address, in a netrc."""
    for name in VARIABLES:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@proxy.example.org:1")
    (Path.home() / ".netrc").write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    (project / ".env").write_text("WANDB_API_KEY=old\n")
    (project / "train.py").write_text("x = 1\n")
    git(project, "init", "-q")
    git(project, "remote", "add", "origin", f"https://me:{SECRET}@example.org/repository.git")
    git(project, "add", ".")
    git(project, "commit", "-qm", "start")
    (project / ".env").write_text(f"WANDB_API_KEY={SECRET}\n")
    (project / "train.py").write_text(f"x = 2\nurl = 'https://me:{SECRET}@example.org'\n")
    return project


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue


@pytest.mark.parametrize("crash", [False, True], ids=["finished", "crashed"])
def test_s3_no_planted_secret_stands_in_a_run(planted: Path, small_quickstart: Path, crash: bool) -> None:
    environment = os.environ | {"HPCFT_CACHE": str(small_quickstart), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    words = "--preset quickstart --variant lora --max-steps 3 --num-samples 16 --no-eval --cluster local --name run"
    # A learning rate that ends in NaN is a crash with everything loaded.
    words += (
        " --set training.learning_rate=9.9 --set training.max_grad_norm=0 --set model.dtype=float16" if crash else ""
    )
    process = subprocess.Popen(
        [HPCFT, "submit", *words.split(), "--wait"],
        cwd=planted,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seen = 0
    while process.poll() is None:
        found = [line for line in command_lines() if "hpcft" in line]
        seen += len(found)
        assert not any(SECRET in line for line in found)
        time.sleep(0.5)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    assert SECRET not in said
    assert seen > 0
    if not crash:
        assert Run(planted / "results" / "run").end is not None, said
    files = [p for p in (planted / "results").rglob("*") if p.is_file()]
    assert len(files) > 10
    assert [str(p) for p in files if SECRET.encode() in p.read_bytes()] == []


@pytest.mark.parametrize(
    "line",
    [
        "machine api.wandb.ai login user password {}",
        "  password {}",
        "Authorization: Bearer sk-{}",
        "headers = {{'Authorization': 'Basic {}'}}",
        "hf download --token {} org/model",
        "hf download --token hf_{}aaaa org/model",
        "wandb login 0123456789abcdef0123456789abcdef{}",
        "wandb login --relogin {}",
        "git clone https://ghp_{}@github.com/me/mine",
        "git clone https://{}@github.com/me/mine",
        "remote = https://me:{}/x@example.org",
        "os.environ['HF_TOKEN'] = '{}'",
        'os.environ.setdefault("HF_TOKEN", "{}")',
        "WANDB_KEY={}",
        "wandb.login(key='{}')",
        "api-key: {}",
        "x = 'github_pat_{}'",
        "x = 'hf_{}abcdefghij'",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n+{}\n+{}\n+-----END OPENSSH PRIVATE KEY-----",
        "{0}{0}",
    ],
)
def test_s3_a_diff_has_no_secret_however_it_is_written(line: str) -> None:
    secret = "0123456789abcdef0123456789abcdef01234567"
    clean = without_secrets(f"+lr = 1e-4\n+{line.format(secret, secret)}\n+max_length = 5\n")
    assert secret not in clean
    assert clean.startswith("+lr = 1e-4\n")
    assert clean.endswith("\n+max_length = 5\n")


@pytest.mark.parametrize(
    "line",
    [
        "from huggingface_hub import hf_hub_download_with_a_long_name",
        "rows = sorted(rows, key=lambda row: row.name)",
        "revision: 0123456789abcdef0123456789abcdef01234567",
        "the password is asked for",
        "see https://example.org/a?b=c and me@example.org",
        "pip install sk-learn-contrib-something-long",
        "key: lora.r",
    ],
)
def test_s3_a_diff_keeps_what_only_looks_like_a_secret(line: str) -> None:
    assert without_secrets(line) == line


@pytest.mark.parametrize("line", ["token " + "-" * 20_000, "login --" + "a-" * 10_000, "sk-" * 5_000, "key" * 5_000])
def test_s3_a_long_line_of_a_diff_is_looked_through_in_no_time(line: str) -> None:
    began = time.monotonic()
    without_secrets(line)
    assert time.monotonic() - began < 5


def test_s3_a_diff_keeps_what_is_no_secret() -> None:
    diff = f'+lr = 1e-4\n+HF_TOKEN={SECRET}\n+  "api_key": "{SECRET}",\n'
    diff += f"+https://me:{SECRET}@example.org\n+max_length = 5\n"
    clean = without_secrets(diff)
    assert SECRET not in clean
    assert "+lr = 1e-4\n" in clean
    assert "+max_length = 5\n" in clean

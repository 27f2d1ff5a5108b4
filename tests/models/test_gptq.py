"""Asking the other environment's program: what it is told, what its answer becomes, how it is ended."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcft.errors import ConfigError, HpcftError
from hpcft.models.gptq import gptq
from hpcft.models.tools import check_environment
from hpcft.spec.job import Job
from hpcft.train.stop import Stopped

CPU = torch.device("cpu")
ROWS = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
ANSWER = {"versions": {}, "layers": 14, "group_size": 32, "seconds": 1.0}


def environment(folder: Path, body: str) -> Path:
    """A folder with a bin/python that runs `body`, which knows `request`, `answer` and `arguments`."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    head = "import json, os, sys, time\narguments = sys.argv[1:]\nrequest, answer = arguments[-2:]\n"
    python.write_text(f"#!{sys.executable}\n{head}{body}\n")
    python.chmod(0o700)
    return folder


def job(folder: Path, **quantize: Any) -> Job:
    model = {"name": str(folder)}
    section = {"method": "gptq-int4", "environment": str(folder / "tool"), **quantize}
    return Job.model_validate({"kind": "quantize", "variant": "ptq", "model": model, "quantize": section})


def ask(folder: Path, **quantize: Any) -> dict[str, Any]:
    return gptq(job(folder, **quantize), CPU, ROWS, folder / "out", lambda: None)


def test_the_request_says_all_and_the_answer_comes_back(tmp_path: Path) -> None:
    copy = tmp_path / "seen.json"
    body = f"open({str(copy)!r}, 'w').write(json.dumps([json.load(open(request)), arguments]))\n"
    environment(tmp_path / "tool", f"{body}json.dump({ANSWER!r}, open(answer, 'w'))")
    assert ask(tmp_path, method="gptq-int8") == ANSWER
    request, arguments = json.loads(copy.read_text())
    assert request == {
        "model": str(tmp_path),
        "revision": None,
        "output": str(tmp_path / "out"),
        "bits": 8,
        "dtype": "float32",
        "rows": ROWS,
        "seed": 42,
    }
    assert arguments[0] == "-I"
    assert arguments[1].endswith("gptq_program.py")
    assert not Path(arguments[2]).exists(), "rows of the data are not left lying about"


def test_it_gets_no_secret_no_rank_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "planted")
    copy = tmp_path / "seen.json"
    body = f"json.dump(dict(os.environ), open({str(copy)!r}, 'w'))\njson.dump({ANSWER!r}, open(answer, 'w'))"
    environment(tmp_path / "tool", body)
    ask(tmp_path)
    seen = json.loads(copy.read_text())
    assert "planted" not in seen.values()
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["CUDA_VISIBLE_DEVICES"] == "", "quantised where the job is, on a CPU"
    assert seen["HOME"] == os.environ["HOME"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("json.dump({'error': 'X has no linear layers'}, open(answer, 'w')); sys.exit(1)", "X has no linear layers"),
        ("sys.exit(3)", "ended with code 3"),
        ("open(answer, 'w').write('{')", "ended with code 0"),
        ("os.kill(os.getpid(), 9)", "killed, most likely since the memory was full"),
        ("os.kill(os.getpid(), 11)", "signal 11"),
    ],
)
def test_what_goes_wrong_there_is_told_in_plain_words(tmp_path: Path, body: str, words: str) -> None:
    environment(tmp_path / "tool", body)
    with pytest.raises(HpcftError, match=words) as caught:
        ask(tmp_path)
    assert "job.log" in str(caught.value)


def test_a_job_that_is_ended_takes_it_along(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    environment(tmp_path / "tool", f"open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")

    def go_on() -> None:
        if mark.exists() and mark.read_text():
            raise Stopped(0)

    start = time.monotonic()
    with pytest.raises(Stopped):
        gptq(job(tmp_path), CPU, ROWS, tmp_path / "out", go_on)
    assert time.monotonic() - start < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_without_the_environment_it_is_refused_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCFT_TOOLS", str(tmp_path / "tools"))
    with pytest.raises(ConfigError, match=r"not installed(.|\n)*hpcft tools install gptq(.|\n)*bnb-nf4"):
        check_environment(job(tmp_path, environment=None))
    with pytest.raises(ConfigError, match="it has no bin/python"):
        check_environment(job(tmp_path))
    (tmp_path / "tools" / "gptq").mkdir(parents=True)
    with pytest.raises(ConfigError, match="interrupted"):
        check_environment(job(tmp_path, environment=None))
    check_environment(job(tmp_path, environment=None, method="bnb-nf4"))

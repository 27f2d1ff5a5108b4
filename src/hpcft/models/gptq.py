"""GPTQ of a model by `gptq_program`, in the environment that has llmcompressor."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import HpcftError
from hpcft.models.load import compute_dtype, resolve_model
from hpcft.models.tools import TOOLS, check_environment, environment_of, interpreter
from hpcft.spec.identifiers import user_path
from hpcft.spec.job import Job

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_POLL_S = 0.2
_PATIENCE_S = 10.0
# What belongs to this process alone: its rank, its interpreter's packages, and secrets that nothing there needs.
_NOT_PASSED_ON = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "HF_TOKEN", "WANDB_API_KEY")


def gptq(
    job: Job, device: torch.device, rows: Sequence[dict[str, list[int]]], output: Path, go_on: Callable[[], None]
) -> dict[str, Any]:
    """Quantise the job's model and save it.

    Args:
        device: on which layers are quantised, one at a time.
        rows: calibration rows, from the names of the model's inputs to token numbers.
        output: folder that it is saved to.
        go_on: called all the while; what it raises ends the other process too.

    Returns:
        The program's answer: `versions`, `layers`, `group_size` and `seconds`.

    Raises:
        ConfigError: there is no such environment. HpcftError: it failed; with the reason.
    """
    check_environment(job)
    request = {
        "model": resolve_model(job.model.name),
        "revision": job.model.revision,
        "output": str(output),
        "bits": job.quantize.bits,
        "dtype": str(compute_dtype(job, device)).removeprefix("torch."),
        "rows": list(rows),
        "seed": job.training.seed,
    }
    with tempfile.TemporaryDirectory(prefix="hpcft-gptq-") as folder:
        asked, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        program = [str(_python(job)), "-I", str(TOOLS["gptq"].program), str(asked), str(answer)]
        code = _run(program, _environment(device), go_on)
        told = _answer(answer)
    if code != 0 or told is None or "error" in told:
        reason = (told or {}).get("error") or _how_it_ended(code)
        raise HpcftError(
            f"{job.quantize.method} failed: {reason}",
            where="quantize.method",
            hint="the run's job.log has all of its words; bnb-nf4, bnb-int8 and torchao-int8 need no calibration",
        )
    return told


def _python(job: Job) -> Path:
    chosen = job.quantize.environment
    return interpreter(environment_of(TOOLS["gptq"]) if chosen is None else user_path(chosen))


def _environment(device: torch.device) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    # The model is on this disk, and bars that are drawn over each other fill a log.
    kept |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Quantised where the rest of the job is.
    return kept if device.type == "cuda" else kept | {"CUDA_VISIBLE_DEVICES": ""}


def _run(command: list[str], environment: dict[str, str], go_on: Callable[[], None]) -> int:
    """Run to the end, its words among this process's own."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            go_on()
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return process.returncode


def _answer(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, most likely since the memory was full"
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}"

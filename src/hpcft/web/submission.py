"""Submitting a job that came in a request: in a process of its own, which may load what the checks need.

The configuration goes to that process through its standard input, so no file of it is left and no word of it is in
any process's arguments.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError, HpcftError, UnavailableError, UsageError
from hpcft.spec.types import parse_time
from hpcft.web.errors import RefusedError, document

if TYPE_CHECKING:
    from hpcft.cli.job_options import Plan
    from hpcft.spec.job import Job

# What the earlier program called them.
_ALIASES = {
    "experiment_name": "name",
    "data.dataset_name": "data.dataset",
    "data.dataset_config": "data.subset",
    "data.validation_rules.min_text_length": "checks.min_text_length",
    "data.validation_rules.max_text_length": "checks.max_text_length",
    "data.validation_rules.allow_empty": "checks.allow_empty",
    "data.validation_rules.remove_html": "checks.remove_html",
    "data.validation_rules.remove_special_chars": "checks.remove_special_chars",
    "data.validation_rules.check_encoding": "checks.check_encoding",
    "training.device": "resources.accelerator",
    "training.logging_steps": "tracking.log_every",
}
# What it had, and what is always so here or is another's to decide.
_LEFT_OUT = frozenset(
    ("training.output_dir", "training.eval_strategy", "system.save_config", "lora.bias", "lora.task_type")
)
_PATIENCE_S = 300


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A request's configuration as key → value, by the names that they have here.

    >>> flat({"experiment_name": "a", "lora": {"r": 4}, "training": {"output_dir": "x", "device": None}})
    {'name': 'a', 'lora.r': 4}

    Raises:
        UsageError: a section is no mapping, or one key comes by two names.
    """
    found: dict[str, Any] = {}

    def put(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for inner, each in value.items():
                put(f"{key}.{inner}" if key else str(inner), each)
            return
        name = _ALIASES.get(key, key)
        if key in _LEFT_OUT or (key == "training.device" and value is None):
            return
        if name in found and found[name] != value:
            raise UsageError(f"{name} has two values", where=f"config.{key}", hint="keep one of them")
        found[name] = value

    put("", config)
    return found


def submit(config: Mapping[str, Any], *, results: str, cluster: str | None, preview: bool = False) -> dict[str, Any]:
    """Submit a job, or show what would be submitted.

    Args:
        config: the job, whole or what differs from its defaults; `preset` names one that comes ready.
        results: folder of the run directories, whatever the configuration says.
        cluster: profile; None for the one that a submission takes by itself.

    Returns:
        `run`, `run_id`, `job_id`, `cluster`, `directory`; of a preview `script`, `asks`,
        `directory`, `fit` (what `hpcft fit` says) and `cost`, the hours of GPUs and cores at the most.

    Raises:
        RefusedError: with what is wrong. UnavailableError: no answer in five minutes.
    """
    asked = {"config": flat(config), "results": results, "cluster": cluster, "preview": preview}
    # -P: a datasets.py in the current folder is not the library.
    command = [sys.executable, "-P", "-m", "hpcft.web.submission"]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"the submission did not end in {_PATIENCE_S} s", hint="hpcft ls shows whether it was queued"
        ) from error
    try:
        told = json.loads(done.stdout)
    except ValueError as error:
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise HpcftError(f"the submission ended with {done.returncode}: {said[:300]}") from error
    if done.returncode:
        raise RefusedError(done.returncode, told)
    return dict(told)


def main() -> int:
    """Read a request from standard input, submit it, and print the answer as JSON."""
    os.umask(0o077)
    asked = json.load(sys.stdin)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(sys.stderr):
            told = _submit(**asked)
    except HpcftError as error:
        print(json.dumps(document("", error.message, error.where, error.hint)))
        return error.exit_code
    told["warnings"] = [line for line in said.getvalue().splitlines() if line.startswith("warning:")]
    print(json.dumps(told, default=str))
    return 0


def _submit(config: dict[str, Any], results: str, cluster: str | None, preview: bool) -> dict[str, Any]:
    from hpcft.cli.job_options import Request, plan
    from hpcft.cli.start import previewed

    preset = config.pop("preset", None)
    if not isinstance(preset, str | None):
        raise ConfigError("is no name", where="preset")
    config["results"] = results
    planned = plan(Request(preset=preset, cluster=cluster, means=config, verb="the request"))
    if preview:
        return {**previewed(planned), "fit": _fit(planned), "cost": _cost(planned.resolved.job)}
    if planned.resolved.job.variant == "ptq":
        raise ConfigError("is a pipeline of several jobs", where="variant", hint="hpcft submit --variant ptq")
    from hpcft.cli.launch import launch

    launched = launch(planned)
    run = launched.run
    return {
        "run": run.name,
        "run_id": run.id,
        "job_id": launched.submitted.job_id,
        "cluster": planned.profile.name,
        "directory": str(run.paths.root),
    }


def _fit(planned: Plan) -> dict[str, Any]:
    """What `hpcft fit` says; a preview is as good without it."""
    from hpcft.cli.fit import answer, document

    if planned.resolved.job.kind != "train":
        return {"verdict": "unknown", "why": "it is told of jobs that train"}
    try:
        return document(answer(planned))
    except Exception as error:
        return {"verdict": "unknown", "why": str(error).splitlines()[0] if str(error) else type(error).__name__}


def _cost(job: Job) -> dict[str, float | None]:
    """Hours of GPUs and cores that a job takes at the most; None where it is the cluster that decides."""
    asked = job.resources
    hours = parse_time(asked.time) / 3600
    gpus = 0 if asked.accelerator == "cpu" else asked.nodes * asked.gpus_per_node
    cores = None if asked.cpus_per_task is None else asked.cpus_per_task * job.world_size
    return {"gpu_hours": gpus * hours, "cpu_hours": None if cores is None else cores * hours}


if __name__ == "__main__":
    sys.exit(main())

"""Runs over HTTP: one, many by filters, and their statistics."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from hpcft.cli.listing import Filters, standings
from hpcft.cluster.poll import Poll
from hpcft.cluster.state import Standing, stand
from hpcft.errors import DataError
from hpcft.runs.index.query import Condition, Index, Query
from hpcft.runs.record import read_record
from hpcft.runs.run import Run, RunState
from hpcft.web.errors import NoExperiment

SortKey = Literal["created_at", "name", "train_runtime", "eval_accuracy"]
# What a row shows beside the index's columns: its name there, and the key.
_SHOWN = {
    "train_runtime": "train_runtime",
    "eval_accuracy": "eval_accuracy",
    "eval_f1_score": "f1",
    "tokens_per_sec": "tokens_per_sec",
    "cpu_percent": "cpu_percent",
    "memory_gb": "memory_gb",
    "train_samples": "data.train_samples",
    "batch_size": "training.per_device_train_batch_size",
    "learning_rate": "training.learning_rate",
    "num_epochs": "training.num_train_epochs",
}


def listed(
    results: Path,
    filters: Filters,
    sort_by: str,
    *,
    descending: bool,
    limit: int,
    offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:
    """Runs as rows, and how many there are in all."""
    with Index(results) as index:
        query = Query(
            sort="run" if sort_by == "name" else sort_by,
            descending=descending,
            limit=limit,
            offset=offset,
            show=tuple(_SHOWN.values()),
        )
        found, known, total = standings(index, filters, query, Poll())
    return [_row(standing, known[str(standing.record.root)]) for standing in found], total


def _row(standing: Standing, known: dict[str, Any]) -> dict[str, Any]:
    root = standing.record.root
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(known["created"] or 0)))
    return {
        "id": known["run"],
        "run_id": known["run_id"],
        "job_id": known["job_id"],
        "name": known["name"],
        "state": str(standing.state),
        "words": standing.words,
        "created_at": created,
        "kind": known["kind"],
        "variant": known["variant"],
        "model_name": known["model"],
        "dataset_name": known["dataset"],
        "config_path": str(root / "config.yaml"),
        "log_path": str(root / "logs.txt"),
        **{name: known[key] for name, key in _SHOWN.items()},
    }


def one(results: Path, key: str) -> dict[str, Any]:
    """A run by its directory's name (`run` or `group/run`) or its run id, with everything that is known of it.

    Raises:
        NoExperiment: there is none.
    """
    return _told(*_seen(results, key))


def _seen(results: Path, key: str) -> tuple[Standing, dict[str, Any], dict[str, Any]]:
    """A run's state, and what the index says of it."""
    found, facts = _look_up(results, key)
    standing = stand([read_record(results / found["run"])], Poll())[0]
    if standing.state is RunState.SUCCESS and found["state"] != standing.state:
        # It has finished since the index was brought up to date.
        found, facts = _look_up(results, key)
    return standing, found, facts


def _told(standing: Standing, found: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    run = Run(standing.record.root)
    return {
        **_row(standing, found),
        "step": found["step"],
        "total_steps": found["total_steps"],
        "loss": found["loss"],
        "tags": json.loads(found["tags"] or "[]"),
        "notes": found["notes"],
        "config": run.config,
        "metrics": {key: value for key, value in facts.items() if "/" in key},
    }


def find(results: Path, key: str) -> Run:
    """A run by its directory's name or its run id.

    Raises:
        NoExperiment: there is none.
    """
    found, _ = _look_up(results, key)
    try:
        return Run(results / found["run"])
    except DataError as error:
        # It has been removed since the index was brought up to date.
        raise NoExperiment(key) from error


def _look_up(results: Path, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the index says of a run: its row, and its figures and settings."""
    shown = tuple(_SHOWN.values())
    with Index(results) as index:
        for column in ("run", "run_id"):
            if rows := index.find(Query((Condition(column, "=", key),), show=shown)).rows:
                return rows[0], index.facts(rows[0]["id"])
    raise NoExperiment(key)


def task(results: Path, run_id: str) -> dict[str, Any]:
    """A task's state in the words of the task queue that this service stands in for.

    Returns:
        `status`: PENDING, STARTED, SUCCESS or FAILURE; the `error` of one that has ended without success, and of one
        that failed by itself the `code`; a finished one's `result`; `state` and `words`, which say more.

    Raises:
        NoExperiment: there is none.
    """
    standing, *known = _seen(results, run_id)
    found = _told(standing, *known)
    state = standing.state
    told: dict[str, Any] = {"state": str(state), "words": found["words"], "experiment": found["id"]}
    if state is RunState.SUCCESS:
        metrics = found["metrics"]
        told["result"] = {
            "status": "success",
            "train": {"global_step": metrics.get("train/steps"), "runtime": metrics.get("train/runtime_s")},
            "eval": {"accuracy": metrics.get("final/validation_accuracy")},
        }
        return {"status": "SUCCESS", **told}
    if state is RunState.FAILURE:
        told["code"] = _code(standing.record.root, int(time.time() // 60))
    if state.is_over:
        return {"status": "FAILURE", "error": found["words"], **told}
    # What nobody can tell now may still be either.
    started = state is RunState.STARTED or (state is RunState.UNKNOWN and found["step"] is not None)
    return {"status": "STARTED" if started else "PENDING", **told}


@lru_cache(maxsize=1000)
def _code(root: Path, minute: int) -> str:
    """Why a run failed, in the words of an error. Slurm is asked for it, so the answer is good for a minute."""
    from hpcft.cluster.explain import Cause, verdict_of

    codes = {
        Cause.HOST_OOM: "OUT_OF_MEMORY",
        Cause.GPU_OOM: "OUT_OF_MEMORY",
        Cause.TIME_LIMIT: "TIMEOUT",
        Cause.BAD_DATA: "DATA_INTEGRITY_ERROR",
    }
    return codes.get(verdict_of(Run(root)).cause, "TRAINING_ERROR")

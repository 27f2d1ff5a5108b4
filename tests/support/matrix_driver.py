"""Starts ranks for a list of cells, and again for the rest when a cell fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from support.matrix import Cell, job_of

from hpcft.spec.layers import SpecError


def refusal(cell: Cell, world: int = 2) -> str | None:
    """Why a cell is refused before submission, or None."""
    try:
        job_of(cell, "model", world)
    except SpecError as error:
        return "; ".join(problem.message for problem in error.problems)
    return None


def run_local(cells: list[Cell], model: Path, folder: Path, ranks: int) -> dict[Cell, dict[str, Any]]:
    """Train cells on ranks of this machine.

    Returns:
        By cell: `losses` and `seconds`, or `error` with the end of the log.
    """
    results: dict[Cell, dict[str, Any]] = {}
    left = list(cells)
    for turn in range(len(cells) + 1):
        if not left:
            break
        place = folder / f"turn{turn}"
        place.mkdir(parents=True)
        (place / "cells.json").write_text(json.dumps([asdict(c) for c in left]))
        log = _start(model, place, ranks)
        done = read_results(place)
        results |= done
        left = [c for c in left if c not in results]
        if left:
            results[left[0]] = {"error": log[-3000:]}
            left = left[1:]
    return results


def read_results(place: Path) -> dict[Cell, dict[str, Any]]:
    """The records of `results.jsonl`."""
    file = place / "results.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return {Cell(**r.pop("cell")): r for r in records}


def _start(model: Path, place: Path, ranks: int) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(ranks):
        own: dict[str, str] = {}
        if ranks > 1:
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = os.environ | own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "support.matrix", str(model), str(place / "cells.json"), str(place)]
        with (place / f"rank{rank}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    codes = [None] * ranks
    while None in codes:
        for i, process in enumerate(processes):
            if codes[i] is None:
                try:
                    codes[i] = process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                if codes[i] != 0:
                    for other in processes:
                        other.kill()
    first_failed = next((i for i, code in enumerate(codes) if code not in (0, -9)), 0)
    return (place / f"rank{first_failed}.log").read_text(errors="replace")

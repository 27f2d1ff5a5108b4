"""The parallelism table over two nodes: one rank on each, started by srun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support.matrix import Cell, all_cells
from support.matrix_driver import read_results, refusal, run_local
from support.parallelism_table import TOLERANCE, difference, page, write

from hpcft.models.quickstart import build_model

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=matrix --nodes=2 --ntasks-per-node=1 --time=00:30:00 --account=acme --output={folder}/job.log
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000)) OMP_NUM_THREADS=1 PYTHONPATH={path}
srun --export=ALL --kill-on-bad-exit=1 {python} -m support.matrix {model} {folder}/cells.json {folder}
"""


def run_on_two_nodes(cells: list[Cell], model: Path, folder: Path) -> dict[Cell, dict[str, Any]]:
    folder.mkdir(parents=True)
    (folder / "cells.json").write_text(json.dumps([asdict(c) for c in cells]))
    script = folder / "job.sh"
    path = os.pathsep.join(sys.path)
    script.write_text(SCRIPT.format(folder=folder, path=path, python=sys.executable, model=model))
    job = subprocess.run(["sbatch", "--parsable", script], check=True, capture_output=True, text=True).stdout.strip()
    while subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, check=False).stdout.strip():
        time.sleep(1)
    results = read_results(folder)
    missing = [c.name for c in cells if c not in results]
    assert not missing, f"{missing[0]} and the {len(missing) - 1} after it: {(folder / 'job.log').read_text()[-2000:]}"
    return results


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_parallelism_table_on_one_node_and_on_two(slurm_cluster: Any, tmp_path: Path) -> None:
    """Every cell, on two ranks of one node and on two nodes. HPCFT_TEST_WRITE_TABLE names the page to write."""
    model = tmp_path / "model"
    build_model(model, steps=0, hidden=64, layers=2, vocab=512)
    cells = [c for c in all_cells() if refusal(c) is None]
    reference = run_local(list(dict.fromkeys(c.reference for c in cells)), model, tmp_path / "reference", 1)
    places = {
        "one node": run_local(cells, model, tmp_path / "one", 2),
        "two nodes of Slurm": run_on_two_nodes(cells, model, tmp_path / "two"),
    }
    if "HPCFT_TEST_WRITE_TABLE" in os.environ:
        write(Path(os.environ["HPCFT_TEST_WRITE_TABLE"]), page(reference, places))
    for place, results in places.items():
        for cell in cells:
            assert "losses" in results[cell], f"{place}, {cell.name}: {results[cell].get('error', '')[-800:]}"
            far = difference(results[cell]["losses"], reference[cell.reference]["losses"])
            assert far <= TOLERANCE[cell.dtype], f"{place}, {cell.name}: {far:.1e}"

"""Write tests/data/losses.json anew, when a change of the losses is meant.

OMP_NUM_THREADS=1 PYTHONPATH=tests python tests/support/store_losses.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from support.worker import Worker

from hpcft.models.quickstart import build_model


def main() -> None:
    """Run each variant once and keep its losses."""
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        model.mkdir()
        build_model(model, steps=0, hidden=64, layers=2, vocab=512)
        worker = Worker(model, Path(name) / "runs")
        losses = {v: [round(float(e["loss"]), 5) for e in worker.finished(v, v).events("step")] for v in VARIANTS}
    target = Path(__file__).parent.parent / "data" / "losses.json"
    target.write_text(json.dumps(losses, indent=1) + "\n", encoding="utf-8")


VARIANTS = ("full", "lora", "qlora")

if __name__ == "__main__":
    main()

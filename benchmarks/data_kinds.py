"""One job of each data kind on real data: scores before and after tuning the quickstart model.

    python benchmarks/data_kinds.py DATA [--cluster NAME] [--gpus-per-node N] [--nodes N] [--results FOLDER]

DATA holds `e2e_nlg/devset.csv` (E2E NLG challenge), `mts_dialog/MTS-Dialog-TrainingSet.csv`,
`sentence_polarity/rt-polarity.{pos,neg}` (film reviews, Latin-1) and `nq_open/NQ-open.dev.jsonl`. The model is a small
one that knows none of this; the point is that each kind is read, trained, answered and scored as it should be.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HPCFT = str(Path(sys.executable).with_name("hpcft"))
COMMON = ["--model", "quickstart", "--seed", "42", "--set", "evaluation.before=true", "--eval-samples", "120"]
# name: (file, options)
KINDS: dict[str, tuple[str, str]] = {
    "generation, E2E NLG": (
        "e2e_nlg/devset.csv",
        "--variant lora --lora-r 16 --target both --num-samples 2400 --epochs 2 --lr 1e-2 --batch-size 8 "
        "--grad-accum 1 --max-length 192",
    ),
    "dialogue summary, MTS-Dialog": (
        "mts_dialog/MTS-Dialog-TrainingSet.csv",
        "--variant full --num-samples 0 --epochs 3 --lr 2e-3 --batch-size 4 --grad-accum 1 --max-length 512",
    ),
    "classification, sentence polarity": (
        "polarity.csv",
        "--variant full --num-samples 8000 --epochs 3 --lr 1e-3 --batch-size 16 --grad-accum 1 --max-length 96",
    ),
    "question answering, NQ-open": (
        "nq_open/NQ-open.dev.jsonl",
        "--variant full --num-samples 0 --epochs 3 --lr 2e-3 --batch-size 16 --grad-accum 1 --max-length 96 "
        "--set evaluation.max_new_tokens=12",
    ),
}
SCORES = ("bleu", "rougeL", "meteor", "accuracy", "f1_macro", "em", "f1", "loss")


def polarity(data: Path, target: Path) -> Path:
    """The film reviews as one CSV file with the columns sentence and label."""
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("sentence", "label"))
        for label, ending in (("positive", "pos"), ("negative", "neg")):
            lines = (data / "sentence_polarity" / f"rt-polarity.{ending}").read_text("latin-1").splitlines()
            writer.writerows((line.strip(), label) for line in lines if line.strip())
    return target


def main() -> None:
    """Run the jobs one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--nodes", default="1")
    parser.add_argument("--gpus-per-node", default="1")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hpcft-kinds-"))
    place = ["--cluster", asked.cluster, "--nodes", asked.nodes, "--gpus-per-node", asked.gpus_per_node]
    print("| kind | ranks | steps | before | after |\n|---|---|---|---|---|")
    for number, (kind, (file, options)) in enumerate(KINDS.items(), 1):
        path = polarity(asked.data, folder / file) if file == "polarity.csv" else asked.data / file
        results = asked.results or folder / "results"
        command = [HPCFT, "submit", *place, *COMMON, *options.split(), "--dataset", str(path.resolve())]
        command += ["--results", str(results), "--name", f"kind{number}", "--wait"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{kind}: {done.stderr[-3000:]}")
        metrics = json.loads((results / f"kind{number}" / "metrics.json").read_text())
        shown = []
        for when in ("base", "final"):
            found = ((s, metrics.get(f"{when}/validation_{s}")) for s in SCORES)
            shown.append(", ".join(f"{s} {value:.3f}" for s, value in found if value is not None))
        print(
            f"| {kind} | {metrics['train/world_size']} | {metrics['train/steps']} | {shown[0]} | {shown[1]} |",
            flush=True,
        )
    names = ("torch", "transformers", "peft", "deepspeed")
    print(f"\n{platform.system()} {platform.machine()}, Python {platform.python_version()}, seed 42, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in names))


if __name__ == "__main__":
    main()

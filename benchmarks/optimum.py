"""What `hpcft bench` measures beside optimum-benchmark: time to the first token, and the rest of the answer.

    python -m venv OTHER && OTHER/bin/pip install optimum-benchmark optimum 'transformers<5' pydantic scipy
    .venv/bin/python benchmarks/optimum.py OTHER/bin/python MODEL_FOLDER [--rounds 5]

optimum-benchmark 0.6 needs transformers 4, so both run in its environment, with the same libraries. Each round runs
ours, theirs and theirs again (A/A) as processes of their own, in shuffled order, on one thread: one
prompt of 128 tokens, 32 new ones. The median of a process's queries is its figure; the ratio of a round's figures is
one sample. The answer is inconclusive when the A/A noise is more than half of the margin.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

PROMPT, NEW, QUERIES, MARGIN, SEED = 128, 32, 20, 0.03, 0
THEIRS = f"""
import json, sys
from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, InlineConfig, PyTorchConfig
scenario = InferenceConfig(
    latency=True, memory=False, energy=False, warmup_runs=5, iterations={QUERIES}, duration=0,
    input_shapes={{"batch_size": 1, "sequence_length": {PROMPT}}},
    generate_kwargs={{"max_new_tokens": {NEW}, "min_new_tokens": {NEW}}},
)
backend = PyTorchConfig(
    model=sys.argv[1], device="cpu", library="transformers", task="text-generation", model_type="llama",
    torch_dtype="float32",
)
config = BenchmarkConfig(name="side", launcher=InlineConfig(), scenario=scenario, backend=backend)
found = Benchmark.launch(config)
median = lambda part: 1000 * sorted(part.latency.values)[len(part.latency.values) // 2]
print("FOUND", json.dumps({{"ttft_ms": median(found.prefill), "rest_ms": median(found.decode)}}))
"""


OURS = f"""
import json, sys
import torch
from types import SimpleNamespace
from transformers import AutoModelForCausalLM
from hpcft.measure.latency import answer, summarize
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32).eval()
# Numbers are all that is asked; a folder's tokenizer may be of a later transformers.
tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=model.config.eos_token_id)
prompt = [10 + (7 * k) % 400 for k in range({PROMPT})]
ask = lambda: answer(model, tokenizer, [prompt], max_new_tokens={NEW}, exactly=True, cache="dynamic")
for _ in range(5):
    ask()
found = summarize([ask() for _ in range({QUERIES})])
print("FOUND", json.dumps({{"ttft_ms": found["ttft_ms"]["p50"], "rest_ms": found["tpot_ms"]["p50"] * ({NEW} - 1)}}))
"""


def measured(python: str, code: str, model: str) -> dict[str, float]:
    """Medians of one process, in ms."""
    source = str(Path(__file__).parents[1] / "src")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": source}
    done = subprocess.run([python, "-c", code, model], env=environment, capture_output=True, text=True, check=False)
    line = next((text for text in done.stdout.splitlines() if text.startswith("FOUND")), None)
    if line is None:
        sys.exit(f"it failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(line.removeprefix("FOUND"))
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("python")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    arms = {
        "ours": lambda: measured(given.python, OURS, given.model),
        "theirs": lambda: measured(given.python, THEIRS, given.model),
        "theirs again": lambda: measured(given.python, THEIRS, given.model),
    }
    rng = random.Random(SEED)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for _ in range(given.rounds):
        order = list(arms)
        rng.shuffle(order)
        for name in order:
            found[name].append(arms[name]())
    packages = ("optimum-benchmark", "torch", "transformers")
    ask = f"import importlib.metadata as m; print(*(n + ' ' + m.version(n) for n in {packages}))"
    versions = subprocess.run([given.python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{versions}, one thread, seed {SEED}, {given.rounds} rounds of {QUERIES} queries")
    for figure in ("ttft_ms", "rest_ms"):
        values = {name: [one[figure] for one in rounds] for name, rounds in found.items()}
        ratio = statistics.median(a / b for a, b in zip(values["ours"], values["theirs"], strict=True))
        noise = statistics.median(abs(a / b - 1) for a, b in zip(values["theirs again"], values["theirs"], strict=True))
        shown = ", ".join(f"{name} {statistics.median(v):.2f}" for name, v in values.items())
        off = abs(ratio - 1)
        verdict = "inconclusive" if noise > MARGIN / 2 else "within 3 %" if off <= MARGIN else "NOT within 3 %"
        print(f"{figure}: {shown}; ours / theirs {ratio:.4f}, A/A noise {noise:.2%}: {verdict}")


if __name__ == "__main__":
    main()

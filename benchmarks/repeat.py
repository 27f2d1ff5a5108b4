"""Is a latency found again? The p50 time per output token of the same prompts, in processes of their own.

    .venv/bin/python benchmarks/repeat.py [--model FOLDER] [--processes 5] [--queries 40] [--device cpu]

Each process loads the model, warms up and asks as `hpcft bench` does; its p50 is one sample. The coefficient of
variation of the samples is held against 3 % on a CPU and 0.5 % on a GPU. The answer is inconclusive where other
processes were at work meanwhile, since then it is theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from typing import Any

SEED, NEW_TOKENS, PROMPT_TOKENS, WARM_UP = 0, 32, 128, 10
MARGINS = {"cpu": 0.03, "cuda": 0.005}


def measure(model_name: str, queries: int, device_name: str) -> dict[str, Any]:
    """One process's figure."""
    import random

    import torch

    from hpcft.measure.latency import answer, summarize
    from hpcft.measure.machine import drift, fingerprint, watch
    from hpcft.models.open import open_model, open_tokenizer
    from hpcft.spec.job import Job

    torch.set_num_threads(1)
    device = torch.device(device_name)
    job = Job.model_validate(
        {"kind": "bench", "model": {"name": model_name}, "resources": {"accelerator": device_name}}
    )
    model, tokenizer = open_model(job, device), open_tokenizer(job)
    rng = random.Random(SEED)
    special = set(tokenizer.all_special_ids)
    ids = [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]
    prompts = [[rng.choice(ids) for _ in range(PROMPT_TOKENS)] for _ in range(queries)]

    def ask(prompt: list[int]) -> Any:
        return answer(model, tokenizer, [prompt], max_new_tokens=NEW_TOKENS, exactly=True, cache="dynamic")

    for prompt in prompts[:WARM_UP]:
        ask(prompt)
    with watch([device]) as watched:
        found = [ask(prompt) for prompt in prompts]
    steady = drift([query.tpot_ms for query in found])
    return {
        "tpot_ms": summarize(found)["tpot_ms"],
        "troubles": watched.troubles + ([steady] if steady else []),
        "machine": fingerprint(device),
    }


def verdict(samples: list[float], disturbed: int, margin: float) -> str:
    """What the samples of the processes say.

    Args:
        disturbed: processes in which others were at work.
    """
    spread = statistics.stdev(samples) / statistics.fmean(samples)
    if disturbed:
        return f"inconclusive: CV {spread:.2%}, and {disturbed} of {len(samples)} processes were not alone"
    return f"{'within' if spread <= margin else 'NOT within'} {margin:.1%}: CV {spread:.2%}"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="quickstart")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--device", choices=list(MARGINS), default="cpu")
    parser.add_argument("--one", action="store_true", help="be one of the processes")
    given = parser.parse_args()
    if given.one:
        print("FOUND", json.dumps(measure(given.model, given.queries, given.device)))
        return
    samples: list[float] = []
    disturbed = 0
    for number in range(given.processes):
        before = os.getloadavg()[0]
        command = [sys.executable, __file__, "--one", "--model", given.model]
        command += ["--queries", str(given.queries), "--device", given.device]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
        found = json.loads(line.removeprefix("FOUND "))
        if number == 0:
            machine = found["machine"]
            versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
            print(f"{machine.get('gpu', platform.machine())}, one thread, {versions}, seed {SEED}")
            shape = f"{given.queries} prompts of {PROMPT_TOKENS} tokens, {NEW_TOKENS} new ones"
            print(f"{given.model}: {shape}, after {WARM_UP} to warm up")
        tpot = found["tpot_ms"]
        samples.append(tpot["p50"])
        disturbed += bool(found["troubles"])
        told = "; ".join(found["troubles"]) or "alone"
        print(f"process {number + 1}: p50 {tpot['p50']:.4f} ms a token, load {before:.1f}, {told}")
    print(verdict(samples, disturbed, MARGINS[given.device]))


if __name__ == "__main__":
    main()

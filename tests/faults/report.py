"""The lab's results as tables in a page.

    PYTHONPATH=tests:src python -m faults.report [--page docs/reliability.md] RESULT.json ...

Each file is one that `play`, `exactly_once`, `kills` or `writers` wrote with --json; several of one kind are put
together, and of a case that was played again the last file counts. Fails when anything is not right.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "submitit")


def save(path: Path, part: str, result: Any) -> None:
    """Write a result with its date and machine.

    Args:
        part: `faults`, `exactly_once`, `kills` or `writers`.
    """
    document = {"part": part, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "result": result}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> str:
    """What it ran on, in a line."""
    gib = psutil.virtual_memory().total / 1024**3
    words = [f"{psutil.cpu_count()} cores", f"{gib:.0f} GiB", platform.system()]
    if shutil.which("slurmd"):
        answer = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True)
        words.append(f"Slurm {answer.stdout.split()[-1]}")
    words += [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
    return ", ".join(words)


# Tables


def of_faults(documents: list[dict[str, Any]]) -> list[str]:
    """A row for each fault, phase and number of ranks, in the order of the lab's list; a count of the whole."""
    from faults.kinds import FAULTS

    order = {fault.name: number for number, fault in enumerate(FAULTS)}
    cases: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for outcome in outcomes_of(documents):
        cases[outcome["fault"], outcome["phase"], outcome["ranks"]].append(outcome)
    played = [o for found in cases.values() for o in found if o["result"] != "not played"]
    right = sum(o["right"] for o in played)
    lines = [f"{right} of {len(played)} cases right, {sum(map(len, cases.values())) - len(played)} not played.", ""]
    lines += ["| fault | when | ranks | seeds | what became of it | starts | steps done twice | s |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for (fault, phase, ranks), found in sorted(cases.items(), key=lambda item: (order.get(item[0][0], 99), item[0])):
        seeds = ", ".join(str(seed) for seed in sorted(o["seed"] for o in found))
        real = [o for o in found if o["result"] != "not played"]
        row = [fault, phase, str(ranks), seeds, came_to(found)]
        row += [span(o["starts"] for o in real), span(o["lost_steps"] for o in real)]
        row += [f"{median(o['seconds'] for o in real):.0f}" if real else ""]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def outcomes_of(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outcome of each case; the last one of a case that was played again."""
    found = {}
    for document in documents:
        for outcome in document["result"]:
            found[outcome["fault"], outcome["phase"], outcome["ranks"], outcome["seed"]] = outcome
    return list(found.values())


def came_to(outcomes: list[dict[str, Any]]) -> str:
    """The results of some cases, each with its number and its mark."""
    counts: dict[str, int] = defaultdict(int)
    for outcome in outcomes:
        if outcome["result"] == "not played":
            words = f"not played: {outcome['detail']}"
        else:
            words = f"{'✓' if outcome['right'] else '✗'} {outcome['result']}"
        counts[words] += 1
    return "; ".join(words if number == 1 else f"{words} ({number})" for words, number in counts.items())


def span(values: Any) -> str:
    """The smallest and the largest of some numbers."""
    found = sorted(values)
    if not found:
        return ""
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def of_exactly_once(documents: list[dict[str, Any]]) -> list[str]:
    """A row for each round."""
    lines = [
        "| names | seed | clients | with a fault | killed | repaired | jobs | lost | twice | strangers | open | s |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|---|"]
    faults: dict[str, int] = defaultdict(int)
    for r in (document["result"] for document in documents):
        for name, number in r["faults"].items():
            faults[name] += number
        repaired = ", ".join(f"{number} {name}" for name, number in sorted(r["repaired"].items())) or "none"
        row = [r["submissions"], r["seed"], r["clients"], sum(r["faults"].values()), r["kills"], repaired, r["jobs"]]
        row += [len(r["lost"]), len(r["twice"]), len(r["strangers"]), len(r["open"]), f"{r['seconds']:.0f}"]
        lines.append(f"| {' | '.join(str(cell) for cell in row)} |")
    told = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in sorted(faults.items()))
    return [*lines, "", f"Faults of sbatch: {told}."]


def of_kills(documents: list[dict[str, Any]]) -> list[str]:
    """A row for each count, as the programs named it."""
    lines = ["| what | seed | counts |", "|---|---|---|"]
    for document in documents:
        seed = document["result"]["seed"]
        for part, counts in document["result"]["counts"].items():
            told = ", ".join(f"{name} {number:,}" for name, number in counts.items())
            lines.append(f"| {part} | {seed} | {told} |")
    return lines


def of_writers(documents: list[dict[str, Any]]) -> list[str]:
    """A row for each round, a column for each count, as the program named it."""
    results = [document["result"] for document in documents]
    names = list(results[0]["counts"])
    lines = [f"| seed | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for result in results:
        cells = [f"{n:,}" if isinstance(n := result["counts"][name], int) else str(n) for name in names]
        lines.append(f"| {result['seed']} | {' | '.join(cells)} |")
    return lines


_TABLES = {"faults": of_faults, "exactly_once": of_exactly_once, "kills": of_kills, "writers": of_writers}


def is_right(part: str, documents: list[dict[str, Any]]) -> bool:
    """Whether nothing in the results of a part is wrong."""
    from faults import kills, writers

    if part == "faults":
        return all(outcome["right"] for outcome in outcomes_of(documents))
    results = [document["result"] for document in documents]
    if part in ("kills", "writers"):
        faults_in = kills.faults_in if part == "kills" else writers.faults_in
        return not any(faults_in(result["counts"]) for result in results)
    return not any(result[name] for result in results for name in ("lost", "twice", "strangers", "open"))


def table(part: str, documents: list[dict[str, Any]]) -> str:
    """The table of one part, with when and on what it was made."""
    made = sorted({f"{document['date']}; {document['machine']}." for document in documents})
    return "\n".join([*made, "", *_TABLES[part](documents)]) + "\n"


def put(page: Path, mark: str, text: str) -> None:
    """Put a text between its marks in a page, `<!-- MARK -->` and the next `<!-- end -->`.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text().partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not end:
        raise ValueError(f"{page} has no marks for {mark}")
    page.write_text(before + begin + text + end + after)


def main() -> int:
    """Write the tables, and fail when anything was wrong."""
    parser = argparse.ArgumentParser(description="Write the lab's results into a page.")
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, help="without it the tables are printed")
    given = parser.parse_args()
    documents = [json.loads(path.read_text()) for path in given.results]
    right = True
    for part in _TABLES:
        if of_part := [document for document in documents if document["part"] == part]:
            right &= is_right(part, of_part)
            text = table(part, of_part)
            print(text) if given.page is None else put(given.page, part, text)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

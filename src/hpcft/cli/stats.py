"""`hpcft stats`: how many runs there are, and what they came to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import typer

from hpcft.cli.filters import takes_filters
from hpcft.cli.listing import Filters, stated
from hpcft.cli.output import as_json, table
from hpcft.cli.texts import ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_FIGURES = {
    "runtime": "train_runtime",
    "accuracy": "eval_accuracy",
    "f1_score": "f1",
    "tokens_per_sec": "tokens_per_sec",
    "cpu_percent": "cpu_percent",
    "memory_gb": "memory_gb",
}


@app.command(
    epilog=ending(["hpcft stats", "hpcft stats --since 7d --json"], {0: "told, also when there is no run", 2: ""})
)
@takes_filters
def stats(filters: Filters, json: bool = typer.Option(False, "--json", help="Print them as JSON.")) -> None:
    """Count runs by state; mean, best and least of time, scores, speed and load."""
    told = statistics(filters)
    if json:
        as_json(told)
        return
    states = ", ".join(f"{number} {state}" for state, number in told["states"].items()) or "none"
    rows = [("runs", f"{told['total_experiments']:,}"), ("states", states)]
    rows += [(key.replace("_", " "), f"{value:.5g}") for key, value in told.items() if isinstance(value, float)]
    table(f"runs in {filters.results}", rows)


def statistics(filters: Filters) -> dict[str, Any]:
    """Counts and means over the runs that filters choose.

    Returns:
        `total_experiments`, `states` (state → runs); `avg_runtime`, `min_runtime` (seconds), `avg_accuracy`,
        `best_accuracy`, `avg_f1_score`, `best_f1_score`, `avg_tokens_per_sec`, `avg_cpu_percent`, `avg_memory_gb`: null
        where no run has the figure.
    """
    from hpcft.cluster.poll import Poll
    from hpcft.runs.index.query import Index, Query

    with Index(filters.results) as index:
        found, total = stated(index, filters, Query(show=tuple(_FIGURES.values())), Poll())
    chosen = [row for row, _, _ in found]
    states = Counter(str(state) for _, state, _ in found)
    values = {name: [float(r[key]) for r in chosen if r[key] is not None] for name, key in _FIGURES.items()}
    told: dict[str, Any] = {"total_experiments": total, "states": dict(states.most_common())}
    for name, numbers in values.items():
        told[f"avg_{name}"] = sum(numbers) / len(numbers) if numbers else None
    told["min_runtime"] = min(values["runtime"], default=None)
    for name in ("accuracy", "f1_score"):
        told[f"best_{name}"] = max(values[name], default=None)
    return told

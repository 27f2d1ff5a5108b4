"""How long each query of a benchmark took, as a distribution and as figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hpcft.report.chart import Chart, Line, Scale, axis, line_path, short
from hpcft.report.lineage import Lineage
from hpcft.runs.files import read_json

_TIMES = {
    "latency_ms": "Latency of a query (ms)",
    "ttft_ms": "Time to the first token (ms)",
    "tpot_ms": "Time of each further token (ms)",
}
_HEAD = ["n", "mean", "95 % interval of the mean", "p50", "p95", "p99", "max"]
_MOST_STEPS = 200


@dataclass(frozen=True)
class Latency:
    """What one benchmark measured.

    Attributes:
        times: `latency_ms`, `ttft_ms`, `tpot_ms` → one value a query, ascending; those that exist.
        summary: of each: n, mean, ci95, p50, p95, p99 and so on, as the benchmark wrote them.
        batches: of made-up prompts: one mapping a batch size.
        troubles: why the figures may not be found again.
    """

    times: dict[str, list[float]]
    summary: dict[str, dict[str, Any]]
    batches: list[dict[str, Any]]
    troubles: list[str]


def read_latency(row: Lineage) -> Latency | None:
    """The newest benchmark of a row; None where there is none, or one of another shape.

    Raises:
        DataError: its file is damaged.
    """
    for run in reversed(row.runs):
        benchmark = read_json(run.paths.benchmark)
        real = benchmark.get("real") if isinstance(benchmark, dict) else None
        if not isinstance(real, dict):
            continue
        queries = [query for query in _listed(real.get("queries")) if isinstance(query, dict)]
        times = {key: sorted(v for query in queries if (v := _finite(query.get(key))) is not None) for key in _TIMES}
        return Latency(
            times={key: values for key, values in times.items() if values},
            summary={key: real[key] for key in _TIMES if isinstance(real.get(key), dict)},
            batches=[batch for batch in _listed(benchmark.get("synthetic")) if isinstance(batch, dict)],
            troubles=[str(trouble) for trouble in _listed(benchmark.get("troubles"))],
        )
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _finite(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def latency_charts(measured: dict[str, Latency], numbers: dict[str, int]) -> list[Chart]:
    """A chart a kind of time: the share of queries that were answered within it.

    Args:
        measured: name of a row → its benchmark. numbers: name → number of its look.
    """
    charts = []
    share = Scale(0, 100)
    for key, label in _TIMES.items():
        times = {name: found.times[key] for name, found in measured.items() if key in found.times}
        if not times:
            continue
        x = Scale.of((v for values in times.values() for v in values), 0.02)
        charts.append(
            Chart(
                label,
                label,
                "Share of queries within that time (%)",
                axis(x, 5),
                [(100.0 - p, f"{p} %") for p in (0, 25, 50, 75, 95)],
                lines=[Line(numbers[name], line_path(_steps(values), x, share)) for name, values in times.items()],
                head=_HEAD,
                rows=[(numbers[name], name, _figures(measured[name].summary.get(key, {}))) for name in times],
            )
        )
    return charts


def _steps(values: list[float]) -> list[tuple[float, float]]:
    """The empirical distribution function as a line: (time, percent), up at each value."""
    count = len(values)
    places = range(count) if count <= _MOST_STEPS else [round(i * (count - 1) / _MOST_STEPS) for i in range(201)]
    points: list[tuple[float, float]] = []
    for i in places:
        points += [(values[i], points[-1][1] if points else 0.0), (values[i], 100 * (i + 1) / count)]
    return points


def _figures(summary: dict[str, Any]) -> list[str]:
    def told(key: str) -> str:
        value = _finite(summary.get(key))
        return "–" if value is None else short(value)

    low, high = (*_listed(summary.get("ci95")), None, None)[:2]
    known = _finite(low) is not None and _finite(high) is not None
    between = f"{low:.5g} to {high:.5g}" if known else "–"
    return [told("n"), told("mean"), between, told("p50"), told("p95"), told("p99"), told("max")]


def batch_rows(measured: dict[str, Latency]) -> list[list[str]]:
    """Made-up prompts of one length: name, batch size, tokens of a prompt, median latency, tokens a second."""
    rows = []
    for name, found in measured.items():
        for batch in found.batches:
            times = batch.get("latency_ms")
            median = _finite(times.get("p50")) if isinstance(times, dict) else None
            figures = (_finite(batch.get("batch")), _finite(batch.get("prompt_tokens_each")), median)
            told = (*figures, _finite(batch.get("tokens_per_sec")))
            rows.append([name, *("–" if value is None else short(value) for value in told)])
    return rows

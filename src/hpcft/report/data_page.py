"""What was found in data sets as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcft.report.tables import Table
from hpcft.report.template import render

ISSUES = {
    "empty_values": "Texts that are missing",
    "encoding_issues": "Characters of a wrong decoding",
    "cut_answers": "Answers with a bracket left open",
    "cut_at_length": "Answers cut at one length",
    "contradicting_labels": "Inputs with several labels",
    "length_violations": "Texts too short or too long",
    "wrong_code_page": "Code page 1252 read as Latin-1",
    "html_content": "HTML tags",
    "duplicate_entries": "Rows that stand further up already",
}
_MOST_LABELS = 50


def data_html(reports: Sequence[Mapping[str, Any]], lang: str = "en") -> str:
    """A page about checks of data sets.

    Args:
        reports: as `hpcft.data.care.report.document` makes them.
        lang: language of the data (BCP 47), by which a browser chooses the forms of Chinese characters.
    """
    return render(
        "data.html.j2",
        ["base.css", "data.css"],
        None,
        sets=[_view(report) for report in reports],
        lang=lang,
    )


def _view(report: Mapping[str, Any]) -> dict[str, Any]:
    near = [
        (title, report[key])
        for title, key in (("Near-duplicates", "near_duplicates"), ("Near a training row", "near_overlap"))
        if report[key] is not None
    ]
    return {
        "name": report["dataset"],
        "role": report.get("role", ""),
        "facts": facts(report),
        "recommendations": report["recommendations"],
        "issues": Table(["Check", "Rows", "Share"], issue_rows(report)),
        "examples": Table(["Check", "Where", "Column", "Text"], _example_rows(report)),
        "statistics": Table(
            ["Column", "Texts", "Mean", "Std", "Least", "p50", "p95", "p99", "Most"], length_rows(report)
        ),
        "labels": _labels(report),
        "near": [(title, near_text(of), Table(["Similarity", "Row", "Near to"], _near_rows(of))) for title, of in near],
        "tokens": report["tokens"],
    }


def facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a set is, in a few lines."""
    columns = report["columns"]
    shown = [
        ("rows", f"{report['total_samples']:,}" + (" (of more)" if report["partial"] else "")),
        ("version", str(report["sha256"])[:16]),
        ("task", str(report["task"] or "not known")),
        ("asked in", ", ".join(columns["inputs"])),
        ("answered in", str(columns["target"] or "not known")),
    ]
    if report["distribution"] is not None:
        of = report["distribution"]
        balance = "balanced" if of["is_balanced"] else "not balanced"
        shown.append(("classes", f"{of['num_classes']}, largest / smallest {of['imbalance_ratio']}, {balance}"))
    if report["tokens"] is not None:
        of = report["tokens"]
        spread = ", ".join(f"{name} {n:,}" for name, n in of["quantiles"].items())
        shown.append(("tokens", f"{spread} in {of['looked']:,} rows, by the tokenizer of {of['model']}"))
    if report["overlap"] is not None:
        of = report["overlap"]
        shown.append(("asked in training too", f"{of['count']:,} of {of['rows']:,} rows"))
    return shown


def issue_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Each check with the rows that fail it, and their share."""
    rows = max(1, int(report["total_samples"]))
    return [
        [ISSUES[kind], f"{of['count']:,}", f"{100 * of['count'] / rows:.2f} %"] for kind, of in report["issues"].items()
    ]


def length_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Characters of each column's texts."""
    names = ("count", "avg", "std", "min", "p50", "p95", "p99", "max")
    return [[column, *(f"{of[name]:,}" for name in names)] for column, of in report["statistics"].items()]


def near_text(near: Mapping[str, Any]) -> str:
    """How many rows are near another one."""
    return f"{near['count']:,} of the {near['looked']:,} rows that were compared"


def _example_rows(report: Mapping[str, Any]) -> list[list[str]]:
    return [
        [ISSUES[kind], _place(example["where"], str(report["dataset"])), example["column"], example["text"]]
        for kind, of in report["issues"].items()
        for example in of["examples"]
    ]


def _place(where: str, dataset: str) -> str:
    """A place within the set that the page is about."""
    rest = where.removeprefix(dataset)
    return f"line {rest[1:]}" if rest.startswith(":") else rest.lstrip(", ")


def _near_rows(near: Mapping[str, Any]) -> list[list[str]]:
    return [
        [f"{e['similarity']:.3f}", e["second"].replace("\x1f", " | "), e["first"].replace("\x1f", " | ")]
        for e in near["examples"]
    ]


def _labels(report: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """(label, rows, per cent of the most frequent one) of the most frequent labels."""
    of = report["distribution"]
    if of is None:
        return []
    counts = list(of["label_counts"].items())[:_MOST_LABELS]
    most = max(n for _, n in counts)
    return [(str(label), n, 100 * n / most) for label, n in counts]

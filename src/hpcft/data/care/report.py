"""What was found in a set, as one document: for people, for programs, for the version that a run records."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from hpcft.data.care import words
from hpcft.data.care.rules import EMPTY, ENCODING
from hpcft.data.care.survey import CONFLICTS, CUT, CUT_AT_LIMIT, ORDER, Issue, Survey

Priority = Literal["high", "medium", "low"]
# A set whose largest class has at most so many times the rows of its smallest counts as balanced.
_BALANCED, _VERY_UNBALANCED = 3.0, 20.0
# From this share on, answers that seem cut, or that are all the same, are a fault of the set.
_MANY, _NEARLY_ALL = 0.05, 0.95


@dataclass(frozen=True)
class Compared:
    """Pairs of rows that are nearly the same.

    Attributes:
        looked: rows among which they were looked for.
        count: rows that are near another one.
        other_label: of them, those whose neighbour has another label.
        examples: (text, text, similarity).
    """

    looked: int
    count: int
    other_label: int = 0
    examples: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True)
class Overlap:
    """Rows of a validation set whose inputs the training set has too."""

    rows: int
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """Tokens of rows, prompt and answer together.

    Attributes:
        looked: rows that were counted. model: whose tokenizer it is.
        truncated, dropped: rows that lose a part of their source, or are left out, at `max_length`.
        quantiles: `p50` and so on → tokens.
    """

    model: str
    looked: int
    max_length: int
    truncated: int
    dropped: int
    quantiles: dict[str, int]


@dataclass(frozen=True)
class Finding:
    """Something to decide about."""

    kind: str
    priority: Priority
    text: str

    @property
    def facts(self) -> dict[str, str]:
        """For JSON."""
        return {"priority": self.priority, "issue": self.kind, "text": self.text}


def distribution(found: Survey) -> dict[str, Any] | None:
    """How the classes, or a few answers, are distributed; None where they are not classes.

    Returns:
        `total_samples`, `num_classes`, `label_counts` and `label_percentages` (most frequent first), `imbalance_ratio`
        (largest / smallest, 2 digits), `is_balanced` (at most 3).
    """
    counts = found.classes
    return None if counts is None else distribution_of(counts)


def distribution_of(counts: Counter[str]) -> dict[str, Any]:
    """The same from counts."""
    total, ordered = sum(counts.values()), dict(counts.most_common())
    ratio = max(ordered.values()) / min(ordered.values())
    return {
        "total_samples": total,
        "num_classes": len(ordered),
        "label_counts": ordered,
        "label_percentages": {label: round(100 * n / total, 2) for label, n in ordered.items()},
        "imbalance_ratio": round(ratio, 2),
        "is_balanced": ratio <= _BALANCED,
    }


def statistics(found: Survey) -> dict[str, dict[str, float]]:
    """Characters of the texts, by column: count, avg, min, max, std, and the 50th, 95th and 99th percentile."""
    return {column: _of_lengths(lengths) for column, lengths in found.lengths.items() if lengths}


def _of_lengths(lengths: Counter[int]) -> dict[str, float]:
    count = sum(lengths.values())
    mean = sum(n * k for n, k in lengths.items()) / count
    variance = sum(k * (n - mean) ** 2 for n, k in lengths.items()) / count
    values = {"count": count, "avg": round(mean, 2), "min": min(lengths), "max": max(lengths)}
    return {**values, "std": round(variance**0.5, 2), **quantiles(lengths)}


def quantiles(lengths: Counter[int]) -> dict[str, int]:
    """The least length that so many per cent of the texts do not exceed."""
    ordered, total = sorted(lengths.items()), sum(lengths.values())
    found: dict[str, int] = {}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        seen = 0
        for length, number in ordered:
            seen += number
            if seen >= share * total:
                found[name] = length
                break
    return found


def findings(
    found: Survey,
    near: Compared | None = None,
    overlap: Overlap | None = None,
    near_overlap: Compared | None = None,
    tokens: Tokens | None = None,
    lang: str = "en",
) -> list[Finding]:
    """Everything to decide about, the most important first."""
    told = [_of_issue(kind, found.issues[kind], found.rows, lang) for kind in ORDER if kind in found.issues]
    told += _of_classes(found, lang)
    if overlap is not None and overlap.count:
        told.append(_say(words.OVERLAP, "high", lang, count=overlap.count, looked=overlap.rows))
    if near_overlap is not None and near_overlap.count:
        told.append(_say(words.NEAR_OVERLAP, "medium", lang, count=near_overlap.count, looked=near_overlap.looked))
    if near is not None and near.other_label:
        told.append(_say(words.NEAR_CONFLICT, "medium", lang, count=near.other_label, looked=near.looked))
    if near is not None and near.count:
        told.append(_say(words.NEAR, "low", lang, count=near.count, looked=near.looked))
    if tokens is not None:
        for kind, count in ((words.DROPPED, tokens.dropped), (words.TOO_LONG, tokens.truncated)):
            if count:
                told.append(_say(kind, "medium", lang, count=count, looked=tokens.looked, max_length=tokens.max_length))
    return sorted(told, key=lambda finding: ("high", "medium", "low").index(finding.priority))


def _of_issue(kind: str, issue: Issue, rows: int, lang: str) -> Finding:
    priority: Priority = "medium"
    if kind in (EMPTY, ENCODING):
        priority = "high"
    elif kind in (CUT, CUT_AT_LIMIT):
        priority = "high" if issue.count >= _MANY * rows else "low"
    elif kind == CONFLICTS and issue.count >= _MANY * rows:
        priority = "high"
    return _say(kind, priority, lang, count=issue.count, rows=rows)


def _of_classes(found: Survey, lang: str) -> list[Finding]:
    counts = found.classes
    if counts is None:
        return []
    answer, most = counts.most_common(1)[0]
    told = sum(counts.values())
    if found.fields.task != "classification" and most >= _NEARLY_ALL * told:
        return [_say(words.SAME_ANSWER, "high", lang, count=most, rows=told, answer=answer[:40])]
    ratio = most / min(counts.values())
    if ratio <= _BALANCED:
        return []
    priority: Priority = "high" if ratio > _VERY_UNBALANCED else "medium"
    return [_say(words.IMBALANCE, priority, lang, ratio=f"{ratio:.3g}")]


def _say(kind: str, priority: Priority, lang: str, **values: Any) -> Finding:
    return Finding(kind, priority, words.sentence(kind, lang, **values))


def document(
    name: str,
    found: Survey,
    near: Compared | None = None,
    overlap: Overlap | None = None,
    near_overlap: Compared | None = None,
    tokens: Tokens | None = None,
    lang: str = "en",
) -> dict[str, Any]:
    """The report of a check, as JSON keeps it.

    Returns:
        `dataset`, `sha256`, `total_samples`, `partial`, `task`, `columns`, `issues` (each with `count`, `columns`,
        `examples`), `statistics`, `distribution`, `near_duplicates`, `overlap`, `near_overlap`, `tokens`,
        `recommendations`, `is_clean` (nothing of high priority), `analysis_timestamp` (ISO 8601, UTC). What was not
        looked for is null.
    """
    told = findings(found, near, overlap, near_overlap, tokens, lang)
    return {
        "dataset": name,
        "sha256": found.sha256,
        "total_samples": found.rows,
        "partial": found.partial,
        "task": found.fields.task,
        "columns": {"inputs": list(found.fields.inputs), "target": found.fields.target},
        "rules": found.rules.model_dump(),
        "issues": {kind: _issue_facts(found.issues.get(kind, Issue())) for kind in ORDER},
        "statistics": statistics(found),
        "distribution": distribution(found),
        "near_duplicates": None if near is None else _near_facts(near),
        "overlap": None
        if overlap is None
        else {"rows": overlap.rows, "count": overlap.count, "examples": overlap.examples},
        "near_overlap": None if near_overlap is None else _near_facts(near_overlap),
        "tokens": None if tokens is None else vars(tokens),
        "recommendations": [finding.facts for finding in told],
        "is_clean": all(finding.priority != "high" for finding in told),
        "analysis_timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _issue_facts(issue: Issue) -> dict[str, Any]:
    examples = [{"where": where, "column": column, "text": text} for where, column, text in issue.examples]
    return {"count": issue.count, "columns": dict(issue.columns), "examples": examples}


def _near_facts(near: Compared) -> dict[str, Any]:
    examples = [{"first": a, "second": b, "similarity": round(s, 3)} for a, b, s in near.examples]
    return {"looked": near.looked, "count": near.count, "other_label": near.other_label, "examples": examples}

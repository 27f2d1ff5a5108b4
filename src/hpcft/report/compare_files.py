"""A comparison written down: as JSON, as CSV, and its answers as a page of Markdown."""

from __future__ import annotations

import csv
import html
import io
from typing import Any

from hpcft.report.compare import Answers, Comparison, Figure
from hpcft.report.significance import CONFIDENCE

_COLUMNS = ("measure", "run", "value", "low", "high", "difference", "p", "p_holm")


def document(comparison: Comparison, answers: int = 0) -> dict[str, Any]:
    """A comparison as JSON. What does not exist is absent.

    Args:
        answers: inputs that the baseline answers right, and as many that it answers wrong; 0 for none.
    """
    return {
        "baseline": comparison.baseline,
        "runs": comparison.names,
        "inputs": comparison.inputs,
        "confidence": CONFIDENCE,
        "scores": {s: {n: _present(f) for n, f in figures.items()} for s, figures in comparison.scores.items()},
        "costs": comparison.costs,
        "mean_answer_words": comparison.words,
        "notes": comparison.notes,
        **(
            {"judged_by": comparison.judged_by, "answers": [vars(a) for a in comparison.answers(answers)]}
            if answers
            else {}
        ),
    }


def _present(figure: Figure) -> dict[str, Any]:
    return {name: value for name, value in vars(figure).items() if value is not None}


def csv_text(comparison: Comparison) -> str:
    """One line a measure and run; a field is empty where there is nothing to stand in it."""
    file = io.StringIO()
    table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for score, figures in comparison.scores.items():
        for name, figure in figures.items():
            line = {"measure": score, "run": name, **_present(figure)}
            low_high = line.pop("interval", None)
            if low_high is not None:
                line["low"], line["high"] = low_high
            table.writerow(line)
    for measure, values in [*comparison.costs.items(), ("mean_answer_words", comparison.words)]:
        for name, value in values.items():
            table.writerow({"measure": measure, "run": name, "value": value})
    return file.getvalue()


def answers_markdown(comparison: Comparison, count: int) -> str:
    """The inputs that the baseline answers right and wrong, each with every run's answer.

    Args:
        count: at most so many of each.
    """
    answers = comparison.answers(count)
    right, wrong = headings(comparison)
    words = ", ".join(f"{_cell(name)} {mean:.1f}" for name, mean in comparison.words.items())
    lines = [f"# Answers to {comparison.inputs} inputs", "", f"Mean length in words: {words}."]
    for title, chosen in ((right, [a for a in answers if a.right]), (wrong, [a for a in answers if not a.right])):
        lines += ["", f"## {title}", ""]
        head = ["input", "references", comparison.judged_by or "", *comparison.names]
        lines += _table(head, [_cells(a) for a in chosen]) if chosen else ["None."]
    return "\n".join(lines) + "\n"


def headings(comparison: Comparison) -> tuple[str, str]:
    """What stands above the baseline's right answers and above its wrong ones."""
    base = comparison.baseline
    if comparison.judged_by in ("em", "accuracy"):
        return f"{base} is right", f"{base} is wrong"
    return f"{base}'s best by {comparison.judged_by}", f"{base}'s worst by {comparison.judged_by}"


def _cells(answers: Answers) -> list[str]:
    asked = f"{answers.context}\n{answers.input}" if answers.context else answers.input
    return [asked, "\n".join(answers.references), f"{answers.score:.3f}", *answers.predictions.values()]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(_cell, line))} |" for line in (head, *rows)]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


def _cell(text: str) -> str:
    """A model may write anything, and a page obeys markup."""
    plain = html.escape(text, quote=False)
    for mark in "\\`*_[]|~#":
        plain = plain.replace(mark, f"\\{mark}")
    return "<br>".join(plain.splitlines())

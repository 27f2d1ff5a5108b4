"""Reports about data sets on a terminal."""

from __future__ import annotations

from typing import Any

from hpcft.cli.output import grid, say, table
from hpcft.report.data_page import ISSUES, facts, issue_rows, length_rows

_LABELS_SHOWN = 10


def check_title(kind: str) -> str:
    """A check as it stands within a sentence."""
    return ISSUES[kind][0].lower() + ISSUES[kind][1:] if not ISSUES[kind].startswith("HTML") else ISSUES[kind]


def show_checks(reports: list[dict[str, Any]]) -> None:
    """What validate found."""
    for report in reports:
        _head(report)
        rows = [[*row, _first_place(of)] for row, of in zip(issue_rows(report), report["issues"].values(), strict=True)]
        grid(
            ["check", "rows", "share", "first"],
            [row for row in rows if row[1] != "0"] or [["nothing found", "", "", ""]],
        )
        for key, title in (("near_duplicates", "nearly the same"), ("near_overlap", "near a training row")):
            if report[key] is not None:
                print(f"{title}: {report[key]['count']:,} of the {report[key]['looked']:,} rows that were compared")
        table("to decide", [(f["priority"], f["text"]) for f in report["recommendations"]])
        print()


def _first_place(issue: dict[str, Any]) -> str:
    if not issue["examples"]:
        return ""
    first = issue["examples"][0]
    return f"{first['where']}: {first['text'][:60]!r}"


def _head(report: dict[str, Any]) -> None:
    role = " (validation)" if report.get("role") == "validation" else ""
    table(f"{report['dataset']}{role}", facts(report))


def show_analysis(reports: list[dict[str, Any]]) -> None:
    """What analyze counted."""
    for report in reports:
        _head(report)
        of = report["distribution"]
        if of is not None:
            shown = list(of["label_counts"].items())
            rows = [[str(k)[:60], f"{n:,}", f"{of['label_percentages'][k]} %"] for k, n in shown[:_LABELS_SHOWN]]
            grid(["answer", "rows", "share"], rows)
            if len(shown) > _LABELS_SHOWN:
                say(f"and {len(shown) - _LABELS_SHOWN} more; --json has all")
        grid(["characters of", "texts", "mean", "std", "least", "p50", "p95", "p99", "most"], length_rows(report))
        said = [f["text"] for f in report["recommendations"] if f["issue"] in ("truncated_sources", "dropped_targets")]
        for text in said:
            print(text)
        print()


def show_diff(found: dict[str, Any]) -> None:
    """What diff found."""
    same = "the same rows in the same order" if found["same"] else "the same rows in another order"
    rows = [("rows", f"{found['rows'][0]:,} and {found['rows'][1]:,}")]
    if found["same_rows"]:
        rows.append(("", same))
    rows += [(what, f"{found[what]['count']:,}") for what in ("added", "removed") if found[what]["count"]]
    if found["changed"]["count"]:
        rows.append(("inputs with other answers", f"{found['changed']['count']:,}"))
    for what in ("columns_added", "columns_removed"):
        if found[what]:
            rows.append((what.replace("_", " "), ", ".join(found[what])))
    rows += [
        (f"answer {label[:40]}", f"{a:,} → {b:,}") for label, (a, b) in list((found["answers"] or {}).items())[:10]
    ]
    table(f"{found['first']} → {found['second']}", rows)
    for what in ("added", "removed"):
        if found[what]["examples"]:
            grid(
                [f"{what}, the first", "input", "answer"],
                [[e["where"], e["input"][:60], e["answer"][:60]] for e in found[what]["examples"]],
            )

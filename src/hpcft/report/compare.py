"""Runs side by side on the same inputs: scores, how sure their differences are, costs, and the answers themselves."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcft.errors import DataError, UsageError
from hpcft.report.points import point_of
from hpcft.report.significance import bleu_interval, bleu_p, holm, mean_interval, paired_p, reference_streams
from hpcft.runs.files import read_json
from hpcft.runs.run import Run

# Numbers of an evaluation that are no scores.
_NO_SCORES = frozenset(["num_samples", "confidence"])
# Parts of a score's provenance that say nothing of the way of scoring.
_NO_WAY = frozenset(["step", "labels"])
# What says that an answer is right; where nothing does, answers are ranked by ROUGE-L.
_RIGHT = ("em", "accuracy")
_RANKED_BY = "rougeL"
# The share of answers that look as they should.
FORMAT = "format"
_RESAMPLES = 1000
COSTS = (
    "inference/avg_latency_ms_per_sample",
    "inference/p95_latency_ms",
    "inference/throughput_tokens_per_sec",
    "inference/peak_vram_gb",
    "inference/peak_rss_gb",
    "inference/model_size_gb",
    "evaluation/peak_vram_gb",
    "evaluation/peak_rss_gb",
    "train/peak_vram_gb",
    "train/peak_rss_gb",
    "train/runtime_s",
    "model/trainable_params",
)


@dataclass(frozen=True)
class Row:
    """An input, a run's answer to it, and the answer's own scores."""

    input: str
    context: str
    references: tuple[str, ...]
    prediction: str
    scores: dict[str, float]


@dataclass
class Figure:
    """One run's value of one score. What does not exist is None.

    Attributes:
        interval: 95 %, low and high.
        difference: to the baseline's value; None of the baseline itself.
        p: of that difference, two-sided, paired.
        p_holm: the same, corrected for the number of runs that are compared with the baseline.
    """

    value: float
    interval: tuple[float, float] | None = None
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Answers:
    """The answers to one input.

    Attributes:
        right: whether the baseline's is; for texts, whether it is among its best.
        score: of the baseline's answer, by `Comparison.judged_by`.
        predictions: run → answer.
    """

    right: bool
    score: float
    input: str
    context: str
    references: tuple[str, ...]
    predictions: dict[str, str]


@dataclass
class Comparison:
    """What a comparison found.

    Attributes:
        names: of the runs, the baseline first.
        inputs: how many are compared.
        scores: score → run → figure; the scores that all runs have.
        costs: key of `metrics.json` → run → value; those that all runs have.
        words: run → mean number of words of an answer, divided by blanks.
        notes: what a reader must know: what has no p-value or is left out, and why.
        rows: run → rows, the same input at the same place in each.
        judged_by: the score that says whether an answer is right, or how good; None where no row has one.
    """

    names: list[str]
    inputs: int
    scores: dict[str, dict[str, Figure]]
    costs: dict[str, dict[str, float]]
    words: dict[str, float]
    notes: list[str]
    rows: dict[str, list[Row]] = field(repr=False)
    judged_by: str | None = None

    @property
    def baseline(self) -> str:
        """The run that the others are compared with."""
        return self.names[0]

    def answers(self, count: int) -> list[Answers]:
        """Inputs that the baseline answers right and inputs that it answers wrong, with every run's answer.

        Args:
            count: at most so many of each. Where right and wrong are not told, the best and the worst by ROUGE-L,
                the best first; else in the order of the file.

        Raises:
            UsageError: the predictions have no scores of their own to choose by.
        """
        judge = self.judged_by
        if judge is None:
            raise UsageError(
                f"the predictions of '{self.baseline}' have none of the scores {', '.join(_RIGHT)}, {_RANKED_BY}",
                where="--answers",
                hint=f"hpcft evaluate {self.baseline}",
            )
        own = [row.scores[judge] for row in self.rows[self.baseline]]
        order = range(len(own))
        if judge in _RIGHT:
            right, wrong = [i for i in order if own[i] == 1], [i for i in order if own[i] != 1]
            chosen = [(i, True) for i in right[:count]] + [(i, False) for i in wrong[:count]]
        else:
            ranked = sorted(order, key=lambda i: -own[i])
            best = ranked[: min(count, (len(ranked) + 1) // 2)]
            chosen = [(i, True) for i in best] + [(i, False) for i in ranked[len(best) :][-count:]]
        return [self._answers(i, right, own[i]) for i, right in chosen]

    def _answers(self, i: int, right: bool, score: float) -> Answers:
        row = self.rows[self.baseline][i]
        said = {name: rows[i].prediction for name, rows in self.rows.items()}
        return Answers(right, score, row.input, row.context, row.references, said)


_Key = tuple[str, str, tuple[str, ...], int]


@dataclass(frozen=True)
class _Evaluated:
    """What is read of one run."""

    run: Run
    results: dict[str, Any]
    rows: dict[_Key, Row]

    @property
    def digest(self) -> str | None:
        data = self.results.get("data")
        found = data.get("sha256") if isinstance(data, dict) else None
        return found if isinstance(found, str) else None


def compare(
    runs: Sequence[Run], *, shared_inputs: bool = False, answer_format: re.Pattern[str] | None = None
) -> Comparison:
    """Compare finished runs on the validation inputs that they answered.

    Args:
        runs: two or more, the baseline first.
        shared_inputs: compare on the inputs that all runs answered, where they did not answer the same ones. The
            scores are then taken anew over these.
        answer_format: what a whole answer should look like; the share of answers that do is one more score.

    Raises:
        UsageError: fewer than two runs, one that has not finished or was not evaluated, or different inputs.
        DataError: a file of a run is damaged.
    """
    if len(runs) < 2:
        raise UsageError("there is nothing to compare with", hint="name two runs or more")
    named = dict(zip(_names(runs), (_read(run) for run in runs), strict=True))
    first, *others = named.values()
    keys = [key for key in first.rows if all(key in other.rows for other in others)]
    whole = (
        all(len(e.rows) == len(keys) for e in named.values()) and len({e.digest for e in named.values()} - {None}) < 2
    )
    if not whole and not (shared_inputs and keys):
        raise _differ(named, len(keys))
    rows = {name: [e.rows[key] for key in keys] for name, e in named.items()}
    notes = []
    if not whole:
        notes.append(f"compared on the {len(keys)} inputs that all runs answered; the scores are taken over these")
    scores = _scores(named, rows, whole, notes)
    if answer_format is not None:
        kept = {
            n: [float(bool(answer_format.fullmatch(row.prediction.strip()))) for row in own] for n, own in rows.items()
        }
        scores[FORMAT] = _of_means(kept)
        _against_first(scores[FORMAT])
    return Comparison(
        names=list(named),
        inputs=len(keys),
        scores=scores,
        costs=_costs(named, notes),
        words={name: sum(len(row.prediction.split()) for row in own) / len(own) for name, own in rows.items()},
        notes=notes,
        rows=rows,
        judged_by=next((s for s in (*_RIGHT, _RANKED_BY) if all(s in r.scores for r in rows[next(iter(named))])), None),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    count = Counter(run.name for run in runs)
    return [run.name if count[run.name] == 1 else str(run.paths.root) for run in runs]


def _differ(named: dict[str, _Evaluated], shared: int) -> UsageError:
    told = "; ".join(f"{name} {len(e.rows)} inputs, digest {(e.digest or 'unknown')[:12]}" for name, e in named.items())
    more = "--shared-inputs compares on these" if shared else "there is nothing to compare"
    return UsageError(
        f"the runs answered different inputs, or the same ones with other references: {told}; {shared} are shared",
        hint=f"{more}; hpcft evaluate RUN --dataset FILE scores a run on another set",
    )


def _read(run: Run) -> _Evaluated:
    if run.end is None:
        raise UsageError(f"the run '{run.name}' has not finished", hint=f"hpcft show {run.name}")
    results = read_json(run.paths.evaluation)
    if not isinstance(results, dict) or not run.paths.predictions.is_file():
        raise UsageError(f"the run '{run.name}' has no scored answers", hint=f"hpcft evaluate {run.name}")
    rows: dict[_Key, Row] = {}
    seen: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    lines = run.paths.predictions.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        row = _row(line, f"{run.paths.predictions}:{number}")
        what = (row.input, row.context, row.references)
        # Rows that look alike are told apart by their order.
        rows[*what, seen[what]] = row
        seen[what] += 1
    if not rows:
        raise DataError("holds no answers", where=str(run.paths.predictions))
    return _Evaluated(run, results, rows)


def _row(line: bytes, where: str) -> Row:
    try:
        raw = json.loads(line)
        return Row(
            input=str(raw["input"]),
            context=str(raw.get("context", "")),
            references=tuple(map(str, raw["references"])),
            prediction=str(raw["prediction"]),
            scores={str(k): float(v) for k, v in raw.get("scores", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is no answer with its input and references: {error!r}", where=where) from error


def _scores(
    named: dict[str, _Evaluated], rows: dict[str, list[Row]], whole: bool, notes: list[str]
) -> dict[str, dict[str, Figure]]:
    found: dict[str, dict[str, Figure]] = {}
    numbers = {name: {k for k, v in e.results.items() if _is_number(v)} - _NO_SCORES for name, e in named.items()}
    everywhere = set.intersection(*numbers.values())
    if "em" in everywhere:
        # The same figure by another name.
        everywhere.discard("accuracy")
    if lacking := sorted(set.union(*numbers.values()) - everywhere - {"accuracy"}):
        notes.append(f"left out, since not every run has it: {', '.join(lacking)}")
    untested, unmeasured = [], []
    for score in (k for k in next(iter(named.values())).results if k in everywhere):
        is_mean = all(score in row.scores for own in rows.values() for row in own)
        if not whole and not is_mean and score != "bleu":
            unmeasured.append(score)
            continue
        if is_mean:
            found[score] = _of_means({name: [row.scores[score] for row in own] for name, own in rows.items()})
        elif score == "bleu":
            found[score] = _of_bleu(rows, notes)
        else:
            untested.append(score)
            found[score] = {name: Figure(float(e.results[score])) for name, e in named.items()}
        if whole:
            for name, figure in found[score].items():
                _as_told(figure, score, named[name].results)
        _against_first(found[score])
    if unlike := _scored_unlike(named):
        notes.append(f"the runs were not scored alike: {', '.join(unlike)} differ")
    if untested:
        notes.append(f"no p-value of {', '.join(untested)}: no mean over the inputs that a paired test could take")
    if unmeasured:
        notes.append(f"left out, since it cannot be taken over the shared inputs alone: {', '.join(unmeasured)}")
    return found


def _scored_unlike(named: dict[str, _Evaluated]) -> list[str]:
    """What of the way of scoring differs: a library's version, METEOR with synonyms or without."""
    ways = [e.results.get("provenance") or {} for e in named.values()]
    ways = [{k: v for k, v in way.items() if k not in _NO_WAY} for way in ways]
    return sorted(k for k in set().union(*ways) if any(way.get(k) != ways[0].get(k) for way in ways))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _of_means(values: dict[str, list[float]]) -> dict[str, Figure]:
    base, *_ = values.values()
    figures = {}
    for name, own in values.items():
        figures[name] = Figure(sum(own) / len(own), mean_interval(own, _RESAMPLES, 0))
        if own is not base:
            figures[name].p = paired_p(own, base)
    return figures


def _of_bleu(rows: dict[str, list[Row]], notes: list[str]) -> dict[str, Figure]:
    from sacrebleu.metrics import BLEU

    base, *_ = rows.values()
    references = [row.references for row in base]
    figures = {}
    few = []
    for name, own in rows.items():
        said = [row.prediction for row in own]
        value = min(1.0, BLEU().corpus_score(said, reference_streams(references)).score / 100)
        figures[name] = Figure(value, bleu_interval(said, references, _RESAMPLES))
        if own is not base:
            figures[name].p = bleu_p([row.prediction for row in base], said, references)
            if figures[name].p is None:
                few.append(name)
    if few:
        notes.append(f"no p-value of bleu for {', '.join(few)}: too few answers differ for sacrebleu's paired test")
    return figures


def _as_told(figure: Figure, score: str, results: dict[str, Any]) -> None:
    """Over the same inputs, a run's own figures stand, as they do in its files."""
    figure.value = float(results[score])
    told = results.get("intervals", {}).get(score)
    if isinstance(told, list) and len(told) == 2 and all(map(_is_number, told)):
        figure.interval = (float(told[0]), float(told[1]))


def _against_first(figures: dict[str, Figure]) -> None:
    base, *others = figures.values()
    for figure in others:
        figure.difference = figure.value - base.value
    tested = {name: figure.p for name, figure in figures.items() if figure.p is not None}
    if len(others) > 1:
        for name, p in holm(tested).items():
            figures[name].p_holm = p


def _costs(named: dict[str, _Evaluated], notes: list[str]) -> dict[str, dict[str, float]]:
    metrics = {name: e.run.metrics for name, e in named.items()}
    costs = {
        key: {name: float(m[key]) for name, m in metrics.items()}
        for key in COSTS
        if all(_is_number(m.get(key)) for m in metrics.values())
    }
    machines = {point.hardware for e in named.values() if (point := point_of(e.run)) is not None} - {None}
    if len(machines) > 1:
        notes.append("latency and memory were measured on different machines")
    return costs

"""How far a student is from its teacher: laziness, its bar and band, comments, topics, trend and advice."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Literal

_TEXT_SHARE, _KL_SHARE = 60.0, 40.0
# Nats a token at which the distributions count as wholly different.
_FULL_KL = 5.0
_BAR = 30
_GOOD, _LAZY = 30.0, 60.0
_TIER_LAZINESS, _TIER_LOSS = (20.0, 40.0, 60.0), (0.5, 1.0, 2.0)
_STRONG = 10.0


def similarity(student: str, teacher: str) -> float:
    """How alike two texts are, from 0 to 1: the ratio of `difflib.SequenceMatcher`."""
    # From 200 characters on it would leave frequent ones out.
    return SequenceMatcher(None, student, teacher, autojunk=False).ratio()


def laziness(alike: float, kl: float) -> float:
    """The laziness of a student, in percent: 60 for a text that has nothing of the teacher's, and 40 for distributions
    that are far from the teacher's.

    Args:
        alike: the texts' `similarity`.
        kl: divergence of the student's distribution from the teacher's, both at the temperature of the training, in
            nats, mean over the tokens that are no padding. What is no number counts as far.
    """
    far = min(max(kl, 0.0) / _FULL_KL, 1.0) if math.isfinite(kl) else 1.0
    return (1.0 - alike) * _TEXT_SHARE + far * _KL_SHARE


def bar(percent: float) -> str:
    """30 cells, filled from the left, of which a part counts as none.

    >>> bar(52.37).count("█"), bar(28.91).count("█"), len(bar(0))
    (15, 8, 30)
    """
    filled = min(_BAR, max(0, math.floor(_BAR * percent / 100)))
    return "█" * filled + "░" * (_BAR - filled)


def icon(percent: float) -> str:
    """The sign of a laziness: green below 30, yellow below 60, else red."""
    return "🟢" if percent < _GOOD else "🟡" if percent < _LAZY else "🔴"


def tier(percent: float, loss: float) -> int:
    """The tier of a comment, 0 the best and 3 the worst: the worse one of those by laziness and by loss."""
    return max(_place(percent, _TIER_LAZINESS), _place(loss, _TIER_LOSS))


def _place(value: float, bounds: Sequence[float]) -> int:
    # What is no number is below no bound.
    return next((i for i, bound in enumerate(bounds) if value < bound), len(bounds))


def find_topic(text: str, keywords: Mapping[str, Sequence[str]], otherwise: str) -> str:
    """The topic that most words of are in a text; of several, the first one.

    Args:
        keywords: topic → words, whose case does not matter. One of ASCII letters counts as a whole word, so that "AI"
            is not in "email".
        otherwise: the topic of a text that has none of the words.
    """
    counts = {topic: sum(_has(text, word) for word in words) for topic, words in keywords.items()}
    most = max(counts.values(), default=0)
    return next(topic for topic, count in counts.items() if count == most) if most else otherwise


def _has(text: str, word: str) -> bool:
    if not word.isascii():
        return word.casefold() in text.casefold()
    # ASCII on both sides: a Chinese character beside a word is no letter of it.
    return (
        bool(word)
        and re.search(rf"(?<![0-9A-Za-z_]){re.escape(word)}(?![0-9A-Za-z_])", text, re.IGNORECASE) is not None
    )


def improvement(means: Sequence[float]) -> float | None:
    """By how many points of laziness the last epoch is better than the first; None before the second."""
    return means[0] - means[-1] if len(means) > 1 else None


def trend(points: float) -> Literal["trend_strong", "trend_steady", "trend_none"]:
    """The text of an improvement."""
    return "trend_strong" if points > _STRONG else "trend_steady" if points > 0 else "trend_none"


def advice(percent: float) -> Literal["advice_excellent", "advice_good", "advice_poor"]:
    """The text of a laziness over all epochs; its bounds are those of the bands."""
    return "advice_excellent" if percent < _GOOD else "advice_good" if percent < _LAZY else "advice_poor"


_PIECES = re.compile(r"\s+|[0-9A-Za-z_]+|.", re.DOTALL)


def difference(student: str, teacher: str) -> str:
    """What is different in a student's text, word by word: `[-in the teacher's alone-]`, `{+in the student's
    alone+}`; empty where the two are the same."""
    if student == teacher:
        return ""
    before, after = _PIECES.findall(teacher), _PIECES.findall(student)
    told = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        lost, new = "".join(before[a:b]), "".join(after[c:d])
        if kind == "equal":
            told.append(lost)
            continue
        told.append((f"[-{lost}-]" if lost else "") + (f"{{+{new}+}}" if new else ""))
    return "".join(told)

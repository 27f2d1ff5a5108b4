"""Rows that are nearly the same, in one set or between two: MinHash over character 5-grams, then their true Jaccard
similarity (Broder, On the resemblance and containment of documents, 1997), so no pair is told that is not near."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

_GRAM = 5
_PERMUTATIONS = 64
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Near:
    """Two rows whose inputs are nearly the same.

    Attributes:
        first, second: their places in the lists that were compared.
        similarity: Jaccard's, of their sets of character 5-grams.
    """

    first: int
    second: int
    similarity: float


def grams(text: str) -> frozenset[str]:
    """The character 5-grams of a text's words, without case and punctuation; of a shorter one the text itself."""
    plain = " ".join(_WORDS.findall(text.lower()))
    return frozenset(plain[i : i + _GRAM] for i in range(max(1, len(plain) - _GRAM + 1)))


def near_pairs(texts: Sequence[str], threshold: float) -> list[Near]:
    """Each text with the nearest earlier one, where that is near enough; equal texts are no such pair.

    Args:
        texts: what is compared.
        threshold: the least similarity.
    """
    return list(_pairs(texts, texts, threshold, same=True))


def near_between(first: Sequence[str], second: Sequence[str], threshold: float) -> list[Near]:
    """Each text of the second list with the nearest one of the first, where that is near enough and not equal."""
    return list(_pairs(first, second, threshold, same=False))


def _pairs(first: Sequence[str], second: Sequence[str], threshold: float, *, same: bool) -> Iterator[Near]:
    index, sketches = _index(threshold), _Sketches()
    sets = [grams(text) for text in first]
    if not same:
        for number, each in enumerate(sets):
            index.insert(number, sketches.of(each))
    for number, text in enumerate(second):
        own = sets[number] if same else grams(text)
        sketch = sketches.of(own)
        found = [(_jaccard(sets[i], own), -i) for i in index.query(sketch) if first[i] != text]
        if found and (best := max(found))[0] >= threshold:
            yield Near(-best[1], number, best[0])
        if same:
            index.insert(number, sketch)


class _Sketches:
    """Sketches with the same permutations, made once for equal sets."""

    def __init__(self) -> None:
        from datasketch import MinHash

        self._new = MinHash(num_perm=_PERMUTATIONS, seed=1)
        self._known: dict[frozenset[str], MinHash] = {}

    def of(self, texts: frozenset[str]) -> MinHash:
        if texts not in self._known:
            sketch = self._new.copy()
            sketch.update_batch([text.encode("utf-8", "surrogatepass") for text in texts])
            self._known[texts] = sketch
        return self._known[texts]


def _index(threshold: float) -> MinHashLSH:
    from datasketch import MinHashLSH

    # A pair that is looked at in vain costs little, one that is missed is not found again.
    return MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)

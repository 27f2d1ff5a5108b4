"""What a comparison needs of each run beside its figures, kept in the index until the run changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcft.runs.index.query import Index
from hpcft.runs.index.store import writer


class Kept(NamedTuple):
    """What was found once of a run.

    Attributes:
        place, kind, parent: where it is, the kind of its job, and where the run is that it works on.
        variant, dataset, hardware, seed: of its point; no variant: it has no figures.
        odd: JSON of the figures that the index does not have as they are: words for what is no number; all of a run
            without its end marker, or whose file SQLite does not take for JSON.
        trouble: what is wrong with its files.
    """

    place: str
    kind: str
    parent: str | None
    variant: str | None = None
    dataset: str | None = None
    hardware: str | None = None
    seed: int | None = None
    odd: str | None = None
    trouble: str | None = None


class Found(NamedTuple):
    """A run of the results folder itself: its name, what is kept of it, and figures in the order of the keys."""

    name: str
    kept: Kept
    figures: tuple[float | None, ...]


def kept_runs(index: Index, keys: Sequence[str], read: Callable[[Path, bool], Kept]) -> list[Found]:
    """The runs that stand in the results folder itself, by name; those that are met first are read, and kept.

    Args:
        keys: of the figures.
        read: what is kept of a run, by its directory and whether the index has its numbers.
    """
    values = "".join(f", f{i}.value" for i in range(len(keys)))
    joins = "".join(
        f" LEFT JOIN facts AS f{i} ON f{i}.key = ?{i + 1} AND f{i}.run = runs.id AND runs.done"
        for i in range(len(keys))
    )
    columns = ", ".join(f"kept.{name}" for name in Kept._fields)
    rows = index.ask(
        f"SELECT runs.id, runs.folder_ns, runs.name, {columns}{values} "  # noqa: S608 (values are bound)
        f"FROM runs LEFT JOIN kept ON kept.run = runs.id{joins} WHERE +runs.grp IS NULL ORDER BY runs.root",
        [index.number(key) for key in keys],
    )
    first, last = 3, 3 + len(Kept._fields)
    new: dict[int, tuple[int, Kept]] = {}
    for number, changed_ns, name, place, *_ in rows:
        if place is None:
            (known,) = index.ask(
                "SELECT metrics IS NOT NULL FROM told JOIN runs ON id = run WHERE id = ? AND done", [number]
            )[:1] or [(0,)]
            new[number] = changed_ns, read(index.results / name, bool(known[0]))
    if new:
        with writer(index.path) as store:
            if store is not None:
                # Not of a run that has changed meanwhile: the next scan sees a later change than this one.
                marks = ", ".join(f"?{i + 3}" for i in range(len(Kept._fields)))
                store.executemany(
                    f"INSERT OR REPLACE INTO kept SELECT id, {marks} FROM runs WHERE id = ?1 AND folder_ns = ?2",  # noqa: S608
                    [(number, changed_ns, *kept) for number, (changed_ns, kept) in new.items()],
                )
    own = {number: kept for number, (_, kept) in new.items()}
    return [Found(row[2], own.get(row[0]) or Kept._make(row[first:last]), row[last:]) for row in rows]

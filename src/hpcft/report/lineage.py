"""Which runs are about one model: what made it, what measured it, and what it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpcft.errors import HpcftError
from hpcft.runs.record import job_of
from hpcft.runs.run import Run
from hpcft.spec.kinds import ABOUT_RUNS

# Every other kind of job makes a model.
_MEASURING = ("bench", "evaluate")


@dataclass(frozen=True)
class Lineage:
    """The runs about one model: one row of a comparison.

    Attributes:
        name: of the first of its runs that was asked for; unique in a comparison.
        runs: what made the model, then its benchmark, then its evaluation: those that exist.
        before: what the model was made from, nearest first.
    """

    name: str
    runs: tuple[Run, ...]
    before: tuple[Run, ...] = ()


class Link(NamedTuple):
    """A run and the one that it works on.

    Attributes:
        place: its directory, without symbolic links.
        name, root: of its directory, as it was asked for.
        kind: of its job; empty where its config cannot be read.
        parent: the place of the run that it works on.
    """

    place: str
    name: str
    root: str
    kind: str
    parent: str | None


class Row(NamedTuple):
    """The links of a `Lineage`."""

    name: str
    runs: tuple[Link, ...]
    before: tuple[Link, ...]


def link_of(run: Run) -> Link:
    """The link of a run, by what its job says."""
    job = _job(run)
    root = str(run.paths.root)
    return Link(os.path.realpath(root), run.name, root, str(job.get("kind") or ""), _parent(root, job))


def _parent(root: str, job: Mapping[str, Any]) -> str | None:
    of = job.get("of")
    if not of:
        return None
    path, results = Path(str(of)), Path(str(job.get("results") or ""))
    if path.is_absolute() and path.is_relative_to(results):
        # A results folder may have been copied elsewhere since.
        path = Path(root).parent / path.relative_to(results)
    return os.path.realpath(path)


def kind_of(run: Run) -> str:
    """The kind of job that a run is of; empty where its config cannot be read."""
    return str(_job(run).get("kind") or "")


def _job(run: Run) -> Mapping[str, Any]:
    try:
        return job_of(run)
    except HpcftError:
        # Its point says what is wrong with it.
        return {}


def lineages(runs: Iterable[Run]) -> list[Lineage]:
    """Put the runs about one model together, by the run that each one's config says it works on.

    That one belongs to it whether it was asked for or not, as long as it is there. Two jobs of one kind about one
    model, such as benchmarks on two machines, stay apart. Reports are about no model.

    Args:
        runs: in the order of the rows; one that is given twice counts once.
    """
    known: dict[str, Run] = {}
    links: list[Link] = []
    for run in runs:
        links.append(link := link_of(run))
        known[link.place] = run

    def find(place: str) -> Link | None:
        run = run_at(place)
        if run is not None:
            known[place] = run
        return None if run is None else link_of(run)

    return [
        Lineage(row.name, tuple(known[a.place] for a in row.runs), tuple(known[a.place] for a in row.before))
        for row in join(links, find)
    ]


def run_at(place: str) -> Run | None:
    """The run whose directory that is, if it is there."""
    return Run(Path(place)) if os.path.isfile(f"{place}/config.yaml") else None  # noqa: PTH113 (no to a too long name)


def join(links: Iterable[Link], find: Callable[[str], Link | None]) -> list[Row]:
    """The rows that the links of runs make; as `lineages`.

    Args:
        links: of the runs that were asked for.
        find: the link of another run, by its place.
    """
    asked = {link.place: link for link in links}
    known: dict[str, Link | None] = dict(asked)
    chains: dict[str, list[list[Link]]] = {}
    for link in asked.values():
        if link.kind not in ABOUT_RUNS:
            chain = [link] if link.parent is None else _chain(link, known, find)
            maker = chain[_maker(chain)] if len(chain) > 1 else link
            chains.setdefault(maker.place, []).append(chain)
    found: dict[str, Row] = {}
    for of_one in chains.values():
        if len(of_one) == 1 and len(of_one[0]) == 1:
            # As most are.
            (link,) = of_one[0]
            name = link.name if link.name not in found else link.root
            found[name] = Row(name, (link,), ())
            continue
        start = _maker(of_one[0])
        seen: set[str] = set()
        for row in _rows([chain[start:] for chain in of_one]):
            first = next(link for link in row if link.place in asked and link.place not in seen)
            seen |= {link.place for link in row}
            name = first.name if first.name not in found else first.root
            ordered = sorted(row, key=lambda link: _MEASURING.index(link.kind) if link.kind in _MEASURING else -1)
            found[name] = Row(name, tuple(ordered), tuple(reversed(of_one[0][:start])))
    return list(found.values())


def _chain(link: Link, known: dict[str, Link | None], find: Callable[[str], Link | None]) -> list[Link]:
    """The run, what it works on, what that works on, and so on: the oldest first."""
    chain = [link]
    while (place := chain[0].parent) is not None:
        if place not in known:
            known[place] = find(place)
        parent = known[place]
        if parent is None or parent in chain:
            break
        chain.insert(0, parent)
    return chain


def _maker(chain: list[Link]) -> int:
    return max((i for i, link in enumerate(chain) if link.kind not in _MEASURING), default=0)


def _rows(chains: list[list[Link]]) -> list[list[Link]]:
    """Chains from one maker, together where no kind of job would stand twice."""
    rows: list[list[Link]] = []
    for chain in sorted(chains, key=len, reverse=True):
        for row in rows:
            new = [link for link in chain if link not in row]
            if {link.kind for link in new}.isdisjoint(link.kind for link in row):
                row += new
                break
        else:
            rows.append(list(chain))
    return rows

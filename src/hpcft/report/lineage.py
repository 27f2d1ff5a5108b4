"""Which runs are about one model: what made it, what measured it, and what it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import HpcftError
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


def kind_of(run: Run) -> str:
    """The kind of job that a run is of; empty where its config cannot be read."""
    return str(_configured(run, "kind") or "")


def lineages(runs: Iterable[Run]) -> list[Lineage]:
    """Put the runs about one model together, by the run that each one's config says it works on.

    That one belongs to it whether it was asked for or not, as long as it is there. Two jobs of one kind about one
    model, such as benchmarks on two machines, stay apart. Reports are about no model.

    Args:
        runs: in the order of the rows; one that is given twice counts once.
    """
    asked = {_place(run): run for run in runs}
    known: dict[Path, Run | None] = dict(asked)
    chains: dict[Path, list[list[Run]]] = {}
    for run in asked.values():
        if kind_of(run) not in ABOUT_RUNS:
            chain = _chain(run, known)
            chains.setdefault(_place(chain[_maker(chain)]), []).append(chain)
    found: dict[str, Lineage] = {}
    for of_one in chains.values():
        maker = _maker(of_one[0])
        seen: set[Path] = set()
        for row in _rows([chain[maker:] for chain in of_one]):
            first = next(run for run in row if _place(run) in asked.keys() - seen)
            seen |= {_place(run) for run in row}
            name = first.name if first.name not in found else str(first.paths.root)
            ordered = sorted(row, key=lambda run: _MEASURING.index(k) if (k := kind_of(run)) in _MEASURING else -1)
            found[name] = Lineage(name, tuple(ordered), tuple(reversed(of_one[0][:maker])))
    return list(found.values())


def _place(run: Run) -> Path:
    return run.paths.root.resolve()


def _chain(run: Run, known: dict[Path, Run | None]) -> list[Run]:
    """The run, what it works on, what that works on, and so on: the oldest first."""
    chain = [run]
    while (parent := _parent(chain[0], known)) is not None and parent not in chain:
        chain.insert(0, parent)
    return chain


def _maker(chain: list[Run]) -> int:
    return max((i for i, run in enumerate(chain) if kind_of(run) not in _MEASURING), default=0)


def _parent(run: Run, known: dict[Path, Run | None]) -> Run | None:
    of = _configured(run, "of")
    if not of:
        return None
    path = Path(str(of))
    results = Path(str(_configured(run, "results") or ""))
    if path.is_absolute() and path.is_relative_to(results):
        # A results folder may have been copied elsewhere since.
        path = run.paths.root.parent / path.relative_to(results)
    path = path.resolve()
    if path not in known:
        known[path] = Run(path) if (path / "config.yaml").is_file() else None
    return known[path]


def _rows(chains: list[list[Run]]) -> list[list[Run]]:
    """Chains from one maker, together where no kind of job would stand twice."""
    rows: list[list[Run]] = []
    for chain in sorted(chains, key=len, reverse=True):
        for row in rows:
            new = [run for run in chain if run not in row]
            if {kind_of(run) for run in new}.isdisjoint(kind_of(run) for run in row):
                row += new
                break
        else:
            rows.append(list(chain))
    return rows


def _configured(run: Run, key: str) -> object:
    try:
        return run.config.get(key)
    except HpcftError:
        # Its point says what is wrong with it.
        return None

"""The search of a sweep: which values to try next, and which trials are not worth going on with. Optuna's, whose
journal in one file is the record, so that a search goes on where it was."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hpcft.runs.sweep import SweepFolder, Trial
from hpcft.spec.sweep import EarlyEnd, Parameter

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner


class Search:
    """The search of one sweep. A trial's number is the same here, in Optuna's record and in the manifest.

    Args:
        sweep: its folder.
    """

    def __init__(self, sweep: SweepFolder) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(logging.WARNING)
        settings, spec = sweep.settings, sweep.settings.spec or {}
        self._sweep = sweep
        self._parameters = [_parameter(raw) for raw in spec.get("parameters", ())]
        early = spec.get("early_end")
        self._study: Study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(sweep.paths.study))),
            study_name=sweep.settings.id,
            direction=optuna.study.StudyDirection[settings.goal.upper()],
            pruner=_pruner(EarlyEnd(**early) if early else None),
            load_if_exists=True,
        )
        # A sampler that starts anew with the same seed would propose the first trials again.
        self._study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(self._study.trials))

    @property
    def open(self) -> list[int]:
        """Numbers of the trials that have been proposed and have not ended."""
        return [t.number for t in self._study.get_trials(deepcopy=False) if not t.state.is_finished()]

    def recover(self) -> None:
        """Bring trials into the manifest that were proposed when the controller was killed."""
        known = {trial.number for trial in self._sweep.trials()}
        lost = [t for t in self._study.get_trials(deepcopy=False) if t.number not in known]
        if lost:
            self._sweep.append([Trial(t.number, self._overrides(t.params)) for t in lost])

    def propose(self, count: int) -> list[Trial]:
        """The next trials, written to the manifest; fewer where the sweep has no more."""
        count = min(count, self._sweep.settings.trials - len(self._study.get_trials(deepcopy=False)))
        if self._sweep.settings.method != "bayes":
            known = {trial.number: trial for trial in self._sweep.trials()}
            return [known[self._study.ask().number] for _ in range(max(0, count))]
        space = {p.key: _distribution(p) for p in self._parameters}
        found = []
        for _ in range(max(0, count)):
            asked = self._study.ask(space)
            found.append(Trial(asked.number, self._overrides(asked.params)))
        if found:
            self._sweep.append(found)
        return found

    def is_worth(self, number: int, values: list[tuple[int, float]]) -> bool:
        """Tell the values of a running trial, (1, 2, 3 …, value), and learn whether it should go on."""
        import optuna

        trial = optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        worth = True
        for step, value in values:
            if step not in known:
                trial.report(value, step)
                worth = worth and not trial.should_prune()
        return worth

    def end(self, number: int, value: float | None, *, pruned: bool) -> None:
        """Tell how a trial ended; without a value it failed."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.COMPLETE if value is not None else TrialState.FAIL
        values = value if state is TrialState.COMPLETE else None
        self._study.tell(number, values, state=state, skip_if_finished=True)

    def _overrides(self, params: dict[str, Any]) -> dict[str, Any]:
        return {p.key: params[p.key] for p in self._parameters if p.key in params}


def _parameter(raw: dict[str, Any]) -> Parameter:
    lists = {name: tuple(raw[name]) for name in ("values", "probabilities")}
    numbers = tuple((str(name), float(value)) for name, value in raw["numbers"])
    return Parameter(**{**raw, **lists, "numbers": numbers})


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.values:
        return CategoricalDistribution(parameter.values)
    low, high = parameter.bounds
    if parameter.distribution == "int_uniform":
        return IntDistribution(int(low), int(high))
    if parameter.distribution == "q_uniform":
        step = parameter.number("q", 1.0)
        return FloatDistribution(low, low + (high - low) // step * step, step=step)
    return FloatDistribution(low, high, log="log" in parameter.distribution)


def _pruner(early: EarlyEnd | None) -> BasePruner:
    from optuna.pruners import NopPruner, SuccessiveHalvingPruner

    if early is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=early.first, reduction_factor=early.eta)

"""The sensitivity study from Python: set up an experiment, run it here, look at its gradient norms.

    config = ExperimentConfig()
    config.data.dataset_type = DatasetType.E2E_NLG
    config.lora.target_module_group = TargetModuleGroup.MLP_ONLY
    config.training.max_steps = 50
    config.experiment_name = "mlp"
    results = run_single_experiment(config)
    print(results["summary"]["mlp"]["mean"])

An experiment is a job: `hpcft sensitivity` submits the same one.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

from hpcft.errors import ConfigError, DataError
from hpcft.report.sensitivity import generate_summary_report
from hpcft.runs.files import read_json
from hpcft.runs.gradients import GradientLog, gradients_of, load_gradient_log_from_csv, write_gradients
from hpcft.spec.keys import SHORT_NAMES, fields, sections
from hpcft.spec.layers import unknown_key
from hpcft.viz.gradients import (
    plot_gradient_evolution,
    plot_gradient_norms,
    plot_layer_comparison,
    plot_layer_heatmap,
)
from hpcft.viz.gradients_3d import plot_gradients_3d

__all__ = [
    "DatasetType",
    "ExperimentConfig",
    "GradientLog",
    "TargetModuleGroup",
    "generate_summary_report",
    "load_gradient_log_from_csv",
    "plot_gradient_evolution",
    "plot_gradient_norms",
    "plot_gradients_3d",
    "plot_layer_comparison",
    "plot_layer_heatmap",
    "run_single_experiment",
    "write_gradients",
]

_OWN_NAMES = {"data.dataset_type": "data.dataset", "experiment_name": "name"}


class DatasetType(StrEnum):
    """The data sets that are known by name; any other is named by its hub id or path."""

    E2E_NLG = "e2e_nlg"
    SAMSUM = "samsum"
    QUICKSTART = "quickstart"


class TargetModuleGroup(StrEnum):
    """The modules that get an adapter."""

    ATTENTION_ONLY = "attention_only"
    MLP_ONLY = "mlp_only"
    BOTH = "both"
    ALL = "all"


class Section:
    """Keys of a job as attributes: one that was not set reads as its default, and one that does not exist is an error.

    Keys that have a short name as an option may be called by it: `training.batch_size`.
    """

    _values: dict[str, Any]
    _prefix: str

    def __init__(self, values: dict[str, Any], prefix: str) -> None:
        self.__dict__.update(_values=values, _prefix=prefix)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Python itself asks for these, when it copies or prints.
            raise AttributeError(name)
        key = self._key(name)
        return self._values.get(key, fields()[key].get_default(call_default_factory=True))

    def __setattr__(self, name: str, value: Any) -> None:
        plain = value.value if isinstance(value, Enum) else str(value) if isinstance(value, Path) else value
        self._values[self._key(name)] = plain

    def __dir__(self) -> list[str]:
        keys = {key.removeprefix(self._prefix).partition(".")[0] for key in fields() if key.startswith(self._prefix)}
        return sorted(keys | {name.removeprefix(self._prefix) for name in _OWN_NAMES if name.startswith(self._prefix)})

    def _key(self, name: str) -> str:
        typed = f"{self._prefix}{name}"
        key = _OWN_NAMES.get(typed, typed)
        if key not in fields():
            key = SHORT_NAMES.get(name, key)
        if key not in fields() or not key.startswith(self._prefix):
            raise ConfigError(unknown_key(typed), where=f"ExperimentConfig.{typed}")
        return key


class ExperimentConfig(Section):
    """A job to set up: its keys as attributes, those of a section behind the section's name.

    Attributes:
        experiment_name: of the run directory; made up when it is not set.
        data, lora, training, …: the job's sections. `data.dataset_type` takes a `DatasetType`, a hub id or a path,
            `lora.target_module_group` a `TargetModuleGroup`.
    """

    def __init__(self, **keys: Any) -> None:
        super().__init__({}, "")
        self.__dict__.update({name: Section(self._values, f"{name}.") for name in sections()})
        for name, value in keys.items():
            setattr(self, name, value)

    def values(self) -> dict[str, Any]:
        """The keys that were set."""
        return dict(self._values)


def run_single_experiment(config: ExperimentConfig) -> dict[str, Any]:
    """Run an experiment here, to its end, with its gradient norms measured; inside salloc, on the whole allocation.

    What was not set comes from where `hpcft run` takes it: configuration files, the environment, defaults.

    Returns:
        `config` (every key of the job with its value), `output_dir` (the run directory), `gradient_log`, `summary` (its
        statistics, by group) and `evaluation` (the scores; None when evaluation is switched off).

    Raises:
        HpcftError: the job cannot be run as it is, or failed; with the reason.
    """
    from hpcft.cli.job_options import Request
    from hpcft.cli.launch import wait
    from hpcft.cli.run import start_here
    from hpcft.cli.sensitivity import measured_plan
    from hpcft.cluster.steer import stop_process
    from hpcft.runs.record import read_record
    from hpcft.spec.build import build, flat
    from hpcft.spec.layers import yaml_layer

    options = {key: (value, f"ExperimentConfig.{key}") for key, value in config.values().items()}
    launched = start_here(Request(options=options), measured_plan)
    run = launched.run
    try:
        wait(launched, quiet=True)
    except KeyboardInterrupt:
        # It stops after its step with everything saved; `hpcft resume` goes on with it.
        stop_process(read_record(run.paths.root))
        raise
    gradients = gradients_of(run)
    if gradients is None:
        raise DataError("has no gradient norms in its event log", where=str(run.paths.root))
    return {
        "config": flat(build([yaml_layer(run.paths.config)]).job),
        "output_dir": run.paths.root,
        "gradient_log": gradients,
        "summary": gradients.summary(),
        "evaluation": read_json(run.paths.evaluation),
    }

"""The sweeps of the fake wandb server: grids, whose trials it hands out to the real agents one by one."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass
class RemoteSweep:
    """One sweep.

    Attributes:
        config: the file as it was sent.
        project, entity: where it is.
        left: trials that no agent was given yet, each with the values of its parameters.
        given: run id → trial, of those that an agent was given.
    """

    config: dict[str, Any]
    project: str
    entity: str
    left: list[dict[str, Any]] = field(default_factory=list)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)


class SweepAnswers:
    """What the server answers to `wandb sweep` and `wandb agent`."""

    def __init__(self) -> None:
        self.sweeps: dict[str, RemoteSweep] = {}

    def _on_UpsertSweep(self, given: dict[str, Any]) -> dict[str, Any]:
        config = yaml.safe_load(given["config"])
        sweep = RemoteSweep(config, given["projectName"], given["entityName"])
        lists = {key: own["values"] for key, own in config["parameters"].items() if "values" in own}
        sweep.left = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
        name = f"sweep{len(self.sweeps) + 1}"
        self.sweeps[name] = sweep
        project = {"id": "p1", "name": sweep.project, "entity": {"id": "e1", "name": sweep.entity}}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def _on_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:
        sweep = self.sweeps.get(given["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        facts = {"id": given["sweep"], "name": given["sweep"], "method": sweep.config["method"], "state": "RUNNING"}
        return {"project": {"sweep": facts | {"config": yaml.safe_dump(sweep.config), "runs": {"edges": []}}}}

    def _on_CreateAgent(self, given: dict[str, Any]) -> dict[str, Any]:
        # Its id tells its sweep.
        return {"createAgent": {"agent": {"id": given["sweep"]}}}

    def _on_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:
        sweep = self.sweeps[given["id"]]
        commands: list[dict[str, Any]] = []
        if not json.loads(given["runState"]):
            if sweep.left:
                run_id, trial = f"{given['id']}-trial{len(sweep.given) + 1}", sweep.left.pop(0)
                sweep.given[run_id] = trial
                values = {key: {"value": value} for key, value in trial.items()}
                commands = [{"type": "run", "run_id": run_id, "program": sweep.config["program"], "args": values}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

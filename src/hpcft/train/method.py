"""What some PEFT methods learn beside the weights that PEFT saves, carried over a requeue."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from hpcft.spec.job import Job
from hpcft.spec.variants import VARIANTS

_FILE = "method.safetensors"
_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class Method(TrainerCallback):
    """A method's further state.

    Args:
        model: PEFT's.
    """

    # Whether what PEFT saves is another thing than what is trained, and cannot be gone on from.
    replaces_adapter = False

    def __init__(self, model: Any) -> None:
        self.model = model

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Go on from a checkpoint."""


def method_state(job: Job, model: Any) -> Method | None:
    """The further state of the variant's method, or None where it has none. DeepSpeed saves all of it by itself."""
    method = VARIANTS[job.variant].adapter
    if job.zero_stage is not None:
        return None
    if method == "adalora":
        return RankBudget(model)
    return PromptNetwork(model) if method in ("p-tuning", "prefix-tuning") else None


class PromptNetwork(Method):
    """The network that makes a prompt's vectors. PEFT saves the vectors alone, which is enough to answer with."""

    replaces_adapter = True

    def save(self, folder: Path) -> None:
        network = self.model.prompt_encoder["default"].state_dict()
        save_file({name: tensor.contiguous() for name, tensor in network.items()}, folder / _FILE)

    def load(self, folder: Path) -> None:
        self.model.prompt_encoder["default"].load_state_dict(load_file(folder / _FILE))


class RankBudget(Method):
    """AdaLoRA's ranks: given up step by step, by what it has learnt of their importance.

    PEFT would cut the matrices down to the ranks that are left whenever it saves them. A checkpoint needs all of them,
    since a rank that is masked may come back until the schedule's end; so the pattern is kept here, and given to PEFT
    for the moment of a step only. Masked ranks are zero, so the model answers alike.
    """

    _pattern: dict[str, list[bool]] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the schedule: the first ranks for a tenth of the run, then ranks given up, the last ones for its last
        third; shares as in the experiments of Zhang et al. 2023."""
        config, steps = self.model.peft_config["default"], int(state.max_steps)
        config.total_step, config.tinit, config.tfinal = steps, steps // 10, steps // 3

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the weights were changed, and before the gradients are cleared."""
        config = self.model.peft_config["default"]
        config.rank_pattern = self._pattern
        # The Trainer counts the step after this.
        self.model.base_model.update_and_allocate(int(state.global_step) + 1)
        self._pattern, config.rank_pattern = config.rank_pattern, None

    def save(self, folder: Path) -> None:
        allocator = self.model.base_model.rankallocator
        tensors = {
            f"{score}/{name}": tensor.contiguous()
            for score in _SCORES
            for name, tensor in getattr(allocator, score).items()
        }
        # A file without tensors cannot be read again.
        tensors["begun"] = torch.ones(1)
        save_file(tensors, folder / _FILE, metadata={"rank_pattern": json.dumps(self._pattern)})

    def load(self, folder: Path) -> None:
        device = next(self.model.parameters()).device
        found: dict[str, dict[str, torch.Tensor]] = {score: {} for score in _SCORES}
        for key, tensor in load_file(folder / _FILE).items():
            score, mark, name = key.partition("/")
            if mark:
                found[score][name] = tensor.to(device)
        for score, tensors in found.items():
            setattr(self.model.base_model.rankallocator, score, tensors)
        with safe_open(folder / _FILE, framework="pt") as file:
            self._pattern = json.loads((file.metadata() or {}).get("rank_pattern", "null"))

"""LoRA in phases: which of its modules are trained at which step."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from hpcft.models.groups import group_of, layer_of
from hpcft.spec.job import Job, LoraSection
from hpcft.train.recorder import Recorder

# What the first, the second and the third phase train.
_PARTS = {
    "attn->mlp->both": ("attention", "mlp", "both"),
    "both->mlp->attn": ("both", "mlp", "attention"),
    "both->mlp->both": ("both", "mlp", "both"),
    "early->late": ("early layers", "middle layers", "late layers"),
}


def phase_of(step: int, lora: LoraSection) -> int:
    """The phase, 1 to 3, that an optimizer step belongs to; steps count from 1."""
    return 1 + (step > lora.phase1_end) + (step > lora.phase2_end)


def trained_in(part: str, name: str, model_type: str, layers: int) -> bool:
    """Whether a weight is trained while its part of the model is.

    Args:
        part: a name of `_PARTS`.
        name: of the weight. layers: that the model has; each of early, middle and late is a third of them.
    """
    if part.endswith("layers"):
        layer = layer_of(name)
        third = None if layer is None else ("early", "middle", "late")[min(2, 3 * layer // layers)]
        return third is None or part.startswith(third)
    group = group_of(name, model_type)
    return part == "both" or group not in ("attention", "mlp") or group == part


class Phases(TrainerCallback):
    """Trains in each phase the weights that are its own; the others keep their values and their optimizer states.

    Args:
        model: PEFT's. recorder: is told of each phase's first step.
    """

    def __init__(self, job: Job, model: Any, recorder: Recorder | None) -> None:
        self._lora = job.lora
        self._recorder = recorder
        self._weights = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._model_type = str(model.config.model_type)
        self._layers = 1 + max((n for n in (layer_of(name) for name, _ in self._weights) if n is not None), default=0)
        self._phase = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Change what is trained when a phase begins, also after a requeue in the middle of one."""
        step = int(state.global_step) + 1
        phase = phase_of(step, self._lora)
        if phase == self._phase:
            return
        self._phase = phase
        part = _PARTS[self._lora.phase_strategy or ""][phase - 1]
        for name, weight in self._weights:
            weight.requires_grad_(trained_in(part, name, self._model_type, self._layers))
        starts = step == 1 or phase_of(step - 1, self._lora) != phase
        if starts and self._recorder is not None:
            self._recorder.event("phase", step=step, phase=phase, trains=part)


def phases(job: Job, model: Any, recorder: Recorder | None) -> Phases | None:
    """The schedule that a job asks for, or None."""
    return Phases(job, model, recorder) if job.lora.phase_strategy is not None else None

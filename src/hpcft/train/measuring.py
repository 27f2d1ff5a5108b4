"""A trainer that measures the norms of its gradients, where the gradient of a step is whole and not yet clipped."""

from __future__ import annotations

import math
from typing import Any

from hpcft.train.gradients import GradientNorms, clip, watch_engine
from hpcft.train.saving import SavingTrainer


class MeasuringTrainer(SavingTrainer):
    """The trainer with what is needed to measure its gradients.

    Attributes:
        gradients: what they are measured with, or None.
        norms: those of the last step, as `GradientNorms.norms` gives them; empty when it was not measured.
        zero_stage: DeepSpeed's, or None without it.
    """

    gradients: GradientNorms | None = None
    zero_stage: int | None = None

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.norms: dict[str, Any] = {}

    def _due(self) -> bool:
        return self.gradients is not None and self.gradients.due(self.state.global_step + 1)

    def _prepare_for_training(self, *args: Any, **given: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **given)
        if self.gradients is not None and self.zero_stage is not None:
            watch_engine(self.model_wrapped, self.gradients, self._due, replicated=self.zero_stage == 0)
        return prepared

    def _clip_grad_norm(self, model: Any) -> Any:
        total = self._measured(self.args.max_grad_norm)
        return super()._clip_grad_norm(model) if total is None else total

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # Without clipping it is the only place.
        return super()._get_grad_norm(model, self._measured(math.inf) if grad_norm is None else grad_norm)

    def _measured(self, max_norm: float) -> Any:
        """The norm before clipping, when this step is measured and clipped here."""
        if self.gradients is None or self.zero_stage is not None or not self._due():
            return None
        self.accelerator.unscale_gradients()
        return clip(self.gradients, max_norm)

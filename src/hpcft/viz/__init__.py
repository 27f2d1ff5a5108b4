"""Pictures. Drawn without a screen and saved at 300 dpi; one that fails never stops training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcft.viz.adapters import AdapterPart, plot_adapter_structure, plot_task_comparison
from hpcft.viz.inference import plot_inference_benchmark
from hpcft.viz.models import (
    plot_model_sizes,
    plot_parameter_distribution,
    plot_parameter_efficiency,
    plot_peft_comparison,
)
from hpcft.viz.style import PEFT_COLORS, guarded, picture
from hpcft.viz.texts import LANGUAGES, Lang
from hpcft.viz.training import Points, extract_history, history_by_step, plot_training_curves, plot_training_loss

if TYPE_CHECKING:
    from matplotlib import pyplot as plt
else:

    def __getattr__(name: str) -> Any:
        """`plt`, for a notebook that draws on; loaded when asked for, since this package does without."""
        if name != "plt":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from matplotlib import pyplot

        return pyplot


__all__ = [
    "LANGUAGES",
    "PEFT_COLORS",
    "AdapterPart",
    "Lang",
    "Points",
    "extract_history",
    "guarded",
    "history_by_step",
    "picture",
    "plot_adapter_structure",
    "plot_inference_benchmark",
    "plot_model_sizes",
    "plot_parameter_distribution",
    "plot_parameter_efficiency",
    "plot_peft_comparison",
    "plot_task_comparison",
    "plot_training_curves",
    "plot_training_loss",
    "plt",
]

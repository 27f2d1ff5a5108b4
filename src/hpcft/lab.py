"""What a lab notebook needs, in one place: pictures, parameter counts, results of a training, a quick benchmark."""

from hpcft.measure.lab import analyze_training_results, benchmark_inference, get_model_size
from hpcft.models.counts import print_trainable_parameters
from hpcft.viz import (
    PEFT_COLORS,
    extract_history,
    guarded,
    plot_inference_benchmark,
    plot_model_sizes,
    plot_parameter_distribution,
    plot_parameter_efficiency,
    plot_peft_comparison,
    plot_training_curves,
    plot_training_loss,
)

__all__ = [
    "PEFT_COLORS",
    "analyze_training_results",
    "benchmark_inference",
    "extract_history",
    "get_model_size",
    "guarded",
    "plot_inference_benchmark",
    "plot_model_sizes",
    "plot_parameter_distribution",
    "plot_parameter_efficiency",
    "plot_peft_comparison",
    "plot_training_curves",
    "plot_training_loss",
    "print_trainable_parameters",
]

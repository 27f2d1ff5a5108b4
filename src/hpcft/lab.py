"""What a lab notebook needs, in one place: pictures, parameter counts, results of a training, a quick benchmark,
models compared."""

from hpcft.measure.lab import analyze_training_results, benchmark_inference, get_model_size
from hpcft.models.counts import print_trainable_parameters
from hpcft.stages.compare_models import compare_models, print_comparison_table
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
    "compare_models",
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
    "print_comparison_table",
    "print_trainable_parameters",
]

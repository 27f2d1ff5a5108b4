"""What a lab notebook needs, in one place: pictures, parameter counts, results of a training, a quick benchmark,
models opened and compared."""

from hpcft.measure.lab import (
    analyze_training_results,
    benchmark_inference,
    draw_training,
    get_model_size,
    open_run,
)
from hpcft.models.counts import print_trainable_parameters
from hpcft.models.shapes import adapter_parts
from hpcft.report.figures import answering, comparison_row, history, parameters, task_row
from hpcft.stages.compare_models import compare_models, print_comparison_table
from hpcft.viz import (
    PEFT_COLORS,
    extract_history,
    guarded,
    plot_adapter_structure,
    plot_inference_benchmark,
    plot_model_sizes,
    plot_parameter_distribution,
    plot_parameter_efficiency,
    plot_peft_comparison,
    plot_task_comparison,
    plot_training_curves,
    plot_training_loss,
)

__all__ = [
    "PEFT_COLORS",
    "adapter_parts",
    "analyze_training_results",
    "answering",
    "benchmark_inference",
    "compare_models",
    "comparison_row",
    "draw_training",
    "extract_history",
    "get_model_size",
    "guarded",
    "history",
    "open_run",
    "parameters",
    "plot_adapter_structure",
    "plot_inference_benchmark",
    "plot_model_sizes",
    "plot_parameter_distribution",
    "plot_parameter_efficiency",
    "plot_peft_comparison",
    "plot_task_comparison",
    "plot_training_curves",
    "plot_training_loss",
    "print_comparison_table",
    "print_trainable_parameters",
    "task_row",
]

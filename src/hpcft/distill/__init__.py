"""Distilling one model into another from Python, with a look at what they say: no run directory, no job.

from hpcft.distill import quick_visual_distill

plugin = quick_visual_distill(student, teacher, train_dataloader, tokenizer, num_epochs=3)
plugin.stats["avg_laziness"]
"""

from hpcft.distill.plugin import VisualDistillationPlugin, quick_visual_distill

__all__ = ["VisualDistillationPlugin", "quick_visual_distill"]

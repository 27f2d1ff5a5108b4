"""Integration: a distillation as one part of a project that makes its student, evaluates it, saves it and draws it."""

import math
from pathlib import Path
from tempfile import mkdtemp

import torch
from tiny import make_loader, make_model, make_teacher, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpcft.distill import VisualDistillationPlugin
from hpcft.lab import plot_training_curves

folder = Path(mkdtemp(prefix="distilled-"))
tokenizer = make_tokenizer()
validation = make_loader(tokenizer, copies=1)


def perplexity(model):
    model.eval()
    with torch.no_grad():
        losses = [float(model(**batch).loss) for batch in validation]
    return math.exp(sum(losses) / len(losses))


def megabytes(model):
    return sum(p.numel() * p.element_size() for p in model.parameters()) / 1024**2


# A student of half the layers and half the width.
teacher = make_teacher(tokenizer)
student = make_model(tokenizer, teacher.config.num_hidden_layers // 2, teacher.config.hidden_size // 2)
before = perplexity(student)

plugin = VisualDistillationPlugin({"profile": "detailed", "loss": "response"})
plugin.visual_distill_model(
    student,
    teacher,
    make_loader(tokenizer, copies=16),
    torch.optim.AdamW(student.parameters(), lr=1e-2),
    tokenizer,
    num_epochs=3,
    device="cpu",
    # The Trainer's own arguments.
    max_grad_norm=0.5,
    gradient_accumulation_steps=2,
    lr_scheduler_type="cosine",
    seed=7,
)

student.save_pretrained(folder)
tokenizer.save_pretrained(folder)
kept = AutoModelForCausalLM.from_pretrained(folder)
AutoTokenizer.from_pretrained(folder)
plot_training_curves({"laziness": plugin.stats["avg_laziness"]}, save_path=folder / "laziness.png", x_label="epoch")

print(f"model size: {megabytes(teacher):.2f}MB → {megabytes(kept):.2f}MB")
print(f"perplexity: teacher {perplexity(teacher):.2f}, student {before:.2f} before and {perplexity(kept):.2f} after")
print("saved in", folder)

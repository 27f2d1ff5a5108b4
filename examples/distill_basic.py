"""Basic: a plugin, two models, a loader and an optimizer of one's own."""

import torch
from tiny import make_loader, make_model, make_teacher, make_tokenizer

from hpcft.distill import VisualDistillationPlugin

tokenizer = make_tokenizer()
teacher = make_teacher(tokenizer)
student = make_model(tokenizer, layers=2, hidden=32)
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)

plugin = VisualDistillationPlugin({"sample_frequency": 6})
plugin.visual_distill_model(
    student_model=student,
    teacher_model=teacher,
    train_dataloader=make_loader(tokenizer),
    optimizer=optimizer,
    tokenizer=tokenizer,
    num_epochs=3,
    device="cpu",
)

print("samples shown:", plugin.stats["total_samples"])
print("mean laziness of each epoch:", [round(mean, 2) for mean in plugin.stats["avg_laziness"]])
print("topics:", plugin.stats["topic_distribution"])

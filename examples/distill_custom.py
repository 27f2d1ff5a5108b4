"""Custom: settings, topics and comments of one's own, in Chinese, with the difference of the two texts."""

from tiny import make_loader, make_model, make_teacher, make_tokenizer
from torch.optim import AdamW

from hpcft.distill import VisualDistillationPlugin


class Strict(VisualDistillationPlugin):
    """Says in its own words what it thinks of a sample."""

    def generate_comment(self, laziness, loss):
        return "👏 可以毕业了" if laziness < 10 else super().generate_comment(laziness, loss)


plugin = Strict(
    {
        "temperature": 6.0,
        "alpha": 0.9,  # beta is what is left of 1
        "sample_frequency": 4,
        "max_text_length": 60,
        "show_diff": True,
        "lang": "zh-CN",
    }
)
plugin.topic_keywords["网站"] = ["website", "browser", "online"]
plugin.topic_keywords["语言"] = ["language", "word", "writes"]

tokenizer = make_tokenizer()
student = make_model(tokenizer, layers=2, hidden=32)
plugin.visual_distill_model(
    student,
    make_teacher(tokenizer),
    make_loader(tokenizer, copies=6),
    AdamW(student.parameters(), lr=3e-3),
    tokenizer,
    num_epochs=3,
    device="cpu",
)
print(plugin.stats["topic_distribution"])

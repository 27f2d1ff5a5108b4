"""Quick start: one call. The batches are lists of a `TensorDataset`, and the tokenizer can do no more than decode."""

from tiny import make_model, make_rows, make_teacher, make_tokenizer
from torch.utils.data import DataLoader, TensorDataset

from hpcft.distill import quick_visual_distill

words = make_tokenizer()


class OnlyDecodes:
    """Whatever turns token numbers into text is tokenizer enough."""

    def decode(self, token_ids, **kwargs):
        return words.decode(token_ids, **kwargs)


teacher = make_teacher(words)
student = make_model(words, layers=2, hidden=32)
rows = make_rows(words)
# Without labels the student learns from the teacher alone.
loader = DataLoader(TensorDataset(rows["input_ids"], rows["attention_mask"]), batch_size=8)

plugin = quick_visual_distill(
    student,
    teacher,
    loader,
    OnlyDecodes(),
    num_epochs=2,
    device="cpu",
    config={"profile": "teaching"},
    learning_rate=3e-3,
)
print(plugin.stats)

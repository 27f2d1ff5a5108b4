"""transformers' Trainer with the objective of a distillation, for models that a script holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PrinterCallback, Trainer, TrainingArguments

from hpcft.distill.loader import Batches
from hpcft.errors import ConfigError
from hpcft.spec.distill import DistillSection
from hpcft.train.distill import Distiller
from hpcft.train.show import Show


class DistillTrainer(Trainer):
    """Trains with a `Distiller` on a loader's own batches."""

    def __init__(self, distiller: Distiller, batches: Batches, **others: Any) -> None:
        super().__init__(**others)
        # The loss is a mean over a batch's tokens: the Trainer divides it by the accumulated batches.
        self.model_accepts_loss_kwargs = False
        self._distiller = distiller
        self._batches = batches
        # It prints each step's figures as a dict.
        self.remove_callback(PrinterCallback)
        self.add_callback(distiller)

    def get_train_dataloader(self) -> Any:
        """The script's."""
        return self._batches

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The distiller's."""
        return self._distiller(model, inputs)

    def release(self) -> None:
        """Give the student back without what mixed precision has put around it."""
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)


def make_trainer(
    settings: DistillSection,
    show: Show,
    student: Any,
    teacher: Any,
    batches: Batches,
    optimizer: Any,
    device: str,
    folder: str,
    num_epochs: int,
    arguments: Mapping[str, Any],
) -> DistillTrainer:
    """A trainer that is ready to train.

    Args:
        device: `cuda`, `mps` or `cpu`.
        folder: an empty one; nothing is kept in it.
        arguments: the Trainer's, which win over what is usual here.

    Raises:
        ConfigError: an argument that there is not, or that cannot be here.
    """
    usual = {
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
    }
    fixed = {
        "output_dir": folder,
        "num_train_epochs": num_epochs,
        "use_cpu": device == "cpu",
        "remove_unused_columns": False,
        # The display is told the loss of each step.
        "logging_strategy": "steps",
        "logging_steps": 1,
    }
    if both := sorted(fixed.keys() & arguments.keys()):
        raise ConfigError(f"{', '.join(both)} cannot be given here", where="visual_distill_model", hint="leave it out")
    try:
        made = TrainingArguments(**{**usual, **arguments, **fixed})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the Trainer's arguments: {error}", where="visual_distill_model") from error
    # A batch for one GPU, whatever the process sees.
    made._n_gpu = min(made.n_gpu, 1)
    teacher.requires_grad_(False)
    teacher.eval().to(made.device)
    return DistillTrainer(
        Distiller(settings, teacher, display=show), batches, model=student, args=made, optimizers=(optimizer, None)
    )


def check_tokens(student: Any, teacher: Any, tokenizer: Any) -> None:
    """Refuse models whose distributions are over different tokens.

    Output heads may be of different sizes where both are padded: where they have at least the tokenizer's tokens.

    Raises:
        ConfigError: with both sizes.
    """
    sizes = [int(model.config.get_text_config().vocab_size) for model in (student, teacher)]
    known = len(tokenizer) if hasattr(tokenizer, "__len__") else max(sizes)
    if sizes[0] != sizes[1] and min(sizes) < known:
        raise ConfigError(
            f"student and teacher do not share their tokens: {sizes[0]:,} and {sizes[1]:,} of them",
            where="student_model",
            hint="take two models of one family and generation",
        )

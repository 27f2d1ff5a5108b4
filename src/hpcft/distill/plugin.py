"""A distillation that shows itself, of two models that a script holds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hpcft.display.tally import Sample, Tally
from hpcft.display.texts import topic_keywords
from hpcft.distill.loader import Batches
from hpcft.errors import ConfigError
from hpcft.spec.build import build
from hpcft.spec.distill import DistillSection
from hpcft.spec.layers import mapping_layer
from hpcft.train.show import Show, comment_of

if TYPE_CHECKING:
    from torch.optim import Optimizer

# Keys of the section that are about models, which a script brings itself.
_OF_JOBS = ("teacher", "cache", "student", "init")
_RATE = 1e-4


class VisualDistillationPlugin:
    """Trains a student with `hpcft`'s objective, and shows what it and its teacher say.

    Args:
        config: keys of a job's section `distill`, such as `temperature`, `alpha`, `sample_frequency`, `show_diff`,
            `profile` and `lang`. With `alpha` alone, `beta` is what is left of 1.

    Attributes:
        config: all of the settings.
        topic_keywords: topic → words that tell it; to be changed and added to.

    Raises:
        ConfigError: a key or a value that there is not; `alpha` and `beta` that are not 1 together.
    """

    def __init__(self, config: Mapping[str, Any] | DistillSection | None = None) -> None:
        self.config = _settings(config)
        self.topic_keywords = topic_keywords(self.config.lang)
        self._tally = Tally()

    @property
    def stats(self) -> dict[str, Any]:
        """Of the last training: `total_samples` that were shown, `topic_distribution`, `avg_laziness` (in percent, a
        mean for each epoch) and `improvement_rate` (by how many points the last epoch is better than the first; None
        before the second)."""
        return self._tally.stats()

    def generate_comment(self, laziness: float, loss: float) -> str:
        """What is said of a sample. To be replaced, in a subclass or on the plugin itself.

        Args:
            laziness: in percent. loss: of the batch.
        """
        return comment_of(laziness, loss, self._tally.total, self.config.lang)

    def visual_distill_model(
        self,
        student_model: Any,
        teacher_model: Any,
        train_dataloader: Any,
        optimizer: Optimizer,
        tokenizer: Any,
        num_epochs: int = 3,
        device: str = "cuda",
        **arguments: Any,
    ) -> dict[str, Any]:
        """Train the student, in place. The teacher is frozen and stays so.

        Args:
            student_model, teacher_model: causal language models of transformers with the same tokens.
            train_dataloader: batches of `input_ids`, perhaps with `attention_mask` and `labels`, as dictionaries or in
                this order; without labels the teacher alone is learned from.
            optimizer: of the student's parameters. Its learning rate stays as it is, unless `lr_scheduler_type` says
                otherwise.
            tokenizer: of which `decode(token_ids, **kwargs)` is used.
            device: `cuda`, `mps` or `cpu`; where the machine has no such device it is the CPU, and that is said.
            arguments: of transformers' `TrainingArguments`: `bf16`, `max_grad_norm` (1 by default),
                `gradient_accumulation_steps`, `seed` …

        Returns:
            `stats`.

        Raises:
            ConfigError: the models have different tokens, or an argument there is not.
            DataError: the loader has no batches, or other ones.
        """
        from hpcft.distill.trainer import check_tokens, make_trainer

        batches = Batches(train_dataloader)
        check_tokens(student_model, teacher_model, tokenizer)
        outlet = PrintOutlet()
        show = Show(
            self.config,
            tokenizer,
            outlet,
            keywords=self.topic_keywords,
            # Looked up at each sample: it may be replaced at any time.
            comment=lambda laziness, loss: self.generate_comment(laziness, loss),
        )
        self._tally = show.tally
        wanted, found = device, _device(device)
        if found != wanted.partition(":")[0]:
            outlet.say(show.console.line("no_gpu", device=wanted))
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(
                self.config,
                show,
                student_model,
                teacher_model,
                batches,
                optimizer,
                found,
                folder,
                num_epochs,
                arguments,
            )
            trainer.train()
            trainer.release()
        return self.stats


def quick_visual_distill(
    student_model: Any,
    teacher_model: Any,
    train_dataloader: Any,
    tokenizer: Any,
    num_epochs: int = 3,
    device: str = "cuda",
    config: Mapping[str, Any] | DistillSection | None = None,
    *,
    learning_rate: float = _RATE,
    **arguments: Any,
) -> VisualDistillationPlugin:
    """Distill with AdamW, in one call.

    Args:
        student_model, teacher_model, train_dataloader, tokenizer, num_epochs, device, arguments: as
            `VisualDistillationPlugin.visual_distill_model` takes them.
        config: as the plugin takes it.

    Returns:
        The plugin, with its `stats`; the student is trained in place.

    Raises:
        ConfigError, DataError: as the plugin's.
    """
    from torch.optim import AdamW

    plugin = VisualDistillationPlugin(config)
    optimizer = AdamW(student_model.parameters(), lr=learning_rate)
    plugin.visual_distill_model(
        student_model, teacher_model, train_dataloader, optimizer, tokenizer, num_epochs, device, **arguments
    )
    return plugin


class PrintOutlet:
    """Standard output."""

    def __init__(self) -> None:
        self.encoding: str | None = getattr(sys.stdout, "encoding", None)

    def shown(self) -> Iterable[Sample]:
        """Nothing goes on from an earlier attempt here."""
        return ()

    def say(self, words: str) -> None:
        """Print it."""
        print(words, flush=True)

    def sample(self, sample: Sample, step: int, words: str) -> None:
        """Print it."""
        print(words, flush=True)


def _settings(config: Mapping[str, Any] | DistillSection | None) -> DistillSection:
    """The section, read and checked as that of a job."""
    given = config.model_dump(exclude_unset=True) if isinstance(config, DistillSection) else dict(config or {})
    for key in given:
        if str(key).startswith(_OF_JOBS):
            raise ConfigError(
                f"'{key}' is a key of jobs; here both models are given as they are", where="config", hint="leave it out"
            )
    values = {"variant": "distill", "distill.teacher": "teacher"}
    found = build(
        [mapping_layer(values | {f"distill.{key}": value for key, value in given.items()}, "config")]
    ).job.distill
    if found.shows_validation:
        hint = "leave sample_set out, or distill by a job, which validates after each epoch"
        raise ConfigError("nothing is validated here: training rows alone can be shown", where="config", hint=hint)
    return found


def _device(wanted: str) -> str:
    """The kind of device that is computed on.

    Raises:
        ConfigError: it is none that can be chosen here.
    """
    import torch

    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(f"'{wanted[:40]}' is no device", where="device", hint="cuda, mps or cpu") from error
    if device.index:
        hint = f"start Python with CUDA_VISIBLE_DEVICES={device.index}, and say device='{device.type}'"
        raise ConfigError("the Trainer computes on the first device that it sees", where="device", hint=hint)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type not in there:
        raise ConfigError(f"'{wanted[:40]}' cannot be computed on", where="device", hint="cuda, mps or cpu")
    return device.type if there[device.type] else "cpu"

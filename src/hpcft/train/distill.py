"""Distillation as an objective of the trainer: what a student learns from a teacher beside its data.

The objective is `alpha` times what the teacher says plus `beta` times the cross-entropy of the data's own answers
(Hinton et al. 2015); `distill_losses` has the comparisons. All of it is of the positions whose next token is an answer,
as a sum over them divided by the number of such positions in the whole optimizer step, over all of its micro-batches
and ranks, so that neither the lengths of rows nor how they are laid into batches weigh.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from transformers import TrainerCallback

from hpcft.models.student import matched_layers
from hpcft.spec.distill import DistillSection
from hpcft.train.distill_losses import TopK, attention, feature, places_of, relation, response
from hpcft.train.teacher import Said, ask

log = logging.getLogger(__name__)

# What a model reads of a batch.
_READ = ("input_ids", "attention_mask", "position_ids")
# Of the features beside the distributions, in the loss `combined`.
_FEATURE_SHARE = 0.1
# Sums over a micro-batch: its answer tokens, the positions of the output head, and over the answer tokens what the
# teacher says, the KL divergence of the softened distributions, the cross-entropy.
FIGURES = ("answers", "predicted", "distill_loss", "distill_kl", "distill_ce")


@dataclass(frozen=True)
class _Compared:
    """Both models' answers to a batch.

    Attributes:
        loss: with its gradient, divided by the answer tokens of the whole optimizer step. mean: over the batch's own,
            without a gradient.
        figures: as `FIGURES` names them.
        student, teacher: logits at the places.
        places: as `distill_losses.places_of` gives them.
    """

    loss: torch.Tensor
    mean: torch.Tensor
    figures: torch.Tensor
    student: torch.Tensor
    teacher: torch.Tensor | TopK
    places: Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """The first row of a micro-batch, at the n positions whose next token is one of the data's answer.

    Attributes:
        epoch: from 1. batch: this rank's micro-batch within the epoch, or its batch within the validation after it,
            from 0. batches: of an epoch; None of a stream and of a validation. step: the optimizer step that the batch
            is part of, from 1; of a validation the last one before it.
        labels: the data's own next tokens, shape (n,).
        student: logits, float32, shape (n, vocabulary).
        teacher: the same of the teacher; of a teacher that was asked before training all but its likeliest tokens
            are minus infinity.
        loss: the objective of the whole micro-batch, a mean over its answer tokens; in a validation of the row alone.
        kl: mean KL divergence of the row's softened distributions, in nats a token, without the factor T².
    """

    epoch: int
    batch: int
    batches: int | None
    step: int
    labels: torch.Tensor
    student: torch.Tensor
    teacher: torch.Tensor
    loss: float
    kl: float


class Display(Protocol):
    """Who shows a distillation. Called on the first rank alone, without gradients.

    It must draw nothing from the global random generators and change no tensor: the student is the same, bit for bit,
    with a display and without. What it raises is told in the log once; training goes on without it.
    """

    def begin_epoch(self, epoch: int, epochs: int, batches: int | None) -> None:
        """Before an epoch's first micro-batch, also where an attempt goes on in the middle of the epoch.

        Args:
            epoch: from 1. epochs: of the whole run. batches: micro-batches of this rank in an epoch; None of a stream.
        """

    def sample(self, sample: Sample) -> None:
        """At the micro-batches whose number within the epoch is a multiple of `distill.sample_frequency`, or at such
        batches of the validation after it, as `distill.sample_set` says."""

    def step(self, batch: int, batches: int | None, loss: float) -> None:
        """After each optimizer step.

        Args:
            batch: the last micro-batch of the step, from 0.
            loss: the step's objective, which the trainer has read anyway.
        """

    def end_epoch(self, epoch: int, loss: float | None) -> None:
        """After an epoch's last step and, where samples are of the validation, after that.

        Args:
            loss: mean objective of the epoch's steps that this attempt did; None when it did none.
        """

    def end(self) -> None:
        """After the last epoch."""


class Distiller(TrainerCallback):
    """The objective of a distillation, and the calls to who shows it.

    Args:
        settings: of the job.
        teacher: a model that answers, frozen and in eval mode; None where each batch brings its `lesson`, what the
            teacher said of it before.
        display: on the first rank; None elsewhere and where nothing is shown.
    """

    def __init__(self, settings: DistillSection, teacher: Any = None, *, display: Display | None = None) -> None:
        self.settings = settings
        self.teacher = teacher
        self.figures = torch.zeros(len(FIGURES))
        self._display = display
        self._epoch = self._batch = self._epochs = self._step = self._looked = 0
        self._batches: int | None = None
        self._losses: list[float] = []

    def __call__(self, model: Any, inputs: Mapping[str, Any], items: torch.Tensor | int | None = None) -> torch.Tensor:
        """The loss of a micro-batch, and the figures of what it is made of in `figures`.

        Args:
            inputs: `input_ids` of shape (rows, length); `attention_mask`, or `position_ids` that start again at 0
                where rows are laid end to end; `labels` of the same shape, IGNORED where there is no answer, or none;
                `places` and `lesson` where a `LessonCollator` made the batch.
            items: answer tokens of the whole optimizer step, which the loss is a part of; those of this micro-batch
                when absent.
        """
        found = self._compare(model, inputs, items)
        self.figures = found.figures
        due = self._batch % self.settings.sample_frequency == 0
        if self._display is not None and due and not self.settings.shows_validation:
            self._show(found, self._batch, self._batches, self._step + 1)
        self._batch += 1
        return found.loss

    @torch.no_grad()
    def look(self, model: Any, inputs: Mapping[str, Any]) -> None:
        """Show a batch of the validation, if that is asked for and it is its turn.

        To be called on every rank at each of its batches: where models are divided, the ranks answer together. Only the
        first one has a display. Nothing that is trained or counted changes.

        Args:
            model: in eval mode. inputs: padded, of shape (rows, length); the first row alone is asked about.
        """
        # The base model may be validated before the first epoch.
        if not self.settings.shows_validation or self._epoch == 0:
            return
        if self._looked % self.settings.sample_frequency == 0:
            row = {name: inputs[name][:1] for name in (*_READ, "labels") if inputs.get(name) is not None}
            found = self._compare(model, row)
            if self._display is not None:
                self._show(found, self._looked, None, self._step)
        self._looked += 1

    def _compare(self, model: Any, inputs: Mapping[str, Any], items: torch.Tensor | int | None = None) -> _Compared:
        """Ask both models. The arguments are those of a call."""
        settings = self.settings
        given = {name: inputs[name] for name in _READ if inputs.get(name) is not None}
        places = inputs.get("places")
        if places is None:
            rows = (given.get(name) for name in ("position_ids", "attention_mask"))
            places = places_of(given["input_ids"], inputs.get("labels"), *rows)
        count = int(places["flat"].numel())
        divisor = max(1, count) if items is None else items
        teacher = self._listen(given, places, inputs.get("lesson"))
        student = ask(model, given, places, settings.loss)

        labels = places.get("labels")
        by_answers = settings.loss in ("response", "combined")
        soft = settings.alpha * settings.temperature**2 if by_answers else 0.0
        loss, kl, ce = response(
            student.logits,
            teacher.logits,
            labels,
            settings.temperature,
            kl_weight=soft / divisor,
            ce_weight=(settings.beta if labels is not None else 0.0) / divisor,
        )
        learned = settings.temperature**2 * kl if by_answers else torch.zeros_like(kl)
        if settings.loss != "response":
            inner = _inside(settings.loss, student, teacher, places).sum()
            inner = (_FEATURE_SHARE if by_answers else 1.0) * inner
            loss = loss + settings.alpha / divisor * inner
            learned = learned + inner.detach()
        sizes = torch.full_like(kl, count), torch.full_like(kl, student.asked)
        figures = torch.stack([*sizes, learned, kl, ce])
        return _Compared(
            loss, loss.detach() * (divisor / max(1, count)), figures, student.logits, teacher.logits, places
        )

    def _listen(self, given: Mapping[str, Any], places: Mapping[str, Any], lesson: Mapping[str, Any] | None) -> Said:
        """The teacher's part."""
        if lesson is not None:
            return Said(TopK(**lesson), 0, None, None)
        if self.teacher is None:
            raise ValueError("neither a teacher nor its lesson")
        with torch.no_grad():
            said = ask(self.teacher, given, places, self.settings.loss)
            if self.settings.top_k is not None:
                said = replace(said, logits=TopK.of(said.logits, self.settings.top_k, self.settings.temperature))
        return said

    def _show(self, found: _Compared, batch: int, batches: int | None, step: int) -> None:
        """Hand the first row to the display."""
        with torch.no_grad():
            first = slice(0, int((found.places["rows"] == 0).sum()))
            own, told, labels = found.student[first].detach(), found.teacher[first], found.places.get("labels")
            temperature, none = self.settings.temperature, {"kl_weight": 0.0, "ce_weight": 0.0}
            _, kl, _ = response(own, told, None, temperature, **none)
            sample = Sample(
                epoch=self._epoch,
                batch=batch,
                batches=batches,
                step=step,
                labels=own.new_empty(0, dtype=torch.long) if labels is None else labels[first],
                student=own.float(),
                teacher=told.dense(own.shape[-1]) if isinstance(told, TopK) else told.float(),
                loss=float(found.mean),
                kl=float(kl) / max(1, own.shape[0]),
            )
        self._tell("sample", sample)

    def _tell(self, what: str, *given: Any) -> None:
        if self._display is None:
            return
        try:
            getattr(self._display, what)(*given)
        except Exception as error:
            # Anything at all: what is shown is never worth a training run.
            log.warning("the distillation is no longer shown: %s: %s", type(error).__name__, error)
            self._display = None

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Find out which micro-batch of which epoch comes next; an attempt may go on in the middle of one."""
        loader: Any = given.get("train_dataloader")
        accumulation = int(args.gradient_accumulation_steps)
        self._batches = len(loader) if hasattr(loader, "__len__") else None
        done = int(state.global_step)
        self._epoch, steps = 1, done
        if self._batches:
            before, steps = divmod(done, -(-self._batches // accumulation))
            self._epoch += before
        self._batch, self._step = steps * accumulation, done
        self._epochs = max(self._epoch, int(state.num_train_epochs))
        self._losses = []
        self._tell("begin_epoch", self._epoch, self._epochs, self._batches)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step = int(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs = given.get("logs") or {}
        if "loss" in logs and "learning_rate" in logs:
            self._losses.append(float(logs["loss"]))
            self._tell("step", self._batch - 1, self._batches, self._losses[-1])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.settings.shows_validation:
            self._end_epoch()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the validation, which follows the end of each epoch and may come before the first."""
        self._looked = 0
        if self.settings.shows_validation and self._epoch:
            self._end_epoch()

    def _end_epoch(self) -> None:
        self._tell("end_epoch", self._epoch, sum(self._losses) / len(self._losses) if self._losses else None)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell("end")


def _inside(loss: str, student: Said, teacher: Said, places: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the layers differ by at each place, a mean over the student's layers, each with the teacher's that stands
    as deep; shape (n,)."""
    flat = places["flat"]
    if loss == "attention":
        own, told = student.maps or (), teacher.maps or ()
        pairs = zip(own, matched_layers(len(own), len(told)), strict=True)
        each = [attention(maps, told[layer - 1], flat, places["seen"]) for maps, layer in pairs]
        return torch.stack(each).mean(0)
    # The first of them is the embedding.
    own, told = (said.hidden or () for said in (student, teacher))
    counts = places["rows"].bincount().tolist() if loss == "relation" else []
    each = []
    for states, layer in zip(own[1:], matched_layers(len(own) - 1, len(told) - 1), strict=True):
        mine, theirs = (whole.flatten(0, 1).index_select(0, flat) for whole in (states, told[layer]))
        each.append(relation(mine, theirs, counts) if loss == "relation" else feature(mine, theirs))
    return torch.stack(each).mean(0)

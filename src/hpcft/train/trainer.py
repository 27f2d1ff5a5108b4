"""The Hugging Face Trainer with what this tool adds: counters of the work really done, a stop that every rank
agrees on, validation."""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from hpcft.errors import FutileError
from hpcft.measure.monitor import Monitor
from hpcft.runs.paths import RunPaths
from hpcft.tracking.names import canonical
from hpcft.train.checkpoint import checkpoints
from hpcft.train.counting import count_batch
from hpcft.train.deadline import Deadline
from hpcft.train.distill import FIGURES, Distiller
from hpcft.train.gradients import GradientNorms
from hpcft.train.measuring import MeasuringTrainer
from hpcft.train.method import Method
from hpcft.train.phases import Phases
from hpcft.train.ranks import Rank, from_first, sum_over_ranks
from hpcft.train.recorder import Recorder
from hpcft.train.stop import Stopped, StopRequest
from hpcft.train.validate import Validator, headline

log = logging.getLogger(__name__)


@dataclass
class Totals:
    """Work done, over all ranks and attempts; saved with each checkpoint and gone on from.

    Attributes:
        seconds: wall time in training steps, validation and saving left out.
        tokens: tokens that are not padding. padded_tokens: all of them.
        squares: sum over sequences of the padded length squared, for attention's share of the FLOPs.
        samples: sequences.
        waited: seconds of them that a rank waited for its next batches, the mean over the ranks.
        predicted: positions that the output head was computed at, where that is fewer than all (distillation).
    """

    seconds: float = 0.0
    tokens: float = 0.0
    padded_tokens: float = 0.0
    squares: float = 0.0
    samples: float = 0.0
    predicted: float = 0.0
    waited: float = 0.0

    def add(self, other: Totals) -> None:
        """Add another's counts."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Progress:
    """Totals of the whole run and of the epoch in progress."""

    run: Totals = field(default_factory=Totals)
    epoch: Totals = field(default_factory=Totals)

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint's marker."""
        return {"run": vars(self.run), "epoch": vars(self.epoch)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Progress:
        """From a checkpoint's marker."""
        return cls(Totals(**raw.get("run", {})), Totals(**raw.get("epoch", {})))


class FineTuner(MeasuringTrainer):
    """The trainer of all jobs.

    Args:
        validate: called on every rank after each epoch's evaluation loss; gives `validation/*` figures.
        eval_collator: of the evaluation loss, whose batches are padded: the Trainer weights a batch's loss by its
            rows, and rows laid end to end would count as one.
        classifies: the model gives a class a row, and no text.
        method: what the PEFT method learns beside the weights.
        gradients: measures the norms of the gradients.
        phases: says which modules are trained when.
        objective: what is trained in place of the model's own loss, which is the one of the evaluation all the same.
        monitor: what this rank uses.
        progress: counters to go on from.
        save_seconds: between two rolling checkpoints.
        deadline: when the job's time is over.
        stop_on_nan: stop at a loss that is no number.
        others: the Hugging Face Trainer's.
    """

    def __init__(
        self,
        *,
        rank: Rank,
        paths: RunPaths,
        recorder: Recorder | None,
        stop: StopRequest,
        save_seconds: float,
        deadline: Deadline,
        stop_on_nan: bool,
        zero_stage: int | None,
        attempt: int,
        progress: Progress,
        validate: Validator | None,
        eval_collator: Any,
        classifies: bool = False,
        method: Method | None = None,
        gradients: GradientNorms | None = None,
        phases: Phases | None = None,
        objective: Distiller | None = None,
        monitor: Monitor | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        if classifies:
            # A classifier's loss is the mean over its rows whatever number of labels it is told. The Trainer takes it
            # for a sum over that number, and gives the loss, and the gradient, times ranks and accumulation steps.
            self.model_accepts_loss_kwargs = False
        self.rank = rank
        self.paths = paths
        self.recorder = recorder
        self.attempt = attempt
        self.zero_stage = zero_stage
        self.progress = progress
        self.deadline = deadline
        self.stop_on_nan = stop_on_nan
        self.last = Totals()
        self._validate = validate
        self._eval_collator = eval_collator
        self._objective = objective
        self._counts = torch.zeros(4 + (len(FIGURES) if objective is not None else 0), dtype=torch.float64)
        self._figures: dict[str, float] = {}
        self.waited = 0.0
        self._paused_s = 0.0
        self._step_began = time.monotonic()
        # It prints each step's figures as a dict; the recorder says them in words.
        self.remove_callback(PrinterCallback)
        self._method = method
        if method is not None:
            self.add_callback(method)
        self.gradients = gradients
        self.monitor = monitor
        if phases is not None:
            self.add_callback(phases)
        if objective is not None:
            self.add_callback(objective)
        # After the Trainer's own flow callback, so that its decisions at a step's end are known here.
        self.add_callback(_StepEnd(self, stop, save_seconds))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch, counted. Counts stay on the device and are read once an optimizer step."""
        counted = count_batch(inputs)
        if self._counts.device != counted.device:
            self._counts = self._counts.to(counted)
        self._counts[:4] += counted
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's in training, where there is one; the model's own in an evaluation, so that runs of all
        variants can be compared by it. There the objective may look at the batch, to show it."""
        objective = self._objective
        if objective is None or not model.training:
            if objective is not None:
                objective.look(model, inputs)
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = objective(model, inputs, num_items_in_batch)
        self._counts[4:] += objective.figures
        # Divided by the answers of all ranks, whose gradients are averaged and not added.
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The Trainer's, with the collator of the evaluation."""
        training, self.data_collator = self.data_collator, self._eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def get_batch_samples(self, *args: Any, **given: Any) -> Any:
        """The Trainer's, and how long it took: nothing is trained meanwhile."""
        began = time.monotonic()
        found = super().get_batch_samples(*args, **given)
        self.waited += time.monotonic() - began
        return found

    def take_counts(self, extra: list[float]) -> tuple[Totals, list[float]]:
        """Counts since the last call, over all ranks, and the sums of some further figures, in one collective."""
        norms = self.gradients.take() if self.gradients is not None else None
        read = self._counts if norms is None else torch.cat([self._counts, norms.to(self._counts)])
        own = [float(v) for v in read.tolist()]
        self._counts.zero_()
        summed = sum_over_ranks([*own, *extra], self.args.device)
        # Its own counts, then the figures of the objective, then the norms.
        known = self._counts.numel()
        done = Totals(0.0, *summed[:4])
        if self._objective is not None:
            answers, done.predicted, *sums = summed[4:known]
            self._figures = {n: value / max(1.0, answers) for n, value in zip(FIGURES[2:], sums, strict=True)}
        if self.gradients is not None:
            self.norms = self.gradients.norms(summed[known : len(own)]) if norms is not None else {}
        now = time.monotonic()
        done.seconds = max(0.0, now - self._step_began - self._paused_s)
        self._step_began, self._paused_s = now, 0.0
        return done, summed[len(own) :]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record the step, which the Trainer logs after each optimizer step (`logging_steps=1`)."""
        super().log(logs, start_time)
        if "loss" not in logs or "learning_rate" not in logs:
            return
        keys = ("loss", "learning_rate", "grad_norm", "epoch")
        metrics = {k: float(logs[k]) for k in keys if k in logs}
        if self.recorder is not None:
            metrics |= {"seconds": round(self.last.seconds, 6), "tokens": int(self.last.tokens)}
            metrics |= {"samples": int(self.last.samples), "padded_tokens": int(self.last.padded_tokens)}
            metrics["padded_squares"] = int(self.last.squares)
            if self._objective is not None:
                metrics |= self._figures | {"predicted": int(self.last.predicted)}
            self.recorder.step(self.state.global_step, self.state.max_steps, metrics | self.norms)
        if self.stop_on_nan:
            self._require_finite(metrics)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluation loss, then the answers' scores; neither counts as training time."""
        began = time.monotonic()
        step = self.state.global_step
        if self.recorder is not None:
            self.recorder.status("validating", step=step, total_steps=self.state.max_steps)
        with self._autocast():
            metrics = super().evaluate(*args, **kwargs)
            found = canonical({"epoch": float(self.state.epoch or 0.0), "eval_loss": metrics["eval_loss"]})
            if self._validate is not None:
                found |= self._validate(self.model)
        found["validation/seconds"] = time.monotonic() - began
        if self.recorder is not None:
            made = self._validate.provenance if self._validate is not None else {}
            self.recorder.metrics("validation", step, found, provenance=made)
            if "validation/f1_score" in found:
                log.info("Epoch %g: %s", found["epoch"], headline(found))
            if self._validate is not None:
                folder = self.paths.attempt(self.attempt)
                self._validate.write_predictions(folder / f"predictions-{step}.jsonl")
        self._paused_s += time.monotonic() - began
        return metrics

    def _autocast(self) -> AbstractContextManager[Any]:
        """The engine's own autocast, which it puts around training steps alone."""
        engine = self.args.deepspeed
        asked = engine.get("torch_autocast") if isinstance(engine, dict) else None
        return torch.autocast(self.args.device.type, getattr(torch, asked["dtype"])) if asked else nullcontext()

    def record_epoch(self) -> None:
        """Throughput of the epoch that has just ended, from the steps that were trained in it."""
        done, self.progress.epoch = self.progress.epoch, Totals()
        if self.recorder is not None and done.seconds > 0:
            figures = {
                "train/epoch_time_min": done.seconds / 60,
                "train/throughput_samples_per_sec": done.samples / done.seconds,
                "train/throughput_tokens_per_sec": done.tokens / done.seconds,
                "train/data_wait_frac": done.waited / done.seconds,
                "epoch": float(self.state.epoch or 0.0),
            }
            load = self.monitor.summary() if self.monitor is not None else {}
            self.recorder.metrics("epoch", self.state.global_step, figures | load)

    def save_more(self, folder: Path) -> None:
        """The method's own state."""
        if self._method is not None:
            self._method.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._method is None or not self._method.replaces_adapter:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._method is not None:
            self._method.load(Path(resume_from_checkpoint))

    def totals(self) -> dict[str, Any]:
        """What a checkpoint carries on of the work done."""
        return self.progress.as_dict()

    def _run_epoch(self, *args: Any, **given: Any) -> None:
        """The Trainer's, unless every step is done: it would train one more before it looks."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **given)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        began = time.monotonic()
        if _ends_epoch(self.state):
            # The attempt that goes on from here begins with the next epoch.
            self.record_epoch()
        super()._save_checkpoint(model, trial)
        seconds = time.monotonic() - began
        self.deadline.saved(seconds)
        self._paused_s += seconds

    def _require_finite(self, metrics: dict[str, float]) -> None:
        """Stop at a step that has spoilt the weights, before they are saved. Every rank has the same figures.

        Raises:
            FutileError: the loss, or what it was trained with, is not a number any more.
        """
        # With a loss scale, and with DeepSpeed, a step whose gradient overflows is left out and spoils nothing.
        watched = ["loss"] if self.args.fp16 or self.zero_stage is not None else ["loss", "grad_norm"]
        for name in watched:
            value = metrics.get(name, 0.0)
            if not math.isfinite(value):
                what = "the loss" if name == "loss" else "the gradient's norm"
                left = from_first(next((f.name for f in checkpoints(self.paths)), ""))
                raise FutileError(
                    f"{what} is {'NaN' if math.isnan(value) else 'infinite'} at step {self.state.global_step}; "
                    + (f"{left} is the last checkpoint" if left else "no checkpoint was saved before"),
                    where=str(self.paths.root),
                    hint="the same job would end the same; lower training.learning_rate or set training.max_grad_norm, "
                    "look at the data of that step, or go on regardless: training.stop_on_nan=false",
                )


class _StepEnd(TrainerCallback):
    """After each optimizer step every rank learns, in one collective, how much was done and whether any rank was
    asked to stop, so that all of them stop after the same step."""

    def __init__(self, trainer: FineTuner, stop: StopRequest, save_seconds: float) -> None:
        self.trainer = trainer
        self.stop = stop
        self.save_seconds = save_seconds
        self.saved_at = time.monotonic()
        self.stopping = False
        self._looked_at = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._step_began, self.trainer._paused_s = time.monotonic(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer = self.trainer
        first = trainer.rank.is_first
        due = first and time.monotonic() - self.saved_at >= self.save_seconds
        late = first and trainer.deadline.near
        asked = [float(self.stop.wanted), float(late), float(due), float(first and self._told_to_end())]
        done, (stops, ends, saves, enough, waited) = trainer.take_counts([*asked, trainer.waited])
        trainer.waited, done.waited = 0.0, min(done.seconds, waited / trainer.rank.world_size)
        trainer.last = done
        trainer.progress.run.add(done)
        trainer.progress.epoch.add(done)
        trainer.deadline.stepped(done.seconds)
        if ends > 0:
            self.stop.ask("time limit")
        self.stopping = stops > 0 or ends > 0
        if enough > 0:
            # The Trainer ends the epoch here, with its validation and checkpoint.
            control.should_training_stop = True
        # With validation the last step of an epoch is followed by it and a checkpoint; stopping before them would lose
        # the validation, since the next attempt begins with the next epoch. After the last step of all the model is
        # kept.
        follows = args.save_strategy == "epoch" and _ends_epoch(state)
        if (self.stopping or saves > 0) and not follows and state.global_step < state.max_steps:
            control.should_save = True
        trainer.leaving = self.stopping and state.global_step < state.max_steps

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.record_epoch()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved_at = time.monotonic()
        if self.trainer.leaving:
            raise Stopped(state.global_step)

    def _told_to_end(self) -> bool:
        """Whether a sweep's controller has found this trial not worth going on with; looked up once a second."""
        now = time.monotonic()
        if now - self._looked_at < 1.0:
            return False
        self._looked_at = now
        return self.trainer.paths.end_early.exists()


def _ends_epoch(state: Any) -> bool:
    return state.global_step >= state.max_steps or abs(state.epoch - round(state.epoch)) < 1e-9

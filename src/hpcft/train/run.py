"""One training job, from its spec to its end marker, on every rank."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import Future
from dataclasses import asdict
from threading import Thread
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig

from hpcft.data.care.before import check_before_training, tell
from hpcft.measure.flops import TrainingFlops, training_parts
from hpcft.measure.memory import folder_size_gb, over_ranks, peak_gb, reset_peak
from hpcft.measure.monitor import Monitor
from hpcft.models.adapter import with_adapter
from hpcft.models.counts import ParameterCount, count_parameters
from hpcft.models.load import check_vocabulary, load_base, load_config, load_tokenizer
from hpcft.models.open import keep_labels
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.spec.build import flat
from hpcft.spec.job import Job
from hpcft.train import finish
from hpcft.train.arguments import training_arguments, uses_liger
from hpcft.train.context import Context
from hpcft.train.deadline import Deadline, end_of_job
from hpcft.train.feed import Feed, feed
from hpcft.train.gradients import GradientNorms
from hpcft.train.method import method_state
from hpcft.train.phases import phases
from hpcft.train.ranks import barrier, world_size
from hpcft.train.resume import longest_save_s, newest_good, require_gain
from hpcft.train.teaching import Teaching, teach, tidy, with_student
from hpcft.train.trainer import FineTuner, Progress
from hpcft.train.validate import Validator, evaluation_results, final_metrics, make_validator

log = logging.getLogger(__name__)


def train(context: Context) -> dict[str, Any]:
    """Train, validate, keep the model, write the results; on every rank.

    Returns:
        Summary metrics, on rank 0; without it elsewhere.

    Raises:
        Stopped: asked to stop; everything is saved and the next attempt goes on.
        HpcftError: the job cannot be done; the message says why.
    """
    job, paths, rank = context.job, context.paths, context.rank
    resume = newest_good(context)
    require_gain(context, resume[1].step if resume else 0)
    job = with_student(context)
    # While the model is loaded, which is another's work for the most part.
    look = _Look(job, paths) if rank.is_first else None
    context.say("starting", f"loading the model {job.model.name}")
    # One rank makes or fetches what all of them then read.
    if rank.is_first:
        load_config(job.model), load_tokenizer(job.model)
    barrier()
    config = load_config(job.model)
    tokenizer = load_tokenizer(job.model)
    check_vocabulary(tokenizer, config, job.model.name)
    fed = feed(job, tokenizer, config)
    if fed.report is not None:
        context.say("starting", fed.report.message())

    arguments = training_arguments(job, paths.checkpoints, context.device, resumed=resume is not None)
    teaching = teach(context, job, fed, tokenizer, config) if job.distills else None
    if teaching is not None:
        fed = teaching.feed
    transformers.set_seed(job.training.seed)
    labels = fed.data.labels or None
    model = with_adapter(load_base(job, context.device, labels), job, classifier=labels is not None)
    if labels is not None:
        # A decoder's head reads the last token that is no padding.
        model.config.pad_token_id = tokenizer.pad_token_id
    counts = count_parameters(model)
    flops = _flops(job, config, model, len(fed.data.labels) or None) if rank.is_first else None
    reset_peak(context.device)
    validator = make_validator(job, fed.data, tokenizer, rank) if job.evaluation.enabled else None
    monitor = Monitor(paths.monitor(context.attempt, rank.rank), context.device, job.tracking.monitor_seconds)
    trainer = FineTuner(
        rank=rank,
        paths=paths,
        recorder=context.recorder,
        stop=context.stop,
        save_seconds=job.training.save_minutes * 60,
        deadline=Deadline(end_of_job(os.environ), longest_save_s(paths), job.resources.signal_seconds),
        stop_on_nan=job.training.stop_on_nan,
        zero_stage=job.zero_stage,
        attempt=context.attempt,
        progress=Progress.from_dict(resume[1].totals) if resume else Progress(),
        validate=validator,
        eval_collator=fed.eval_collator,
        classifies=labels is not None,
        method=method_state(job, model),
        gradients=_gradients(job, config, model),
        phases=phases(job, model, context.recorder),
        objective=teaching.objective if teaching is not None else None,
        monitor=monitor,
        model=model,
        args=arguments,
        train_dataset=fed.train,
        eval_dataset=fed.validation if job.evaluation.enabled else None,
        data_collator=fed.train_collator,
        processing_class=tokenizer,
    )
    looked = look.told() if look is not None else []
    _begin(context, counts, fed, looked, str(model.config._attn_implementation), resume[1].step if resume else 0)
    context.say("training", f"training {counts.trainable:,} of {counts.total:,} parameters")
    with monitor:
        trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    return _finish(context, trainer, counts, flops, validator, labels, teaching)


class _Look:
    """The check of the data, in a thread of its own, which nobody waits for if the job fails before."""

    def __init__(self, job: Job, paths: RunPaths) -> None:
        self._strict = job.checks.strict
        self._found: Future[list[dict[str, Any]]] = Future()
        Thread(target=self._look, args=(job, paths), daemon=True).start()

    def _look(self, job: Job, paths: RunPaths) -> None:
        try:
            self._found.set_result(check_before_training(job, paths))
        except Exception as error:
            # For whoever waits for it.
            self._found.set_exception(error)

    def told(self) -> list[dict[str, Any]]:
        """Wait for its end.

        Raises:
            DataError: the data is not fit to train on, and the job is strict about that.
        """
        reports = self._found.result()
        tell(reports, strict=self._strict)
        return reports


def _gradients(job: Job, config: PretrainedConfig, model: Any) -> GradientNorms | None:
    asked = job.gradients
    if not asked.enabled:
        return None
    return GradientNorms(model, str(config.model_type), every=asked.log_frequency, layers=asked.layer_norm)


def _flops(job: Job, config: PretrainedConfig, model: Any, num_labels: int | None) -> TrainingFlops | None:
    # The model's own: where the checkpoint lacks a pooler, that is trained too.
    adapter = getattr(model, "peft_config", {}).get("default")
    again = job.training.gradient_checkpointing
    try:
        # The twin's weights are drawn, and what the model draws is to be the same with it and without.
        with torch.random.fork_rng(devices=[]):
            return training_parts(config, adapter, gradient_checkpointing=again, num_labels=num_labels)
    except Exception as error:
        # Code of any architecture runs here on tensors without numbers, and may not stand it. The figure is then
        # absent, which is no reason to stop the job.
        log.warning("the FLOPs of this model cannot be counted: %s", error)
        return None


def _begin(
    context: Context,
    counts: ParameterCount,
    fed: Feed,
    looked: list[dict[str, Any]],
    attention: str,
    resume_step: int,
) -> None:
    if context.recorder is None:
        return
    context.recorder.event(
        "start",
        attempt=context.attempt,
        resume_step=resume_step,
        world_size=context.rank.world_size,
        zero_stage=context.job.zero_stage,
        device=str(context.device),
        parameters={"total": counts.total, "trainable": counts.trainable},
        data={
            "sha256": fed.data.sha256,
            "task": fed.data.task,
            "versions": {report["dataset"]: report["version"] for report in looked},
            **(asdict(fed.report) if fed.report else {}),
        },
        packing=fed.packing,
        attention=attention,
        liger=uses_liger(context.job, context.device),
    )
    if resume_step:
        log.info("going on from step %d", resume_step)


def _finish(
    context: Context,
    trainer: FineTuner,
    counts: ParameterCount,
    flops: TrainingFlops | None,
    validator: Validator | None,
    labels: list[str] | None,
    teaching: Teaching | None,
) -> dict[str, Any]:
    paths, state = context.paths, trainer.state
    context.say("finishing", "keeping the model")
    kept = last = int(state.global_step)
    load = trainer.monitor.summary() if trainer.monitor is not None else {}
    peak = over_ranks(peak_gb(context.device) | load)
    if validator is None:
        trainer.save_model(str(paths.final_model))
    if context.recorder is None:
        barrier()
        return {}
    if validator is not None:
        kept = finish.keep_best(paths, int(state.best_global_step or last))
    else:
        # The Trainer pickles its arguments beside the weights; nobody needs them and nobody should load them.
        (paths.final_model / "training_args.bin").unlink(missing_ok=True)
    if labels is not None:
        keep_labels(paths.final_model, labels)
    artifacts = finish.verify_model(paths.final_model)
    metrics = _summary(context, trainer, counts, flops, peak, teaching)
    evaluation: dict[str, Any] | None = None
    if validator is not None:
        scores, provenance = _validation_at(paths, kept)
        before, _ = _validation_at(paths, 0)
        metrics |= {f"base/{k.replace('/', '_', 1)}": v for k, v in before.items() if k.startswith("validation/")}
        _keep_predictions(paths, kept)
        metrics |= final_metrics(scores)
        evaluation = evaluation_results(scores)
        evaluation["data"] = {
            "name": context.job.data.validation or context.job.data.dataset,
            "sha256": validator.data.validation_sha256,
            "task": validator.data.task,
        }
        evaluation["provenance"] = {"step": kept, **provenance}
    finish.write_results(paths, flat(context.job), metrics, evaluation)
    context.recorder.summary(metrics)
    finish.draw(paths, context.job.lang)
    if "train/peak_vram_gb" in metrics:
        log.info("Peak Training VRAM: %.2f GB", metrics["train/peak_vram_gb"])
    log.info("Model Size: %.2f GB", metrics["inference/model_size_gb"])
    context.recorder.event("end", step=last, kept_step=kept)
    context.recorder.events.sync()
    finish.mark_done(paths, context.attempt, last, artifacts)
    # Only now: an attempt that ends before the marker leaves the next one what it goes on from.
    finish.tidy_checkpoints(paths, {kept, last} if validator is not None else set())
    tidy(paths)
    barrier()
    return metrics


def _summary(
    context: Context,
    trainer: FineTuner,
    counts: ParameterCount,
    flops: TrainingFlops | None,
    peak: dict[str, float],
    teaching: Teaching | None,
) -> dict[str, Any]:
    done, steps = trainer.progress.run, int(trainer.state.global_step)
    losses = [float(e["loss"]) for e in Run(context.paths.root).events("step")]
    tail = losses[-max(1, len(losses) // 10) :]
    metrics: dict[str, Any] = {
        "train/steps": steps,
        "train/world_size": world_size(),
        "train/first_loss": losses[0],
        "train/final_loss": sum(tail) / len(tail),
        "train/runtime_s": done.seconds,
        "train/throughput_samples_per_sec": done.samples / done.seconds,
        "train/throughput_tokens_per_sec": done.tokens / done.seconds,
        "train/padding_frac": 1 - done.tokens / done.padded_tokens,
        "train/data_wait_frac": done.waited / done.seconds,
        "model/total_params": counts.total,
        "model/trainable_params": counts.trainable,
        "model/trainable_pct": counts.trainable_percent,
        "inference/model_size_gb": folder_size_gb(context.paths.final_model),
        **peak,
    }
    if flops is not None:
        shapes = int(done.padded_tokens), int(done.squares), int(done.samples)
        total = flops.whole.total(*shapes) - (teaching.unpredicted(done) if teaching is not None else 0)
        metrics["train/total_training_flops_tflops"] = total / 1e12
        metrics["train/flops_per_step_tflops"] = total / 1e12 / steps
        if context.job.training.gradient_checkpointing:
            metrics["train/recomputation_flops_tflops"] = flops.recomputation.total(*shapes) / 1e12
    if teaching is not None:
        metrics |= teaching.figures(done)
    return metrics


def _validation_at(paths: RunPaths, step: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of the validation at a step, of whichever attempt, and how they were made; empty when there was none."""
    found = [e for e in Run(paths.root).events("validation") if e["step"] == step]
    return (found[-1]["metrics"], found[-1].get("provenance", {})) if found else ({}, {})


def _keep_predictions(paths: RunPaths, step: int) -> None:
    """Bring the predictions of a step's validation to the run's top."""
    for number in reversed(paths.attempt_numbers()):
        predictions = paths.attempt(number) / f"predictions-{step}.jsonl"
        if predictions.is_file():
            shutil.copyfile(predictions, paths.predictions)
            return

"""A job's distillation put together: the student, the teacher or its lessons, the objective."""

from __future__ import annotations

import gc
import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from hpcft.errors import ConfigError
from hpcft.measure.flops import StepFlops, forward_flops, head_flops, twin
from hpcft.models.open import subject
from hpcft.models.student import make_student
from hpcft.models.teacher import check_same_tokenizer, check_widths, divided, teacher_config, teacher_job
from hpcft.runs.paths import RunPaths
from hpcft.spec.distill import STUDENT
from hpcft.spec.job import Job
from hpcft.train.context import Context
from hpcft.train.distill import Display, Distiller
from hpcft.train.feed import Feed
from hpcft.train.lessons import LessonCollator, Lessons, learn, lesson_folder
from hpcft.train.ranks import barrier, from_first, sum_over_ranks
from hpcft.train.show import JobOutlet, Show
from hpcft.train.stop import Stopped
from hpcft.train.teacher import teacher_of
from hpcft.viz.texts import text

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from hpcft.train.trainer import Totals

log = logging.getLogger(__name__)
_MB = 1024**2


@dataclass(frozen=True)
class Teaching:
    """What a distillation adds to a training.

    Attributes:
        objective: of the trainer.
        feed: the rows, and batches that know where their answers are.
        forward: FLOPs of the teacher's forward; None where they cannot be counted.
        head: FLOPs of the teacher's output head at one position; student_head: of the student's.
        once: what the teacher did before training, as `Lessons.work` tells it; None where it is asked meanwhile.
        parameters: of the teacher.
    """

    objective: Distiller
    feed: Feed
    forward: StepFlops | None
    head: int
    student_head: int
    once: list[int] | None
    parameters: int

    def unpredicted(self, done: Totals) -> int:
        """FLOPs of a whole training step that the student's output head did not do: forward, and backward twice."""
        return round(3 * self.student_head * (done.padded_tokens - done.predicted))

    def figures(self, done: Totals) -> dict[str, float]:
        """Of a run's summary."""
        found: dict[str, float] = {"model/teacher_params": self.parameters}
        if self.forward is not None:
            own = [int(done.padded_tokens), int(done.squares), int(done.samples), int(done.predicted)]
            tokens, squares, samples, predicted = self.once or own
            flops = self.forward.total(tokens, squares, samples) - self.head * (tokens - predicted)
            found["train/teacher_flops_tflops"] = flops / 1e12
        return found


def with_student(context: Context) -> Job:
    """The job with the model that it trains: where a student is to be made, the one in the run's folder.

    Raises:
        UnavailableError, ConfigError: there is none of this shape.
    """
    job, folder = context.job, context.paths.student
    if not job.distills or job.model.name != STUDENT:
        return job
    if context.rank.is_first:
        context.say("starting", f"making a student after {job.distill.teacher}")
        make_student(job, folder)
    barrier()
    return job.model_copy(update={"model": job.model.model_copy(update={"name": str(folder), "revision": None})})


def teach(
    context: Context,
    job: Job,
    fed: Feed,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    display: Display | None = None,
) -> Teaching:
    """Open the teacher, or keep its lessons; on every rank.

    Args:
        job: with the student's folder.
        config: the student's.
        display: on the first rank; the console's when absent.

    Raises:
        ConfigError: the student cannot learn from this teacher.
        Stopped: asked to, while the teacher was asked; what it said is kept.
    """
    if fed.data.task == "classification":
        raise ConfigError(
            "a teacher's next-token distributions are learned, and a classifier has none",
            where="data.task",
            hint="name the task of the rows: --set data.task=generation",
        )
    check_same_tokenizer(tokenizer, job)
    told = teacher_config(job)
    check_widths(job.distill.loss, config.hidden_size, told.hidden_size)
    own, theirs = (sum(p.numel() for p in twin(c).parameters()) for c in (config, told))
    # As float32, whatever type either is kept in.
    sizes = text("student_size", job.distill.lang, teacher=4 * theirs / _MB, student=4 * own / _MB)
    if context.rank.is_first:
        log.info("%s", sizes)
    teacher: Any = None
    lessons: Lessons | None = None
    once: list[int] | None = None
    if job.distill.cache:
        lessons = _lessons(context, job, fed)
        once = None if job.distill.cache_folder is not None else lessons.work()
        fed = replace(fed, train=[{**row, "number": n} for n, row in enumerate(fed.train)])
    else:
        context.say("starting", f"loading the teacher {job.distill.teacher}")
        teacher = teacher_of(job, context.device)
    fed = replace(fed, train_collator=LessonCollator(fed.train_collator, lessons))
    if display is None and context.recorder is not None:
        display = Show(job.distill, tokenizer, JobOutlet(context.recorder))
    objective = Distiller(job.distill, teacher, display=display)
    # What other runs have asked is no work of this one.
    counted = not job.distill.cache or once is not None
    forward, head, student_head = _flops(job, config, told) if context.rank.is_first else (None, 0, 0)
    return Teaching(objective, fed, forward if counted else None, head, student_head, once, theirs)


def tidy(paths: RunPaths) -> None:
    """Remove what was made for the training alone."""
    for folder in (paths.student, paths.lessons):
        shutil.rmtree(folder, ignore_errors=True)


def _lessons(context: Context, job: Job, fed: Feed) -> Lessons:
    first = context.rank.is_first
    folder = from_first(lesson_folder(job, fed.train, context.paths.lessons) if first else context.paths.lessons)
    lessons = Lessons(folder, len(fed.train))
    missing = from_first(lessons.missing() if first else [])
    if not missing:
        return lessons
    context.say("starting", f"loading the teacher {job.distill.teacher}")
    teacher = teacher_of(job, context.device)
    # The ranks of a divided teacher answer together, and one of them writes.
    rank, ranks = (0, 1) if divided(job) else (context.rank.rank, context.rank.world_size)
    for turn in range(0, len(missing), ranks):
        if sum_over_ranks([float(context.stop.wanted)], context.device)[0] > 0:
            raise Stopped(0)
        context.say("starting", f"asking the teacher: {turn * 100 // len(missing)} % of {len(fed.train)} rows")
        if turn + rank >= len(missing):
            continue
        shard = missing[turn + rank]
        lesson = learn(
            lessons,
            shard,
            teacher,
            fed.train,
            fed.train_collator,
            batch_size=job.training.per_device_train_batch_size,
            top_k=job.distill.top_k or 1,
            temperature=job.distill.temperature,
            device=context.device,
        )
        if ranks > 1 or first:
            lessons.write(shard, *lesson)
    barrier()
    del teacher
    gc.collect()
    if context.device.type == "cuda":
        torch.cuda.empty_cache()
    return lessons


def _flops(job: Job, student: PretrainedConfig, teacher: PretrainedConfig) -> tuple[StepFlops | None, int, int]:
    found = subject(teacher_job(job))
    adapter: Any = None
    try:
        with torch.random.fork_rng(devices=[]):
            if found.adapter is not None and job.distill.teacher_quantization != "none":
                from peft import PeftConfig

                # Else it is in the weights.
                adapter = PeftConfig.from_pretrained(str(found.adapter))
            return forward_flops(teacher, adapter=adapter), head_flops(teacher), head_flops(student)
    except Exception as error:
        # As with the student's own: the figure is absent, which is no reason to stop the job.
        log.warning("the FLOPs of the teacher cannot be counted: %s", error)
        return None, 0, 0

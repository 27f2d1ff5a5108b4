"""What a teacher says of each training row, asked once and kept on disk, so that it need not be there any more.

A shard holds the lessons of some rows, one after the other, in safetensors: `values` and `tokens` of shape (n, k) and
`rest` of shape (n,) as in `distill_losses.TopK`, and `ends` of shape (rows,), where each row's part ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from hpcft.models.availability import model_folder, weights_fault
from hpcft.models.open import subject
from hpcft.models.teacher import teacher_job
from hpcft.runs.files import explained, make_private, sync_folder
from hpcft.spec.job import Job
from hpcft.train.counting import count_batch
from hpcft.train.distill_losses import TopK, places_of
from hpcft.train.teacher import ask

_ROWS = 256
# Shards whose files are open at a time.
_OPEN = 128

Collate = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


class Lessons:
    """The lessons of a job's training rows.

    Args:
        folder: of the shards. rows: of training data; a window of packed rows is one.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.rows = rows
        self._open = lru_cache(maxsize=_OPEN)(self._opened)

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there, or not whole."""
        shards = range(-(-self.rows // _ROWS))
        return [n for n in shards if not self.path(n).is_file() or weights_fault(self.path(n))]

    def path(self, shard: int) -> Path:
        """A shard's file."""
        return self.folder / f"{shard:06d}.safetensors"

    def rows_of(self, shard: int) -> range:
        """Numbers of the rows in a shard."""
        return range(shard * _ROWS, min(self.rows, (shard + 1) * _ROWS))

    def work(self) -> list[int]:
        """What the teacher did for all of them: tokens with padding, squares of lengths, sequences, and positions of
        its output head."""
        told = []
        for shard in range(-(-self.rows // _ROWS)):
            with safe_open(self.path(shard), framework="pt") as file:
                told.append(json.loads(file.metadata()["work"]))
        return [sum(column) for column in zip(*told, strict=True)]

    def write(self, shard: int, lesson: TopK, counts: Sequence[int], work: Sequence[int]) -> None:
        """Keep a shard; a reader sees it whole or not at all.

        Args:
            lesson: of all of its rows. counts: places of each row. work: as above, of this shard.

        Raises:
            NotAllowedError: no space, no permission.
        """
        path = self.path(shard)
        content = {
            "values": lesson.values.float().cpu().contiguous(),
            "tokens": lesson.tokens.to(torch.int32).cpu().contiguous(),
            "rest": lesson.rest.float().cpu().contiguous(),
            "ends": torch.tensor(counts).cumsum(0),
        }
        with explained(path, "keep the teacher's lessons"):
            make_private(self.folder)
            # A name of its own: runs on other nodes may write the same shard into a shared folder.
            fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=self.folder)
            aside = Path(name)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(save(content, {"work": json.dumps(list(work))}))
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise
            sync_folder(self.folder)

    def of(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """The lessons of some rows, one after the other, as `TopK` takes them."""
        parts = [self._row(number) for number in numbers]
        return {name: torch.cat([part[name] for part in parts]) for name in ("values", "tokens", "rest")}

    def _row(self, number: int) -> dict[str, torch.Tensor]:
        file, ends = self._open(number // _ROWS)
        place = number % _ROWS
        part = slice(ends[place - 1] if place else 0, ends[place])
        return {name: file.get_slice(name)[part] for name in ("values", "tokens", "rest")}

    def _opened(self, shard: int) -> tuple[Any, list[int]]:
        file = safe_open(self.path(shard), framework="pt")
        return file, file.get_tensor("ends").tolist()

    def __getstate__(self) -> dict[str, Any]:
        # For a data loader that starts its processes anew: open files stay here.
        return {"folder": self.folder, "rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class LessonCollator:
    """Adds to a batch where its answers are, found on the CPU while the device is busy, and the rows' lessons.

    Args:
        collate: lays rows into a batch.
        lessons: None where the teacher is asked while training; else rows have a `number`.
    """

    def __init__(self, collate: Collate, lessons: Lessons | None = None) -> None:
        self.collate = collate
        self.lessons = lessons

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch with `places` as `distill_losses.places_of` gives them and, if there are any, the `lesson`."""
        batch = self.collate(rows)
        batch["places"] = _places(batch)
        if self.lessons is not None:
            batch["lesson"] = self.lessons.of([row["number"] for row in rows])
        return batch


def lesson_folder(job: Job, rows: Sequence[dict[str, Any]], own: Path) -> Path:
    """Where the lessons of a job's rows are: in the folder that runs share, or in the run's own, under a name that
    stands for the teacher, the rows as tokens, and what is asked of the teacher.

    Args:
        own: the run's.
    """
    shared = job.distill.cache_folder
    digest = hashlib.sha256(json.dumps(_asked(job), sort_keys=True).encode())
    for row in rows:
        told = [row["input_ids"], row["labels"], row.get("position_ids")]
        digest.update(json.dumps(told).encode())
    return (own if shared is None else Path(shared)) / digest.hexdigest()[:16]


def _asked(job: Job) -> list[Any]:
    found = subject(teacher_job(job))
    folders = [model_folder(found.base), found.adapter]
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns]
        for folder in folders
        if folder is not None
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".safetensors")
    ]
    d = job.distill
    base = [found.base.name, found.base.revision, job.model.dtype, d.teacher_quantization]
    return [_ROWS, d.top_k, d.temperature, base, files]


@torch.no_grad()
def learn(
    lessons: Lessons,
    shard: int,
    teacher: Any,
    rows: Sequence[dict[str, Any]],
    collate: Collate,
    *,
    batch_size: int,
    top_k: int,
    temperature: float,
    device: torch.device,
) -> tuple[TopK, list[int], list[int]]:
    """Ask the teacher about the rows of a shard.

    Args:
        rows: all of the job's. collate: as in training; a window of packed rows is laid by itself.

    Returns:
        What `Lessons.write` takes.
    """
    own = lessons.rows_of(shard)
    parts: list[TopK] = []
    counts: list[int] = []
    work = torch.zeros(4, dtype=torch.long)
    for start in range(own.start, own.stop, batch_size):
        chosen = rows[start : min(own.stop, start + batch_size)]
        counts += [int(_places(collate([row]))["flat"].numel()) for row in chosen]
        batch = {name: tensor.to(device) for name, tensor in collate(chosen).items()}
        places = _places(batch)
        del batch["labels"]
        said = ask(teacher, batch, places, "response")
        parts.append(TopK.of(said.logits, top_k, temperature))
        work += torch.tensor([*map(int, count_batch(batch)[1:].tolist()), said.asked])
    whole = TopK(*(torch.cat([getattr(part, name) for part in parts]) for name in ("values", "tokens", "rest")))
    return whole, counts, work.tolist()


def _places(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return places_of(batch["input_ids"], batch["labels"], batch.get("position_ids"))

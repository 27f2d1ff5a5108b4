"""The part of the trainer that saves checkpoints: all ranks, or none of them, have saved when it is done."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import Trainer

from hpcft.errors import HpcftError, NotAllowedError
from hpcft.runs.files import explained, make_private
from hpcft.runs.paths import RunPaths
from hpcft.train.checkpoint import Manifest, checkpoints, commit, contents, make_durable, remove_older
from hpcft.train.ranks import Rank, from_all, from_first
from hpcft.train.recorder import Recorder

log = logging.getLogger(__name__)

_PROBE_BYTES = 4 * 1024 * 1024
# What torch says instead of the operating system's words when a file cannot be written.
_TORCH_WORDS = ("inline_container", "PytorchStreamWriter")


class SavingTrainer(Trainer):
    """Saves in the Trainer's own formats, aside, and keeps what is whole.

    A rank whose part cannot be written goes on through the collectives of the save, so that the others do not wait
    for it; then all ranks learn of it, drop what they have written, and training goes on with the checkpoint before.
    """

    rank: Rank
    paths: RunPaths
    recorder: Recorder | None
    attempt: int
    zero_stage: int | None
    # Set when the job leaves after this save: one that fails is then an error, not a warning.
    leaving = False

    _aside: Path | None = None
    _faults: list[str]
    _bytes = 0
    _watches_deepspeed = False

    def totals(self) -> dict[str, Any]:
        """Counters that a checkpoint carries on."""
        return {}

    def save_more(self, folder: Path) -> None:
        """Write what a checkpoint holds beside the Trainer's own files; on the first rank."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        began = time.monotonic()
        step = self.state.global_step
        if self.recorder is not None:
            self.recorder.status("saving", step=step, total_steps=self.state.max_steps)
            make_private(self.paths.checkpoints)
        self._aside, self._faults = self.paths.saving(self.attempt), []
        folder = self._aside / f"checkpoint-{step}"
        try:
            self._watch_deepspeed()
            with self._going_on(folder), _without_checksums():
                super()._save_checkpoint(model, trial)
            if self.recorder is not None and not self._faults:
                with self._going_on(folder):
                    _forget_best_folder(folder / "trainer_state.json")
                    self.save_more(folder)
            kept = self._all_saved() and self._keep(folder)
        finally:
            self._aside = None
        if not kept:
            self._give_up(step)
        elif self.recorder is not None:
            self.recorder.event(
                "checkpoint",
                step=step,
                folder=folder.name,
                seconds=round(time.monotonic() - began, 3),
                bytes=self._bytes,
            )
            self.recorder.events.sync()

    def _keep(self, folder: Path) -> bool:
        """Bring every rank's files to the disk and the checkpoint into place; whether that has worked."""
        # A file server may show a rank the files of another node a moment later, but its own at once.
        seen = from_all(contents(folder))
        mine = [
            name
            for i, name in enumerate(sorted(set().union(*seen)))
            if _owner([r for r, names in enumerate(seen) if name in names], i) == self.rank.rank
        ]
        files: dict[str, list[Any]] = {}
        with self._going_on(folder):
            files = make_durable(folder, mine)
        parts = from_all(files)
        if not self._all_saved():
            return False
        manifest = Manifest(
            self.state.global_step,
            self.rank.world_size,
            self.zero_stage,
            self.attempt,
            self.totals(),
            {name: entry for part in parts for name, entry in part.items()},
        )
        self._bytes = manifest.bytes
        stale: HpcftError | None = None
        if self.recorder is not None:
            try:
                with self._going_on(folder):
                    commit(self.paths, folder, manifest)
                    remove_older(self.paths, self.state.best_global_step)
            except HpcftError as error:
                stale = error
        words = from_first(str(stale or ""))
        if stale is not None:
            raise stale
        if words:
            raise HpcftError(words)
        return self._all_saved()

    def _give_up(self, step: int) -> None:
        """Say what could not be saved and what is left.

        Raises:
            NotAllowedError: on every rank, when the job was to leave after this save.
        """
        if self.recorder is not None:
            shutil.rmtree(self.paths.saving(self.attempt), ignore_errors=True)
        left = from_first(next((f.name for f in checkpoints(self.paths)), ""))
        reason = self._faults[0]
        rest = f"{left} is the last good one" if left else "there is no earlier one"
        if self.recorder is not None:
            self.recorder.event("save_failed", step=step, reason=reason, left=left)
            log.warning("checkpoint-%d could not be saved: %s; %s", step, reason, rest)
        if self.leaving:
            raise NotAllowedError(
                f"stopped at step {step}, which could not be saved: {reason}; {rest}",
                where=str(self.paths.checkpoints),
                hint=f"free some space, then the run goes on from there: hpcft resume {self.paths.root.name}",
            )

    def _all_saved(self) -> bool:
        """Whether no rank met a fault. Every rank then knows the faults of all."""
        self._faults = [
            f"{fault} (rank {r})" if self.rank.world_size > 1 else fault
            for r, found in enumerate(from_all(self._faults))
            for fault in found
        ]
        return not self._faults

    @contextmanager
    def _going_on(self, folder: Path) -> Iterator[None]:
        """Remember a file that cannot be written instead of raising; outside of a checkpoint raise as ever."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            told_by_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in _TORCH_WORDS)
            if self._aside is None or (isinstance(error, RuntimeError) and not told_by_torch):
                raise
            self._faults.append(_cause(error, folder))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._aside) if self._aside is not None else super()._get_output_dir(trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The Trainer's; inside a checkpoint a fault is remembered."""
        with self._going_on(Path(str(output_dir or self.args.output_dir))):
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        with self._going_on(Path(output_dir)):
            super()._save_optimizer_and_scheduler(output_dir)

    def _save_scaler(self, output_dir: str) -> None:
        with self._going_on(Path(output_dir)):
            super()._save_scaler(output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        with self._going_on(Path(output_dir)):
            super()._save_rng_state(output_dir)

    def _watch_deepspeed(self) -> None:
        """Make DeepSpeed's save go on too: it waits for all ranks between its files and after them."""
        engine = getattr(getattr(self, "deepspeed", None), "checkpoint_engine", None)
        if engine is None or self._watches_deepspeed:
            return
        its_own = engine.save

        def save(state_dict: Any, path: str) -> None:
            with self._going_on(Path(path).parent):
                try:
                    its_own(state_dict, path)
                except (OSError, RuntimeError):
                    # What is left of it would keep DeepSpeed's small last file from the disk.
                    Path(path).unlink(missing_ok=True)
                    raise

        engine.save = save
        self._watches_deepspeed = True


def _owner(ranks: list[int], turn: int) -> int:
    return ranks[turn % len(ranks)]


def _cause(error: Exception, folder: Path) -> str:
    """Why a file could not be written, in plain words. torch and safetensors do not hand on the system's reason, so
    a few megabytes are written once more, to hear it."""
    seen = error
    if not isinstance(error, OSError):
        probe = folder / ".probe"
        try:
            make_private(folder)
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                os.fsync(file.fileno())
        except OSError as refusal:
            seen = refusal
        finally:
            probe.unlink(missing_ok=True)
    if not isinstance(seen, OSError):
        return str(seen).splitlines()[0]
    try:
        with explained(folder, "save"):
            raise seen
    except NotAllowedError as told:
        return told.message.removeprefix("cannot save: ")


@contextmanager
def _without_checksums() -> Iterator[None]:
    """Let torch compute no CRC32 of what it saves, which took half of the optimizer's time: the manifest has a hash of
    each file."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _forget_best_folder(state: Path) -> None:
    """Leave out where the best checkpoint stands: the folder is about to be renamed. Its step stays."""
    content = json.loads(state.read_text(encoding="utf-8"))
    content["best_model_checkpoint"] = None
    state.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")

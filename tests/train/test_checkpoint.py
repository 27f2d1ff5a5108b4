"""Checkpoint folders: whole or not there, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcft.errors import SecondAttemptError
from hpcft.runs.create import begin_attempt
from hpcft.runs.paths import RunPaths
from hpcft.train import checkpoint
from hpcft.train.checkpoint import (
    MANIFEST,
    Manifest,
    checkpoints,
    commit,
    contents,
    faults,
    make_durable,
    model_part,
    read_manifest,
    remove_leftovers,
    remove_older,
    set_aside,
)

FILES = {
    "adapter_model.safetensors": 20_000,
    "adapter_config.json": 700,
    "optimizer.pt": 40_001,
    "rng_state.pth": 300,
    "trainer_state.json": 1,
    "global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt": 9_000,
    "latest": 0,
}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    run = RunPaths(tmp_path / "run")
    begin_attempt(run)
    return run


def write(paths: RunPaths, step: int, attempt: int = 1) -> Path:
    aside = paths.saving(attempt) / f"checkpoint-{step}"
    source = random.Random(step)
    for name, size in FILES.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_bytes(source.randbytes(size))
    return aside


def keep(paths: RunPaths, step: int, attempt: int = 1) -> Path:
    aside = write(paths, step, attempt)
    files = make_durable(aside, contents(aside))
    return commit(paths, aside, Manifest(step, 1, None, attempt, {"run": {"tokens": 12.0}}, files))


def noticed(folder: Path) -> bool:
    manifest = read_manifest(folder)
    return manifest is None or bool(faults(folder, manifest))


def flip(file: Path, at: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 1 << int(at * 7919) % 8
    file.write_bytes(content)


def cut(file: Path, at: float) -> None:
    file.write_bytes(file.read_bytes()[: int(at * file.stat().st_size)])


def lengthen(file: Path, at: float) -> None:
    file.write_bytes(file.read_bytes() + bytes(1 + int(at * 5000)))


def remove(file: Path, at: float) -> None:
    file.unlink()


def zero(file: Path, at: float) -> None:
    """What some file systems leave of a file after a power cut."""
    content = file.read_bytes()
    start = int(at * len(content))
    file.write_bytes(content[:start] + bytes(len(content) - start))


def test_what_was_kept_is_found_whole(paths: RunPaths) -> None:
    folder = keep(paths, 4)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert faults(folder, manifest) == []
    assert manifest.files.keys() == FILES.keys()
    assert manifest.bytes == sum(FILES.values())
    assert not paths.saving(1).exists()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([*(n for n, size in FILES.items() if size > 1), MANIFEST]),
    damage=st.sampled_from([flip, cut, lengthen, remove, zero]),
    at=st.floats(0, 1, exclude_max=True),
)
def test_r4_any_damage_to_any_file_is_noticed(
    tmp_path: Path, name: str, damage: Callable[[Path, float], None], at: float
) -> None:
    paths = RunPaths(tmp_path / "run")
    shutil.rmtree(paths.root, ignore_errors=True)
    begin_attempt(paths)
    folder = keep(paths, 4)
    before = (folder / name).read_bytes()
    damage(folder / name, at)
    changed = not (folder / name).exists() or (folder / name).read_bytes() != before
    # A line end after the manifest's record says nothing.
    harmless = name == MANIFEST and changed and (folder / name).is_file()
    harmless = harmless and (folder / name).read_bytes().rstrip(b"\n") == before.rstrip(b"\n")
    assert noticed(folder) == (changed and not harmless)


def test_each_rank_looks_at_its_share_and_together_at_all(paths: RunPaths) -> None:
    folder = keep(paths, 4)
    manifest = read_manifest(folder)
    assert manifest is not None
    for name in FILES:
        (folder / name).unlink()
    found = [faults(folder, manifest, share, 3) for share in range(3)]
    assert sorted(f for part in found for f in part) == sorted(f"{name}: missing" for name in FILES)
    assert all(found)


def test_a_folder_without_a_manifest_is_no_checkpoint_and_is_set_aside_under_another_name(paths: RunPaths) -> None:
    folder = keep(paths, 4)
    (folder / MANIFEST).unlink()
    assert read_manifest(folder) is None
    assert set_aside(folder).name == "damaged-checkpoint-4"
    (keep(paths, 4) / MANIFEST).unlink()
    assert set_aside(folder).name == "damaged-checkpoint-4-2"
    assert checkpoints(paths) == []


def test_fencing_a_stale_attempt_keeps_nothing(paths: RunPaths) -> None:
    keep(paths, 2)
    aside = write(paths, 4)
    files = make_durable(aside, contents(aside))
    begin_attempt(paths)
    with pytest.raises(SecondAttemptError, match="attempt 1 is not the newest"):
        commit(paths, aside, Manifest(4, 1, None, 1, {}, files))
    assert [f.name for f in checkpoints(paths)] == ["checkpoint-2"]


def test_a_newer_attempt_takes_away_what_a_stale_one_is_writing(paths: RunPaths) -> None:
    aside = write(paths, 4)
    files = make_durable(aside, contents(aside))
    assert remove_leftovers(paths) == ["checkpoint-4"]
    with pytest.raises(OSError, match="No such file"):
        commit(paths, aside, Manifest(4, 1, None, 1, {}, files))
    assert checkpoints(paths) == []


def test_the_same_step_once_more_replaces_it(paths: RunPaths) -> None:
    keep(paths, 4)
    folder = keep(paths, 4)
    assert not noticed(folder)
    assert [f.name for f in paths.checkpoints.iterdir()] == ["checkpoint-4"]


@pytest.mark.parametrize(("best", "left"), [(None, [6, 8]), (2, [2, 8]), (8, [6, 8]), (5, [6, 8])])
def test_the_newest_and_the_best_stay_or_the_newest_two(paths: RunPaths, best: int | None, left: list[int]) -> None:
    for step in (2, 4, 6, 8):
        keep(paths, step)
    remove_older(paths, best)
    assert sorted(int(f.name.rpartition("-")[2]) for f in checkpoints(paths)) == left
    assert len(list(paths.checkpoints.iterdir())) == 2


def test_no_pickle_is_part_of_the_model(paths: RunPaths) -> None:
    manifest = read_manifest(keep(paths, 4))
    assert manifest is not None
    assert model_part(manifest).files.keys() == {"adapter_model.safetensors", "adapter_config.json"}


class Killed(BaseException):
    """The process ends here."""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(1, 45))
def test_r4_a_kill_at_any_operation_of_a_save_leaves_the_one_before_or_the_new_one(tmp_path: Path, at: int) -> None:
    paths = RunPaths(tmp_path / "run")
    shutil.rmtree(paths.root, ignore_errors=True)
    begin_attempt(paths)
    keep(paths, 2)
    keep(paths, 4)
    left = at

    def counted(whole: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return whole(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for place, name in ((os, "fsync"), (os, "open"), (Path, "rename"), (Path, "open"), (shutil, "rmtree")):
            patch.setattr(place, name, counted(getattr(place, name)))
        try:
            keep(paths, 6)
            remove_older(paths, None)
            ended = True
        except Killed:
            ended = False
    whole = [int(f.name.rpartition("-")[2]) for f in checkpoints(paths) if not noticed(f)]
    assert whole[0] in ((6,) if ended else (4, 6))
    assert len(whole) >= 2
    remove_leftovers(paths)
    # The next save finds nothing in its way.
    assert not noticed(keep(paths, 8))
    assert {f.name for f in paths.checkpoints.iterdir()} <= {f"checkpoint-{n}" for n in (2, 4, 6, 8)}


def test_a_full_disk_while_the_manifest_is_written_leaves_the_one_before(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(paths, 2)
    aside = write(paths, 4)
    manifest = Manifest(4, 1, None, 1, {}, make_durable(aside, contents(aside)))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        commit(paths, aside, manifest)
    assert [f.name for f in checkpoints(paths)] == ["checkpoint-2"]

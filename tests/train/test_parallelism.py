"""Every way of dividing a job over ranks gives the losses of one rank, or is refused before submission."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.matrix import STAGES, VARIANTS, Cell, all_cells
from support.matrix_driver import refusal, run_local
from support.parallelism_table import TOLERANCE, difference

from hpcft.models.quickstart import build_model


def covering() -> list[Cell]:
    """Each variant with each stage and offload, the other choices taking turns: 32 cells."""
    cells = [c for c in all_cells() if c.dtype != "float16" and refusal(c) is None]
    chosen: dict[tuple[object, ...], Cell] = {}
    for cell in cells:
        turn = STAGES.index((cell.zero, cell.offload)) + len(cell.variant)
        wanted = (("float32", "bfloat16")[turn % 2], 1 + turn // 2 % 2, turn // 4 % 2 == 1)
        if (cell.dtype, cell.accumulation, cell.checkpointing) == wanted:
            chosen.setdefault((cell.variant, cell.zero, cell.offload), cell)
    return list(chosen.values())


def sample(cells: list[Cell]) -> list[Cell]:
    """Of these, one of each stage and offload, the variants taking turns."""
    return [c for c in cells if (STAGES.index((c.zero, c.offload)) - VARIANTS.index(c.variant)) % len(VARIANTS) == 0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_model(folder, steps=0, hidden=64, layers=2, vocab=512)
    return folder


def check(cells: list[Cell], model: Path, folder: Path) -> None:
    references = run_local(list(dict.fromkeys(c.reference for c in cells)), model, folder / "one", 1)
    results = run_local(cells, model, folder / "two", 2)
    faults = []
    for cell in cells:
        reference, result = references[cell.reference], results[cell]
        error = reference.get("error") or result.get("error")
        if error:
            faults.append(f"{cell.name}: {error[-600:]}")
        elif (far := difference(result["losses"], reference["losses"])) > TOLERANCE[cell.dtype]:
            faults.append(f"{cell.name}: {result['losses']} is not {reference['losses']} ({far:.1e})")
    assert not faults, "\n".join(faults)


def test_two_ranks_lose_as_one_rank_does_in_each_stage_and_offload(model: Path, tmp_path: Path) -> None:
    cells = sample(covering())
    assert sorted((c.zero, c.offload) for c in cells) == sorted(STAGES)
    assert len({c.variant for c in cells}) == 4
    check(cells, model, tmp_path)


@pytest.mark.slow
def test_two_ranks_lose_as_one_rank_does_in_each_variant_stage_and_offload(model: Path, tmp_path: Path) -> None:
    cells = covering()
    assert len({(c.variant, c.zero, c.offload) for c in cells}) == 32
    assert len({(c.dtype, c.accumulation, c.checkpointing) for c in cells}) == 8
    check(cells, model, tmp_path)


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"zero": 0, "offload": "optimizer"}, "training.offload", "ZeRO 1 to 3"),
        ({"zero": 2, "offload": "all"}, "training.offload", "ZeRO 3 alone"),
        ({"dtype": "float16"}, "model.dtype", "bfloat16 or float32"),
    ],
)
def test_what_cannot_work_is_refused_before_submission_with_the_reason(values, key, words) -> None:
    cell = Cell(
        **{"variant": "lora", "dtype": "float32", "zero": 2, "offload": "none", "accumulation": 1} | values,
        checkpointing=False,
    )
    assert words in (refusal(cell) or "")


def test_offload_alone_chooses_the_stage_that_it_needs() -> None:
    from hpcft.spec.job import Job

    assert Job.model_validate({"training": {"offload": "optimizer"}}).zero_stage == 2
    assert Job.model_validate({"training": {"offload": "all"}}).zero_stage == 3


@pytest.mark.slow
def test_deepspeed_s_own_optimizer_is_compiled_once_into_the_node_s_cache(model, tmp_path, monkeypatch) -> None:
    """`adamw_deepspeed` with offload: the compiled part lands in TORCH_EXTENSIONS_DIR and is found there again."""
    from support.worker import Worker

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    settings = {"offload": "optimizer", "optim": "adamw_deepspeed", "max_steps": 3, "num_train_epochs": None}
    worker = Worker(model, tmp_path / "results")
    worker.finished("first", "lora", training=settings, evaluation={"enabled": False})
    built = list((tmp_path / "extensions").rglob("*.so"))
    assert built
    times = [f.stat().st_mtime_ns for f in built]
    worker.finished("second", "lora", training=settings, evaluation={"enabled": False})
    assert [f.stat().st_mtime_ns for f in built] == times

"""Pipeline files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.errors import HpcftError
from hpcft.spec.pipeline import Pipeline, read_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read(tmp_path: Path):  # type: ignore[no-untyped-def]
    def from_text(text: str) -> Pipeline:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return read_pipeline(path)

    return from_text


@pytest.mark.parametrize("file", sorted((ROOT / "jobs" / "pipelines").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_pipelines_that_come_ready_are_read(file: Path) -> None:
    found = read_pipeline(file)
    assert found.name == file.stem
    seen: set[str] = set()
    for stage in found.stages:
        assert set(stage.of) <= seen, "each stage stands behind those that it works on"
        seen.add(stage.name)


def test_a_stage_on_several_is_one_on_each_and_a_report_is_one_on_all(read) -> None:  # type: ignore[no-untyped-def]
    found = read(
        "stages:\n  lora-r8: {variant: lora}\n  full: {variant: full}\n"
        "  scores: {kind: evaluate, of: [lora-r8, full]}\n  bench: {kind: bench, of: scores}\n"
        "  report: {kind: report, of: bench}\n"
    )
    of = {s.name: s.of for s in found.stages}
    assert of == {
        "lora-r8": (),
        "full": (),
        "scores-lora-r8": ("lora-r8",),
        "scores-full": ("full",),
        "bench-lora-r8": ("scores-lora-r8",),
        "bench-full": ("scores-full",),
        "report": ("bench-lora-r8", "bench-full"),
    }


def test_what_measures_may_stand_alone_and_is_then_of_the_base_and_pictures_are_of_all(read) -> None:  # type: ignore[no-untyped-def]
    found = read(
        "stages:\n  base: {kind: bench}\n  lora: {variant: lora}\n  bench: {kind: bench, of: lora}\n"
        "  pictures: {kind: lab, of: [base, lora, bench]}\n"
    )
    of = {s.name: s.of for s in found.stages}
    assert (of["base"], of["pictures"]) == ((), ("base", "lora", "bench"))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("a: {kind: merge}", ["a stage that is to merge names the stage it works on"]),
        ("a: {variant: lora}\n  b: {kind: merge, of: aa}", ["there is no stage 'aa'", "did you mean a?"]),
        ("a: {kind: merg, of: b}\n  b: {variant: lora}", ["'merg' is not one of", "did you mean merge?"]),
        ("a: {of: b}\n  b: {variant: lora}", ["training works on no other stage"]),
        ("a: {variant: lora}\n  b: {kind: evaluate, of: a}\n  c: {kind: merge, of: b}", ["'b' is to evaluate"]),
        ("a: {kind: evaluate, of: b}\n  b: {kind: evaluate, of: a}", ["waits for itself"]),
        ("a b: {variant: lora}", ["the name of a stage"]),
        ("a: lora", ["is no mapping"]),
        ("a: {variant: lora, name: x}", ["a.name", "the pipeline's to choose"]),
        ("a: {variant: lora}\n  a: {variant: full}", ["mine.yaml:3: a: stands twice, first in line 2"]),
        ("a: {variant: lora}\n  b: {kind: merge, of: }", ["names the stage it works on"]),
        ("a: {variant: lora}\n  b: {kind: merge, of: [[a]]}", ["b.of: is the name of a stage"]),
        ("a: {variant: lora}\n  b: {kind: merge, of: {a: b}}", ["b.of: is the name of a stage"]),
        ("a: {variant: lora}\nbase: quickstart", ["base: is no mapping"]),
    ],
)
def test_a_mistake_is_named_with_its_stage(read, stages: str, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HpcftError) as caught:
        read(f"stages:\n  {stages}\n")
    assert "mine.yaml" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "stages: {}", "stage: {}", "- a", "base: {}"])
def test_a_file_without_stages_is_no_pipeline(read, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(HpcftError, match="has no stages"):
        read(text)

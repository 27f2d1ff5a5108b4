"""The front is exact, a comparison says what it left out, and nothing is compared that cannot be."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product

import numpy  # noqa: F401 (front loads it, and the first example's time is limited)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcft.errors import UsageError
from hpcft.report.hypervolume import hypervolume
from hpcft.report.pareto import (
    NAMES,
    Measure,
    Point,
    check_comparable,
    front,
    group_points,
    parse_measure,
    retention,
    staircase,
)

LATENCY = parse_measure("latency")
EM = Measure("final/validation_em", True)
F1 = parse_measure("f1")
PUBLISHED = [
    Point(name, name, {LATENCY.key: latency, F1.key: f1, EM.key: em})
    for name, latency, f1, em in [
        ("Base", 393.1, 29.9, 22.4),
        ("LoRA", 636.2, 28.6, 20.9),
        ("QLoRA", 238.0, 27.4, 20.5),
    ]
]


def names(points: tuple[Point, ...]) -> list[str]:
    return [point.name for point in points]


def measures(directions: list[bool]) -> list[Measure]:
    return [Measure(f"m{i}", more) for i, more in enumerate(directions)]


def points(rows: list[list[float]]) -> list[Point]:
    return [Point(f"p{n}", "g", {f"m{i}": v for i, v in enumerate(row)}) for n, row in enumerate(rows)]


# Few values, so that ties are common.
VALUES = st.one_of(st.integers(0, 3).map(float), st.sampled_from([math.nan, math.inf, -math.inf, -0.0]))


@st.composite
def spaces(draw: st.DrawFn, values: st.SearchStrategy[float] = VALUES) -> tuple[list[Point], list[Measure]]:
    count = draw(st.integers(2, 6))
    rows = draw(st.lists(st.lists(values, min_size=count, max_size=count), max_size=25))
    found = points(rows)
    # Some figures were never taken.
    gone = draw(st.sets(st.tuples(st.integers(0, 24), st.integers(0, count - 1)), max_size=3))
    kept = [
        Point(p.name, "g", {k: v for i, (k, v) in enumerate(p.values.items()) if (n, i) not in gone})
        for n, p in enumerate(found)
    ]
    return draw(st.permutations(kept)), measures(draw(st.lists(st.booleans(), min_size=count, max_size=count)))


def dominates(a: Point, b: Point, space: list[Measure]) -> bool:
    pairs = [(a.values[m.key], b.values[m.key]) if m.maximize else (b.values[m.key], a.values[m.key]) for m in space]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


@given(spaces())
def test_u7_the_front_is_that_of_brute_force_with_ties_and_nan(space: tuple[list[Point], list[Measure]]) -> None:
    found_points, axes = space
    found = front(found_points, axes)
    whole = [p for p in found_points if all(math.isfinite(p.values.get(m.key, math.nan)) for m in axes)]
    exact = {p.name for p in whole if not any(dominates(q, p, axes) for q in whole)}
    assert set(names(found.members)) == exact
    by_name = {p.name: p for p in whole}
    assert {p.name for p, _ in found.dominated} == set(by_name) - exact
    for point, better in found.dominated:
        assert better in exact
        assert dominates(by_name[better], point, axes)
    assert set(found.left_out) == {p.name for p in found_points} - set(by_name)


@given(spaces(), st.randoms())
def test_the_order_of_the_points_changes_nothing(
    space: tuple[list[Point], list[Measure]], chance: random.Random
) -> None:
    found_points, axes = space
    mixed = list(found_points)
    chance.shuffle(mixed)
    assert front(mixed, axes) == front(found_points, axes)


def test_te1_the_front_of_the_published_points_is_qlora_and_base() -> None:
    found = front(PUBLISHED, [LATENCY, EM])
    assert names(found.members) == ["QLoRA", "Base"]
    assert [(p.name, better) for p, better in found.dominated] == [("LoRA", "Base")]
    assert set(names(front(PUBLISHED, [LATENCY, EM, F1]).members)) == {"QLoRA", "Base"}


def test_ties_are_all_kept() -> None:
    same = points([[1, 1], [1, 1], [2, 2]])
    assert names(front(same, measures([False, False])).members) == ["p0", "p1"]


def test_what_is_left_out_is_named_with_the_measures_that_it_lacks() -> None:
    some = [Point("a", "g", {"m0": 1.0}), Point("b", "g", {"m0": math.nan, "m1": math.inf}), *points([[1, 2]])]
    assert front(some, measures([True, True])).left_out == {"a": ["m1"], "b": ["m0", "m1"]}


def test_nothing_has_an_empty_front() -> None:
    found = front([], measures([True, False]))
    assert (found.members, found.dominated, found.left_out) == ((), (), {})


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_front_has_two_to_six_measures(count: int) -> None:
    with pytest.raises(UsageError, match=f"not {count}"):
        front([], measures([True] * count))


def test_a_measure_twice_or_a_name_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="stands twice"):
        front([], [F1, Measure(F1.key, False)])
    with pytest.raises(UsageError, match="two runs are called 'p0'"):
        front([*points([[1, 2]]), *points([[3, 4]])], measures([True, True]))


def test_g24_the_front_of_ten_thousand_runs_takes_no_time_that_one_waits_for() -> None:
    chance = random.Random(0)
    many = points([[chance.random() for _ in range(3)] for _ in range(10_000)])
    axes = measures([True, False, False])
    begin = time.process_time()
    front(many, axes)
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize(
    ("text", "key", "maximize"),
    [
        *((name, key, name in ("f1", "accuracy", "bleu", "rougeL")) for name, (key, _) in NAMES.items()),
        ("ROUGEL", "final/validation_rougeL", True),
        ("train-vram", "train/peak_vram_gb", False),
        ("final/validation_f1_score", "final/validation_f1_score", True),
        ("final/validation_em", "final/validation_em", True),
        ("final/avg_f1", "final/avg_f1", True),
        ("final/validation_time_series/f1_score", "final/validation_time_series/f1_score", True),
        ("final/validation_loss", "final/validation_loss", False),
        ("final/validation_seconds", "final/validation_seconds", False),
        ("train/throughput_tokens_per_sec", "train/throughput_tokens_per_sec", True),
        ("train/peak_rss_gb", "train/peak_rss_gb", False),
        ("train/runtime_s", "train/runtime_s", False),
        ("train/epoch_time_min", "train/epoch_time_min", False),
        ("train/total_training_flops_tflops", "train/total_training_flops_tflops", False),
        ("inference/energy_j", "inference/energy_j", False),
        ("f1:min", "final/validation_f1_score", False),
        ("my/own:max", "my/own", True),
        ("a:b:min", "a:b", False),
    ],
)
def test_which_way_is_better_is_known_or_said(text: str, key: str, maximize: bool) -> None:
    assert parse_measure(text) == Measure(key, maximize)


def test_an_unknown_measure_says_how_to_give_its_direction() -> None:
    with pytest.raises(UsageError) as told:
        parse_measure("latncy")
    assert "did you mean latency?" in str(told.value)
    assert "latncy:max or latncy:min" in str(told.value)


@given(st.text(max_size=30))
def test_any_text_is_a_measure_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert isinstance(parse_measure(text), Measure)


def test_groups_have_mean_sample_standard_deviation_and_number() -> None:
    runs = [
        Point("a", "QLoRA", {"m0": 1.0, "m1": 5.0}, "set", "h1", 1),
        Point("b", "QLoRA", {"m0": 3.0}, "set", None, 2),
        Point("c", "LoRA", {"m0": 7.0}, "set", "h2", 1),
    ]
    lora, qlora = group_points(runs)
    assert (qlora.name, qlora.runs) == ("QLoRA", ("a", "b"))
    assert qlora.mean == {"m0": 2.0, "m1": 5.0}
    assert qlora.std == {"m0": pytest.approx(math.sqrt(2))}
    assert qlora.n == {"m0": 2, "m1": 1}
    assert (qlora.dataset, qlora.hardware) == ("set", "h1")
    assert lora.std == {}
    assert qlora.point == Point("QLoRA", "QLoRA", {"m0": 2.0, "m1": 5.0}, "set", "h1")
    assert [g.name for g in group_points(runs, by="hardware")] == ["h1", "h2", "unknown"]


def test_a_diverged_run_is_not_averaged_away() -> None:
    (group,) = group_points([Point("a", "g", {"m0": 1.0}), Point("b", "g", {"m0": math.nan})])
    assert math.isnan(group.mean["m0"])
    assert group.std == {}


def test_the_staircase_goes_along_x_and_then_to_the_next_point() -> None:
    corners = staircase(PUBLISHED, LATENCY, EM)
    assert corners == [(238.0, 20.5), (393.1, 20.5), (393.1, 22.4)]
    assert staircase(points([[1, 1], [1, 1]]), *measures([True, True])) == [(1, 1)]


def test_hypervolume_of_known_boxes() -> None:
    axes = measures([False, True])
    reference = {"m0": 4.0, "m1": 0.0}
    assert hypervolume(points([[1, 1], [2, 3]]), axes, reference) == pytest.approx(3 * 1 + 2 * 2)
    assert hypervolume(points([[5, 1], [4, 3], [1, 0], [math.nan, 2]]), axes, reference) == 0
    assert hypervolume([], axes, reference) == 0
    with pytest.raises(UsageError, match="m1"):
        hypervolume([], axes, {"m0": 1.0})


@settings(max_examples=60)
@given(spaces(st.integers(0, 4).map(float)))
def test_hypervolume_is_the_number_of_unit_cells_that_are_dominated(
    space: tuple[list[Point], list[Measure]],
) -> None:
    """On whole numbers the space is cells of volume 1, which can be counted."""
    found_points, axes = space
    found_points, worst = found_points[:8], 3
    reference = {m.key: float(1 if m.maximize else worst) for m in axes}
    whole = [p for p in found_points if not p.lacks(axes)]

    def covers(point: Point, cell: tuple[int, ...]) -> bool:
        """Cell i of a measure lies i to i + 1 from the reference towards the better."""
        gains = (m.cost(reference[m.key]) - m.cost(point.values[m.key]) for m in axes)
        return all(gain >= i + 1 for gain, i in zip(gains, cell, strict=True))

    cells = sum(any(covers(p, cell) for p in whole) for cell in product(range(3), repeat=len(axes)))
    assert hypervolume(found_points, axes, reference) == cells


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_hypervolume_agrees_with_random_samples(count: int) -> None:
    chance = random.Random(count)
    rows = [[chance.random() for _ in range(count)] for _ in range(12)]
    axes = measures([i % 2 == 0 for i in range(count)])
    reference = {m.key: 0.0 if m.maximize else 1.0 for m in axes}
    samples = [[chance.random() for _ in axes] for _ in range(20_000)]
    hit = sum(
        any(all(v >= s if m.maximize else v <= s for v, s, m in zip(row, sample, axes, strict=True)) for row in rows)
        for sample in samples
    ) / len(samples)
    assert hypervolume(points(rows), axes, reference) == pytest.approx(hit, abs=5 * 0.5 / math.sqrt(len(samples)))


def test_e27_retention_of_scores_and_gain_of_costs() -> None:
    base = PUBLISHED[0]
    found = retention(PUBLISHED, base, [F1, LATENCY])
    assert found["Base"] == {F1.key: 1.0, LATENCY.key: 1.0}
    assert found["QLoRA"] == {F1.key: pytest.approx(27.4 / 29.9), LATENCY.key: pytest.approx(393.1 / 238.0)}
    assert found["LoRA"][LATENCY.key] < 1


def test_a_ratio_without_meaning_is_absent() -> None:
    axes = measures([True, False])
    base = Point("base", "g", {"m0": 0.0, "m1": 1.0})
    assert retention([Point("a", "g", {"m0": 1.0, "m1": 0.0})], base, axes) == {"a": {}}
    assert retention([Point("a", "g", {"m1": -2.0})], base, axes) == {"a": {}}
    assert retention([Point("a", "g", {"m0": math.nan, "m1": 2.0})], base, axes) == {"a": {"m1": 0.5}}


def test_mixed_hardware_is_refused_with_the_way_out() -> None:
    mixed = [Point("a", "g", {}, None, "h100-1"), Point("b", "g", {}, None, "a100-4"), Point("c", "g", {})]
    with pytest.raises(UsageError) as told:
        check_comparable(mixed)
    assert all(word in str(told.value) for word in ("h100-1 (a)", "a100-4 (b)", "--mix-hardware"))
    check_comparable(mixed, mix_hardware=True)


def test_mixed_data_sets_are_refused_with_the_way_out() -> None:
    mixed = [Point("a", "g", {}, "e2e@0123456789ab"), Point("b", "g", {}, "e2e@ba9876543210")]
    with pytest.raises(UsageError, match="e2e@0123456789ab") as told:
        check_comparable(mixed)
    assert "--mix-datasets" in str(told.value)
    check_comparable(mixed, mix_datasets=True)


def test_what_is_not_known_is_no_reason_to_refuse() -> None:
    check_comparable([Point("a", "g", {}, "e2e@0123456789ab", "h"), Point("b", "g", {}, "e2e"), Point("c", "g", {})])


def test_the_comparison_loads_nothing_heavy() -> None:
    code = (
        "import sys, hpcft.report.pareto, hpcft.report.points, hpcft.report.pareto_picture, hpcft.cli.pareto;"
        "print({'numpy', 'torch', 'matplotlib', 'transformers', 'wandb', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

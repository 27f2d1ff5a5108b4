"""`hpcft gradients-3d`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from support.gradients import finished_run, made

from hpcft.runs.gradients import write_gradients
from hpcft.viz.gradients_3d import KINDS

Call = Callable[..., Any]


def test_b46_the_command_draws_from_the_base_path(hpcft: Call, tmp_path: Path) -> None:
    write_gradients(made(30, 4), tmp_path / "run" / "gradient_analysis")
    answer = hpcft(
        *("gradients-3d", "--input", str(tmp_path / "run" / "gradient_analysis"), "--output", "pictures"),
        *("--type", "all", "--no-interactive"),
    )
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [f"pictures/gradient_3d_{kind}.png" for kind in KINDS]
    assert all(Path(line).read_bytes().startswith(b"\x89PNG") for line in answer.out.splitlines())
    one = hpcft(
        *("gradients-3d", "--input", str(tmp_path / "run"), "--output", "other", "--type", "bars", "--module", "mlp")
    )
    assert one.out.splitlines() == ["other/gradient_3d_bars.png"]


def test_b46_a_run_is_drawn_by_its_name_which_is_the_title(
    hpcft: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: titles.append(self.get_suptitle()))
    run = finished_run(project / "results" / "first", made(5, 2)).root
    write_gradients(made(5, 2), run / "gradient_analysis")
    write_gradients(made(5, 2), project / "earlier")
    for base in ("first", "results/first", "fir", "results/first/gradient_analysis", "earlier.csv"):
        answer = hpcft("gradients-3d", "--input", base, "--output", "x", "--type", "bars", "--module", "mlp")
        assert answer.code == 0, answer.err
    assert [title.splitlines()[0].rpartition(": ")[2] for title in titles] == [*["first"] * 4, "earlier"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--input", "nowhere", "--output", "x"), 2, "results: no run called 'nowhere'"),
        (("--input", "nowhere/gradient_analysis", "--output", "x"), 65, "group_norms.csv: there is no such table"),
        (("--input", "run", "--output", "x", "--type", "pie"), 2, "--type: 'pie' is not one of"),
        (("--input", "run", "--output", "x", "--module", "head"), 2, "--module: 'head' is not one of"),
        (("--input", "run", "--output", "x", "--lang", "fr"), 2, "--lang: 'fr' is not one of en, zh-TW"),
        (("--output", "x"), 2, "--input"),
    ],
)
def test_b46_what_is_typed_wrongly_is_named(hpcft: Call, words: tuple[str, ...], code: int, said: str) -> None:
    answer = hpcft("gradients-3d", *words)
    assert (answer.code, said in answer.err) == (code, True), answer.err

"""The picture and the page show the points that the front names, and a name is never more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcft.report.pareto import Front, Group, Measure, Point, front, group_points
from hpcft.report.pareto_picture import draw_pareto_png, pareto_html

F1, LATENCY = Measure("final/validation_f1_score", True), Measure("inference/avg_latency_ms_per_sample", False)
SIZE = Measure("inference/model_size_gb", False)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ data }}$x_1$"


def point(name: str, latency: float, f1: float, group: str = "LoRA") -> Point:
    return Point(name, group, {LATENCY.key: latency, F1.key: f1, SIZE.key: latency / 100})


def published() -> Front:
    found = [point("Base", 393.1, 29.9, "Base"), point("LoRA", 636.2, 28.6), point("QLoRA", 238.0, 27.4, "QLoRA")]
    return front(found, [F1, LATENCY])


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        self.texts.append(data.strip())

    def tags(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, without the second that each takes to write."""
    figures: list[Figure] = []

    def keep(self: Figure, path: Path, **options: object) -> None:
        figures.append(self)
        self.draw_without_rendering()

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def marks(axes: Axes) -> dict[tuple[float, float], bool]:
    """Place of each point → whether it is filled."""
    found = {}
    for container in axes.containers:
        (line, *_) = container
        (x,), (y,) = line.get_data()
        found[float(x), float(y)] = line.get_markerfacecolor() != "white"
    return found


def test_e28_the_picture_is_a_png(tmp_path: Path) -> None:
    path = draw_pareto_png(published(), LATENCY, F1, tmp_path / "pareto.png")
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")


def test_e28_members_are_filled_the_others_hollow_and_the_line_is_the_front(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_pareto_png(published(), LATENCY, F1, tmp_path / "p.png")
    (axes,) = drawn[0].axes
    assert marks(axes) == {(238.0, 27.4): True, (393.1, 29.9): True, (636.2, 28.6): False}
    assert [tuple(map(float, p)) for p in axes.lines[0].get_xydata()] == [(238.0, 27.4), (393.1, 27.4), (393.1, 29.9)]
    assert axes.get_xlabel() == "Latency (ms a sample), less is better"


def test_a_front_without_points_is_not_drawn(tmp_path: Path) -> None:
    assert draw_pareto_png(front([], [F1, LATENCY]), LATENCY, F1, tmp_path / "p.png") is None
    assert not (tmp_path / "p.png").exists()


def test_many_variants_differ_in_colour_or_shape(tmp_path: Path, drawn: list[Figure]) -> None:
    found = [point(f"r{i}", i, i, f"v{i:02}") for i in range(20)]
    draw_pareto_png(front(found, [F1, LATENCY]), LATENCY, F1, tmp_path / "p.png")
    looks = {(c[0].get_color(), c[0].get_marker()) for c in drawn[0].axes[0].containers}
    assert len(looks) == 20


def test_a_name_with_dollars_is_no_formula(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_pareto_png(front([point(HOSTILE, 1, 1, r"$\frac{$")], [F1, LATENCY]), LATENCY, F1, tmp_path / "p.png")
    assert drawn


def means() -> tuple[Front, dict[str, Group]]:
    groups = {g.name: g for g in group_points([point("a", 10, 1), point("b", 14, 3), point("c", 9, 4, "QLoRA")])}
    return front([g.point for g in groups.values()], [F1, LATENCY]), groups


def test_e27_means_are_shown_with_their_spread(tmp_path: Path, drawn: list[Figure]) -> None:
    found, groups = means()
    draw_pareto_png(found, LATENCY, F1, tmp_path / "p.png", groups)
    # Both figures of LoRA have a bar; QLoRA has one run and none.
    assert sorted(len(c[2]) for c in drawn[0].axes[0].containers) == [0, 2]
    assert "12 ± 2.8 (n 2)" in Page(pareto_html(found, [F1, LATENCY], groups)).texts


def test_u7_the_page_has_the_same_points_and_front() -> None:
    page = Page(pareto_html(published(), [F1, LATENCY]))
    assert {p["name"]: p["front"] for p in page.data["points"]} == {"QLoRA": True, "Base": True, "LoRA": False}
    stairs = page.data["stairs"][f"{LATENCY.key} {F1.key}"]
    assert stairs == [[238.0, 27.4], [393.1, 27.4], [393.1, 29.9]]
    assert "dominated by Base" in page.texts


def test_every_pair_of_axes_has_its_line() -> None:
    found = [point("a", 1, 1), point("b", 2, 2)]
    page = Page(pareto_html(front(found, [F1, LATENCY, SIZE]), [F1, LATENCY, SIZE]))
    assert len(page.data["stairs"]) == 6
    assert all(page.data["stairs"].values())


def test_the_page_asks_no_network_for_anything() -> None:
    text = pareto_html(published(), [F1, LATENCY])
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    page = Page(text)
    assert not [a for _, a in page.elements if {"src", "href"} & set(a)]
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "img", "object"})


def test_s5_a_hostile_name_is_text_wherever_it_stands() -> None:
    hostile = Measure(HOSTILE, True)
    values = {F1.key: 1.0, HOSTILE: 1.0}
    axes = [F1, hostile]
    text = pareto_html(front([Point(HOSTILE, HOSTILE, values), Point(HOSTILE + "2", "g", {})], axes), axes)
    assert "<img" not in text
    page = Page(text)
    assert page.tags("img") == []
    assert len(page.scripts) == 2
    assert page.data["points"][0]["name"] == HOSTILE
    assert page.texts.count(HOSTILE) >= 2


def test_s5_only_our_script_may_run() -> None:
    page = Page(pareto_html(published(), [F1, LATENCY]))
    (policy,) = [a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_javascript(tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text(Page(pareto_html(published(), [F1, LATENCY])).scripts[1])
    subprocess.run(["node", "--check", str(tmp_path / "page.js")], check=True, timeout=30)

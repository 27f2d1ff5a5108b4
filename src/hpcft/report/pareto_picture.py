"""A comparison as a picture, and as a page to explore: both show the same points and the same front."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path

from hpcft.report.pareto import Front, Group, Measure, Point, figure, staircase

# Okabe and Ito's colours, which the colour-blind tell apart (M. Okabe, K. Ito, "Color Universal Design", 2008), the
# pale ones last; each with a shape of its own, as matplotlib calls it and as the corners of a polygon.
_STYLES = (
    ("#0072B2", "o", "0,-6 4.2,-4.2 6,0 4.2,4.2 0,6 -4.2,4.2 -6,0 -4.2,-4.2"),
    ("#D55E00", "s", "-5.3,-5.3 5.3,-5.3 5.3,5.3 -5.3,5.3"),
    ("#009E73", "^", "0,-6.5 6.2,5 -6.2,5"),
    ("#CC79A7", "D", "0,-7 7,0 0,7 -7,0"),
    ("#000000", "v", "0,6.5 6.2,-5 -6.2,-5"),
    ("#E69F00", "P", "-2,-6 2,-6 2,-2 6,-2 6,2 2,2 2,6 -2,6 -2,2 -6,2 -6,-2 -2,-2"),
    ("#56B4E9", "p", "0,-6.5 6.2,-2 3.8,5.3 -3.8,5.3 -6.2,-2"),
    ("#F0E442", "*", "0,-8 2,-2.6 7.6,-2.5 3.1,1 4.7,6.5 0,3.2 -4.7,6.5 -3.1,1 -7.6,-2.5 -2,-2.6"),
)
_NAMED_POINTS = 12
_EDGE = "#444444"


def _points(front: Front) -> list[Point]:
    return [*front.members, *(point for point, _ in front.dominated)]


def _styles(points: Iterable[Point]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and polygon of each group; the ninth has the second shape in the first colour, and so on."""
    groups = sorted({p.group for p in points})
    count = len(_STYLES)
    shapes = [_STYLES[(i + i // count) % count] for i in range(len(groups))]
    return {g: (_STYLES[i % count][0], shapes[i][1], shapes[i][2]) for i, g in enumerate(groups)}


def _better(measure: Measure) -> str:
    return f"{measure.label}, {'more' if measure.maximize else 'less'} is better"


def draw_pareto_png(
    front: Front, x: Measure, y: Measure, path: Path, spread: Mapping[str, Group] | None = None
) -> Path | None:
    """Draw the points in the plane of two measures: the front's members filled, the others hollow, and a line along
    the edge of what is reached in this plane.

    Args:
        front: the comparison; of more than two measures it may have members off that line.
        x, y: axes.
        path: PNG to write.
        spread: groups that the points are means of, by name: drawn with one standard deviation each way.

    Returns:
        The path, or None when there is no point.
    """
    from hpcft.viz import picture

    points = _points(front)
    if not points:
        return None
    styles = _styles(points)
    with picture(path) as (_, [axes]):
        corners = staircase(points, x, y)
        axes.plot(*zip(*corners, strict=True), "-", color=_EDGE, linewidth=1.4, zorder=1, label="front in this plane")
        for group, (color, marker, _) in styles.items():
            axes.plot([], [], marker, color=color, label=_plain(group))
        for number, point in enumerate(points):
            color, marker, _ = styles[point.group]
            place = point.values[x.key], point.values[y.key]
            std = spread[point.name].std if spread and point.name in spread else {}
            axes.errorbar(
                *place,
                xerr=std.get(x.key),
                yerr=std.get(y.key),
                fmt=marker,
                color=color,
                markersize=9,
                markeredgewidth=1.8,
                markerfacecolor=color if number < len(front.members) else "white",
                capsize=3,
                elinewidth=1,
                zorder=3,
            )
            if len(points) <= _NAMED_POINTS:
                axes.annotate(
                    _plain(point.name), place, xytext=(7, 6), textcoords="offset points", fontsize=9, zorder=4
                )
        for label, face in (("filled: front of all measures", _EDGE), ("hollow: dominated", "white")):
            axes.plot([], [], "o", color=_EDGE, markerfacecolor=face, label=label)
        axes.set(xlabel=_better(x), ylabel=_better(y))
        axes.set_title("Pareto front", loc="left", fontweight="bold")
        axes.margins(x=0.15, y=0.12)
        # Outside, since any place among the points may be taken.
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return path


def _plain(text: str) -> str:
    """Text that matplotlib takes as it stands: it reads a formula between two dollar signs."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")


def pareto_html(front: Front, measures: Sequence[Measure], groups: Mapping[str, Group] | None = None) -> str:
    """The comparison as one file that needs no network: choose the axes, point at a run to read its figures.

    Without a script it is a table of the same figures.

    Args:
        front: the comparison.
        measures: those of the front; the first is the y axis to begin with, the second the x axis.
        groups: what the points are means of, by name.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    points = _points(front)
    better = {p.name: by for p, by in front.dominated}
    styles = {group: {"color": color, "shape": shape} for group, (color, _, shape) in _styles(points).items()}
    shown = [
        {
            "name": p.name,
            "group": p.group,
            "values": {m.key: p.values[m.key] for m in measures},
            "figures": [figure(p, m, groups or {}) for m in measures],
            "verdict": f"dominated by {better[p.name]}" if p.name in better else "on the front",
            "front": p.name not in better,
        }
        for p in points
    ]
    stairs = {f"{x.key} {y.key}": staircase(points, x, y) for x, y in permutations(measures, 2)}
    named = [{"key": m.key, "label": m.label, "axis": _better(m)} for m in measures]
    # Everything is escaped but the style and the script, which are ours and the only ones that the page may run.
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return page.render(
        style=Markup(_STYLE),  # noqa: S704
        script=Markup(_SCRIPT),  # noqa: S704
        policy=f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}",
        measures=named,
        points=shown,
        left_out=front.left_out,
        data={"measures": named, "styles": styles, "points": shown, "stairs": stairs},
    )


def _hash(text: str) -> str:
    """A content policy's name of an inline element, so that no other one can run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 60rem;
  padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .6rem; } h2 { font-size: 1.1rem; }
label { display: block; margin: .3rem 0; } select { font: inherit; max-width: 100%; padding: .3rem; }
svg { display: block; width: 100%; height: 26rem; overflow: visible; }
svg text { font-size: 12px; fill: #1a1a1a; }
.grid { stroke: #ddd; } .axis { stroke: #444; } .stairs { fill: none; stroke: #444; stroke-width: 1.5; }
.point { stroke-width: 2; cursor: pointer; } .point:focus { outline: 3px solid #1a1a1a; outline-offset: 3px; }
#legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; }
#legend svg { display: inline-block; width: 18px; height: 18px; vertical-align: -3px; }
#figures { min-height: 5rem; border-left: 4px solid #0072B2; padding: .2rem .8rem; overflow-wrap: anywhere; }
#figures p { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .3rem .7rem .3rem 0; vertical-align: top;
  border-bottom: 1px solid #ddd; min-width: 5rem; }
"""

# Names reach the page as text nodes only.
_SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const picture = document.getElementById("picture"), figures = document.getElementById("figures");
const axes = { x: document.getElementById("x"), y: document.getElementById("y") };

function add(parent, name, attributes, text) {
  const element = document.createElementNS(parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

// Round steps of 1, 2 or 5 times a power of ten.
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

function scale(key, from, to) {
  const values = data.points.map(point => point.values[key]);
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  const [first, last] = [low - margin, high + margin];
  return { place: value => from + (value - first) / (last - first) * (to - from),
           ticks: most => ticks(first, last, most) };
}

function lines(point) {
  return data.measures.map((measure, i) => `${measure.label}: ${point.figures[i]}`);
}

function show(point) {
  figures.replaceChildren();
  add(figures, "p", {}).append(add(figures, "strong", {}, point.name), ` (${point.group}), ${point.verdict}`);
  lines(point).forEach(line => add(figures, "p", {}, line));
}

function draw() {
  const width = picture.clientWidth, height = picture.clientHeight;
  const [left, right, top, bottom] = [58, width - 12, 10, height - 44];
  picture.replaceChildren();
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const x = scale(axes.x.value, left, right), y = scale(axes.y.value, bottom, top);
  const short = value => String(Number(value.toPrecision(6)));
  for (const value of x.ticks(width / 90)) {
    add(picture, "line", { class: "grid", x1: x.place(value), x2: x.place(value), y1: top, y2: bottom });
    add(picture, "text", { x: x.place(value), y: bottom + 16, "text-anchor": "middle" }, short(value));
  }
  for (const value of y.ticks(6)) {
    add(picture, "line", { class: "grid", x1: left, x2: right, y1: y.place(value), y2: y.place(value) });
    add(picture, "text", { x: left - 6, y: y.place(value) + 4, "text-anchor": "end" }, short(value));
  }
  add(picture, "path", { class: "axis", fill: "none", d: `M${left},${top}V${bottom}H${right}` });
  const label = key => data.measures.find(measure => measure.key === key).axis;
  add(picture, "text", { x: (left + right) / 2, y: height - 8, "text-anchor": "middle" }, label(axes.x.value));
  add(picture, "text", { transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
    label(axes.y.value));
  const stairs = data.stairs[`${axes.x.value} ${axes.y.value}`] || [];
  const corners = stairs.map(([a, b]) => `${x.place(a)},${y.place(b)}`);
  add(picture, "polyline", { class: "stairs", points: corners.join(" ") });
  for (const point of data.points) {
    const style = data.styles[point.group];
    const mark = add(picture, "polygon", {
      class: "point", points: style.shape, stroke: style.color, fill: point.front ? style.color : "#fff",
      transform: `translate(${x.place(point.values[axes.x.value])} ${y.place(point.values[axes.y.value])})`,
      tabindex: 0, role: "img", "aria-label": [point.name, point.group, point.verdict, ...lines(point)].join(", "),
    });
    for (const kind of ["mouseenter", "focus", "click"]) mark.addEventListener(kind, () => show(point));
  }
}

const legend = document.getElementById("legend");
for (const [group, style] of Object.entries(data.styles)) {
  const item = add(legend, "li", {});
  const sign = document.createElementNS(picture.namespaceURI, "svg");
  sign.setAttribute("viewBox", "-9 -9 18 18");
  add(sign, "polygon", { points: style.shape, fill: style.color });
  item.append(sign, " " + group);
}
// One measure on both axes says nothing: the other axis takes what this one had.
const held = { x: axes.x.value, y: axes.y.value };
for (const [name, other] of [["x", "y"], ["y", "x"]]) {
  axes[name].addEventListener("change", () => {
    if (axes[name].value === axes[other].value) axes[other].value = held[name];
    held.x = axes.x.value;
    held.y = axes.y.value;
    draw();
  });
}
document.getElementById("explore").hidden = false;
if (data.points.length) {
  new ResizeObserver(draw).observe(picture);
  show(data.points[0]);
}
"""

_PAGE = """<!DOCTYPE html>
{% macro options(chosen) %}
{%- for m in measures %}<option value="{{ m.key }}"{% if loop.index0 == chosen %} selected{% endif %}>{{ m.label }}\
</option>{% endfor %}
{%- endmacro -%}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pareto front</title>
<style>{{ style }}</style>
</head>
<body>
<h1>Pareto front</h1>
<div id="explore" hidden>
<label>Across <select id="x">{{ options(1) }}</select></label>
<label>Up <select id="y">{{ options(0) }}</select></label>
<svg id="picture" role="group" aria-label="Runs in the plane of the two chosen measures"></svg>
<ul id="legend"></ul>
<p>Filled: on the front of all measures; hollow: dominated. The line is the front of the two measures shown.</p>
<div id="figures" aria-live="polite"></div>
</div>
<h2>Figures</h2>
<div class="wide" tabindex="0" role="region" aria-label="Figures">
<table>
<thead><tr><th scope="col">Run</th><th scope="col">Variant</th>
{%- for m in measures %}<th scope="col">{{ m.label }}</th>{% endfor %}<th scope="col">Verdict</th></tr></thead>
<tbody>
{%- for p in points %}
<tr><th scope="row">{{ p.name }}</th><td>{{ p.group }}</td>
{%- for text in p.figures %}<td>{{ text }}</td>{% endfor %}<td>{{ p.verdict }}</td></tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- if left_out %}
<h2>Left out</h2>
<ul>
{%- for name, keys in left_out.items() %}<li>{{ name }}: no finite {{ keys|join(", ") }}</li>{% endfor -%}
</ul>
{%- endif %}
<script type="application/json" id="data">{{ data|tojson }}</script>
<script>{{ script }}</script>
</body>
</html>
"""

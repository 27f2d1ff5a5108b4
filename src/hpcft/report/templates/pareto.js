// Names reach the page as text nodes only.
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
  const name = point.link ? add(figures, "a", { href: point.link }, point.name) : add(figures, "strong", {}, point.name);
  add(figures, "p", {}).append(name, ` (${point.group}), ${point.verdict}`);
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
      class: point.front ? "point" : "point hollow", points: style.shape, stroke: style.color, fill: style.color,
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

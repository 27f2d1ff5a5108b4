"use strict";
// Of several figures of a section one is shown at a time. Without this script all are.
for (const box of document.querySelectorAll("[data-choice]")) {
  const figures = [...box.querySelectorAll("figure")];
  if (figures.length < 2) continue;
  const select = document.createElement("select"), label = document.createElement("label");
  figures.forEach((figure, i) => select.add(new Option(figure.querySelector("figcaption").textContent, i)));
  const show = () => figures.forEach((figure, i) => { figure.hidden = i !== Number(select.value); });
  select.addEventListener("change", show);
  label.className = "choice";
  label.append(`${box.dataset.choice} `, select);
  box.prepend(label);
  show();
}

// A row of a figure's table shows, hides and points out its line.
for (const figure of document.querySelectorAll("figure")) {
  const lines = [...figure.querySelectorAll("path[data-line]")];
  for (const row of figure.querySelectorAll("tr[data-line]")) {
    const own = lines.filter(line => line.dataset.line === row.dataset.line);
    const others = lines.filter(line => line.dataset.line !== row.dataset.line);
    const head = row.querySelector("th"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.setAttribute("aria-label", `Show ${head.textContent.trim()}`);
    box.addEventListener("change", () => own.forEach(line => line.classList.toggle("off", !box.checked)));
    head.prepend(box);
    const point = on => others.forEach(line => line.classList.toggle("dim", on));
    for (const kind of ["mouseenter", "focusin"]) row.addEventListener(kind, () => point(true));
    for (const kind of ["mouseleave", "focusout"]) row.addEventListener(kind, () => point(false));
  }
}

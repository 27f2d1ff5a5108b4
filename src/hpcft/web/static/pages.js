// Everything is drawn by the service; what changes is fetched as a part of the page. Texts reach it as text nodes.
"use strict";

// A part is asked for again at most every few seconds, and less often than a twentieth of the time it takes.
function refreshing(element) {
  let busy = false, again = false, next = 0;
  return async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    await new Promise(done => setTimeout(done, Math.max(0, next - performance.now())));
    const began = performance.now();
    try {
      const answer = await fetch(element.dataset.fragment);
      // Not under the hand of somebody who is about to press a button in it.
      if (answer.ok && !element.contains(document.activeElement) && !element.querySelector(".actions details[open]")) {
        const part = new DOMParser().parseFromString(await answer.text(), "text/html");
        element.replaceChildren(...part.body.childNodes);
      }
    } catch { /* The next one may work. */ }
    const took = performance.now() - began;
    next = began + Math.max(2000, 20 * took);
    busy = false;
    if (again) { again = false; refresh(); }
  };
}

for (const element of document.querySelectorAll("[data-fragment][data-every]")) {
  const refresh = refreshing(element);
  setInterval(() => { if (!document.hidden) refresh(); }, 1000 * element.dataset.every);
}

const run = document.querySelector("[data-stream]");
if (run) {
  const state = refreshing(document.getElementById("state"));
  const curves = refreshing(document.getElementById("curves"));
  const log = document.getElementById("log");
  const stream = new EventSource(run.dataset.stream);
  let told = false;
  stream.addEventListener("open", () => { told = false; });
  stream.addEventListener("state", state);
  stream.addEventListener("points", curves);
  stream.addEventListener("log", event => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
    const lines = JSON.parse(event.data);
    // Who has just come is told the past, which the page has already.
    if (!told) log.replaceChildren();
    told = true;
    for (const line of lines) log.append(line + "\n");
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  stream.addEventListener("end", () => {
    stream.close();
    // What came out of it is on the page as it is then.
    setTimeout(() => location.reload(), 1500);
  });
  log.scrollTop = log.scrollHeight;
}

const form = document.querySelector("form[data-check]");
if (form) {
  const said = document.getElementById("checked");
  let waiting = 0, marked = [];
  const check = async () => {
    const body = new URLSearchParams(new FormData(form));
    let told;
    try {
      const answer = await fetch(form.dataset.check, { method: "POST", body });
      if (!answer.ok) return;
      told = await answer.json();
    } catch { return; }
    const wrong = told.problems;
    for (const own of form.querySelectorAll("[data-own]")) {
      const field = own.closest("select") || own, value = told.defaults[field.name] ?? own.dataset.own;
      if (field === own) own.placeholder = value; else own.textContent = `(${value})`;
    }
    for (const key of marked) mark(key, "");
    marked = Object.keys(wrong);
    for (const key of marked) mark(key, wrong[key]);
    said.textContent = marked.length ? marked.map(key => `${key}: ${wrong[key]}`).join("; ") : form.dataset.good;
  };
  const mark = (key, message) => {
    const input = form.elements[key], place = document.getElementById(key + "-wrong");
    if (!input || !place) return;
    place.textContent = message;
    if (message) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
  };
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(check, 400); });
}

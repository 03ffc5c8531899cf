// The table: sorted, its first column frozen, columns chosen, the next rows on demand.
"use strict";

const COLUMNS = [
  "model", "on_front", "role", "teacher", "scheme", "dataset", "device", "auc", "accuracy", "gain", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms",
  "size_bytes", "params", "macs", "energy_mj", "peak_rss_bytes", "runtime", "batch", "threads", "recipe", "split", "seed", "source", "created", "row_id",
  ...Object.keys(FIGURES).filter((name) => FIGURES[name].detailed),
];
const USUAL = ["on_front", "role", "teacher", "scheme", "auc", "accuracy", "gain", "latency_p50_ms", "size_bytes", "params", "macs", "energy_mj"];
const PAGE_ROWS = 200;

const filled = (name) => name === "on_front" || (name === "gain" && (has("gain_auc") || has("gain_accuracy"))) || (name in FIGURES ? has(name) : name in DATA.words && DATA.words[name].texts.some(Boolean));
const USABLE = COLUMNS.filter(filled);

function sorted(indices, { name, way }) {
  const value = name === "on_front" ? (i) => DATA.on_front[i] : name === "gain" ? (i) => gainOf(i)?.value ?? null : name in FIGURES ? (i) => figure(name, i) : (i) => text(name, i).toLowerCase();
  const keyed = indices.map((i) => [value(i), i]);
  keyed.sort(([a, i], [b, j]) => {
    const noA = a === null || a === "", noB = b === null || b === "";
    if (noA || noB) return noA - noB || i - j; // what is empty comes last, whichever way
    return (a < b ? -way : a > b ? way : 0) || i - j;
  });
  return keyed.map(([, i]) => i);
}

function makeTable(hooks) {
  const table = document.getElementById("table"), head = table.tHead, body = table.tBodies[0];
  const more = document.getElementById("more");
  const lines = new Map();
  let rest = [], names = [];

  function headRow(state) {
    const row = node("tr");
    for (const name of names) {
      const isSorted = state.sort.name === name;
      const button = node("button", { type: "button", "data-sort": name, title: hint(name) }, heading(name), isSorted ? (state.sort.way > 0 ? " ▲" : " ▼") : "");
      button.addEventListener("click", () => hooks.sort(name));
      row.append(node("th", { scope: "col", class: name in FIGURES ? "figure" : null, "aria-sort": isSorted ? (state.sort.way > 0 ? "ascending" : "descending") : "none" }, button));
    }
    head.replaceChildren(row);
  }

  function line(i, state) {
    const pinned = state.pins.indexOf(i);
    const row = node("tr", { class: pinned >= 0 ? "pinned" : null, "data-row": text("row_id", i) });
    const pin = node("button", { type: "button", class: "pin-button", "aria-pressed": String(pinned >= 0), "aria-label": `Pin ${text("model", i)}`, title: "Pin to compare" }, pinned >= 0 ? "AB"[pinned] : "○");
    pin.addEventListener("click", () => hooks.pin(i));
    row.append(node("th", { scope: "row" }, node("div", { class: "rowhead" }, pin, swatch(kindOf(i), isInt8(i)), node("span", { class: "title", title: text("model", i) }, text("model", i)))));
    for (const name of names.slice(1)) row.append(cell(name, i));
    row.addEventListener("pointerenter", () => hooks.light(i));
    row.addEventListener("pointerleave", () => hooks.light(-1));
    lines.set(i, row);
    return row;
  }

  function add(state) {
    const next = rest.splice(0, PAGE_ROWS);
    body.append(...next.map((i) => line(i, state)));
    more.hidden = !rest.length;
    more.textContent = `Show ${Math.min(PAGE_ROWS, rest.length)} more of ${rest.length.toLocaleString("en")}`;
  }

  return {
    draw(state, indices) {
      names = ["model", ...USABLE.filter((name) => name !== "model" && state.columns.includes(name))];
      headRow(state);
      lines.clear();
      body.replaceChildren();
      rest = sorted(indices, state.sort);
      add(state);
      more.onclick = () => add(state);
    },
    light(i) {
      for (const row of body.querySelectorAll(".lit")) row.classList.remove("lit");
      lines.get(i)?.classList.add("lit");
    },
  };
}

function hint(name) {
  if (name === "on_front") return DATA.front;
  if (name === "gain") return "what the teacher was worth: the difference to the same student without one, over seeds and groups of images";
  const about = FIGURES[name];
  return about && about.better ? (about.better > 0 ? "more is better" : "less is better") : "";
}

function cell(name, i) {
  if (name === "on_front") return node("td", {}, onFront(i) ? node("span", { class: "on" }, "● front") : "");
  if (name === "gain") return gainCell(gainOf(i));
  if (name === "teacher") return node("td", { title: text(name, i) || null }, briefTeacher(text(name, i)));
  if (!(name in FIGURES)) return node("td", {}, name === "row_id" ? text(name, i).slice(0, 8) : text(name, i));
  const bounds = interval(name, i), value = figure(name, i);
  if (value === null) return node("td", { class: "figure" });
  const written = show(name, value);
  return node("td", { class: "figure" }, written, bounds ? node("span", { class: "interval" }, ` ${show(name, bounds[0]).replace(/^0/, "")}–${show(name, bounds[1]).replace(/^0/, "")}`) : null);
}

function gainCell(gain) {
  if (!gain) return node("td", {});
  return node("td", {}, node("span", { class: gainKind(gain) || null }, `${gain.verdict} ${signed(gain.value)}`), node("span", { class: "interval" }, ` ${pWords(gain.p)}`));
}

function makeChooser(state, changed) {
  const holder = document.getElementById("columns");
  const boxes = new Map();
  for (const name of USABLE.filter((name) => name !== "model")) {
    const box = node("input", { type: "checkbox", value: name });
    box.addEventListener("change", () => changed(USABLE.filter((one) => boxes.get(one)?.checked)));
    boxes.set(name, box);
    holder.append(node("label", { class: "check" }, box, heading(name)));
  }
  const details = document.getElementById("chooser");
  details.addEventListener("keydown", (event) => { if (event.key === "Escape") { details.open = false; details.firstElementChild.focus(); } });
  document.addEventListener("click", (event) => { if (!details.contains(event.target)) details.open = false; });
  return () => { for (const [name, box] of boxes) box.checked = state.columns.includes(name); };
}

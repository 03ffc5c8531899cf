// The table: sorted, its first column frozen, columns chosen, the next rows on demand.
"use strict";

const USUAL = DATA.usual;
const PAGE_ROWS = 200;

const isFlag = (name) => Boolean(COLUMNS[name]?.flag);
const filled = (name) => isFlag(name) || (COLUMNS[name]?.ordered ? COLUMNS[name].ordered.some(has) : name in FIGURES ? has(name) : name in DATA.words && DATA.words[name].texts.some(Boolean));
const USABLE = ["model", ...Object.keys(COLUMNS).filter((name) => name !== "model" && filled(name))];
// What rows are ordered by in a column: its figure, the first known of others, a flag or its text.
function orderOf(name) {
  const others = COLUMNS[name]?.ordered;
  if (others) return (i) => others.map((one) => figure(one, i)).find((value) => value !== null) ?? null;
  return isFlag(name) ? (i) => Number(flag(name, i)) : name in FIGURES ? (i) => figure(name, i) : (i) => text(name, i).toLowerCase();
}

function sorted(indices, { name, way }) {
  const value = orderOf(name);
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
  const about = COLUMNS[name] ?? {};
  return [about.help, about.better > 0 ? "More is better." : about.better < 0 ? "Less is better." : ""].filter(Boolean).join(" ");
}

function cell(name, i) {
  if (isFlag(name)) return node("td", {}, flag(name, i) ? node("span", { class: "on" }, `● ${COLUMNS[name].label}`) : "");
  if (name in DATA.written) return node("td", {}, node("span", { class: VERDICT_CLASS[verdictIn(written(name, i))] || null }, written(name, i)));
  if (name in DATA.names) return node("td", { title: text(name, i) || null }, named(name, i));
  if (!(name in FIGURES)) return node("td", {}, name === "row_id" ? text(name, i).slice(0, 8) : text(name, i));
  const bounds = interval(name, i), value = figure(name, i);
  if (value === null) return node("td", { class: "figure" });
  const shown = show(name, value);
  return node("td", { class: "figure" }, shown, bounds ? node("span", { class: "interval" }, ` ${show(name, bounds[0]).replace(/^0/, "")}–${show(name, bounds[1]).replace(/^0/, "")}`) : null);
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

// The table: sorted, its first column frozen, columns chosen, the next rows on demand.
"use strict";

const USUAL = DATA.usual;
const PAGE_ROWS = matchMedia("(max-width: 560px)").matches ? 40 : 200; // cards are tall

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
  const more = document.getElementById("more"), scroller = document.getElementById("scroller"), hidden = document.getElementById("hidden-columns"), order = document.getElementById("order");
  order.addEventListener("change", () => { const [name, way] = order.value.split(":"); hooks.sort(name, way === "up" ? 1 : -1); });
  const lines = new Map();
  let rest = [], names = [], cardFacts = new Set(), isChosen = false;

  function headRow(state) {
    const row = node("tr");
    for (const name of names) {
      const isSorted = state.sort.name === name;
      const button = node("button", { type: "button", "data-sort": name, title: hint(name) }, heading(name), isSorted ? (state.sort.way > 0 ? " ▲" : " ▼") : "");
      button.addEventListener("click", () => hooks.sort(name));
      row.append(node("th", { scope: "col", "data-label": heading(name), class: name in FIGURES ? "figure" : null, "aria-sort": isSorted ? (state.sort.way > 0 ? "ascending" : "descending") : "none" }, button));
    }
    head.replaceChildren(row);
    // Cards have no heading to sort by.
    order.replaceChildren(...names.flatMap((name) => [1, -1].map((way) => node("option", { value: `${name}:${way > 0 ? "up" : "down"}` }, `${COLUMNS[name]?.label ?? name} ${way > 0 ? "▲" : "▼"}`))));
    order.value = `${state.sort.name}:${state.sort.way > 0 ? "up" : "down"}`;
  }

  // Says which columns a reader must scroll for; none is cut in silence.
  function tellHidden() {
    const right = scroller.getBoundingClientRect().right, out = [...head.querySelectorAll("th")].filter((one) => one.getBoundingClientRect().right > right + 1).map((one) => one.dataset.label);
    hidden.textContent = out.length ? `${out.length} column${out.length > 1 ? "s" : ""} to the right (${out.join(", ")}): scroll sideways, or choose fewer by Columns.` : "";
    scroller.classList.toggle("goes-on", out.length > 0);
  }
  scroller.addEventListener("scroll", tellHidden, { passive: true });
  new ResizeObserver(tellHidden).observe(scroller);

  function line(i, state) {
    const pinned = state.pins.indexOf(i);
    const row = node("tr", { class: pinned >= 0 ? "pinned" : null, "data-row": text("row_id", i) });
    const pin = node("button", { type: "button", class: "pin-button", "aria-pressed": String(pinned >= 0), "aria-label": `Pin ${text("model", i)}`, title: "Pin to compare" }, pinned >= 0 ? PIN_LETTERS[pinned] : "○");
    pin.addEventListener("click", () => hooks.pin(i));
    row.append(node("th", { scope: "row" }, node("div", { class: "rowhead" }, pin, swatchOf(i, state.marks), node("a", { class: "title", href: rowAddress(i), title: text("model", i) }, text("model", i)))));
    for (const name of names.slice(1)) {
      const one = cell(name, i);
      one.dataset.label = heading(name);
      if (!one.textContent) one.classList.add("empty");
      if (name === state.quality || COSTS.slice(0, 2).includes(name)) one.classList.add("key");
      if (name === "teacher" || name in DATA.written) one.classList.add("wide-fact");
      if (!cardFacts.has(name) && !isChosen) one.classList.add("beyond-card");
      row.append(one);
    }
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
      // A card holds what decides; all columns that a reader chose, where one was chosen.
      cardFacts = new Set([state.quality, ...COSTS.slice(0, 2), "on_front", "teacher", "scheme", "gain"]);
      isChosen = state.columns.join() !== USUAL.filter(filled).join();
      // Of one data set and device, what is the same in every row stands above the charts and not in a column.
      const isSame = (name) => !isChosen && !state.all && DATA.group.includes(name) && indices.every((i) => text(name, i) === text(name, indices[0]));
      names = ["model", ...USABLE.filter((name) => name !== "model" && state.columns.includes(name) && !isSame(name))];
      headRow(state);
      lines.clear();
      body.replaceChildren();
      rest = sorted(indices, state.sort);
      add(state);
      more.onclick = () => add(state);
      tellHidden();
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
  if (isFlag(name)) return node("td", {}, flag(name, i) ? node("span", { class: "on" }, "● on it") : "");
  if (name in DATA.written) return node("td", {}, node("span", { class: VERDICT_CLASS[verdictIn(written(name, i))] || null }, written(name, i)));
  if (name in DATA.names) return node("td", { title: text(name, i) || null }, named(name, i));
  if (!(name in FIGURES)) return node("td", {}, name === "row_id" ? text(name, i).slice(0, 8) : text(name, i));
  const bounds = interval(name, i), value = figure(name, i);
  if (value === null) return node("td", { class: "figure" });
  const short = (end) => show(name, end, false, bounds).replace(/^0\./, ".");
  return node("td", { class: "figure" }, show(name, value, false, bounds), bounds ? node("span", { class: "interval" }, ` ${short(bounds[0])}–${short(bounds[1])}`) : null);
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

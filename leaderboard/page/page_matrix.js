// Architectures against devices, one figure a cell, as comparisons/matrix.py builds it. A line folds the files of an
// architecture (fp32 and int8, teachers, seeds) and opens.
"use strict";

const REASONS = ["failed", "pending", "predicted", "absent"];
const SIGNS = { failed: "failed", pending: "pending", predicted: "predicted", absent: "–", never: "not run" };
const NEVER = "never run on this device";
const MATRIX_LINES = 100;

// Why a row lacks a figure.
function haltOf(name, i) {
  let [state, reason] = DATA.halts[i] ?? (text("failed", i) ? ["failed", text("failed", i)] : ["absent", ""]);
  if (state === "predicted" && !FIGURES[name].device) [state, reason] = ["absent", ""];
  return state === "absent" ? [state, isImported(i) ? "the imported file does not say" : "not measured there"] : [state, reason];
}
// The best of some rows, measured here before imported; or the first reason why there is none.
function matrixCell(name, rows) {
  const sign = FIGURES[name].better > 0 ? -1 : 1, known = rows.filter((i) => figure(name, i) !== null);
  if (known.length) {
    const best = known.reduce((a, b) => { const order = isImported(a) - isImported(b) || sign * (figure(name, a) - figure(name, b)); return order <= 0 ? a : b; });
    return { state: isImported(best) ? "imported" : "measured", row: best, value: figure(name, best), reason: "" };
  }
  if (!rows.length) return { state: "never", row: -1, value: null, reason: NEVER };
  const [state, reason, row] = rows.map((i) => [...haltOf(name, i), i]).reduce((a, b) => (REASONS.indexOf(b[0]) < REASONS.indexOf(a[0]) ? b : a));
  return { state, row, value: null, reason };
}
const ARCH_KEYS = Array.from({ length: NUM }, (_, i) => DATA.archs.texts[code(DATA.archs, i)] || text("parent", i) || text("model", i));

// Devices, most rows first, and the lines of one data set, best figure first; each with its files.
function matrixOf(name, rows) {
  const counts = new Map();
  for (const i of rows) counts.set(RIGS[i], (counts.get(RIGS[i]) || 0) + 1);
  const rigs = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([rig]) => rig);
  const devices = rigs.map((rig) => { const i = rows.find((j) => RIGS[j] === rig); return [rig || "no device", [text("runtime", i), text("runtime_version", i)].filter(Boolean).join(" ")]; });
  const folds = new Map();
  for (const i of rows) {
    const file = JSON.stringify([...["model", "teacher", "scheme", "role"].map((one) => text(one, i)), figure("seed", i), text("recipe", i)]);
    if (!folds.has(ARCH_KEYS[i])) folds.set(ARCH_KEYS[i], new Map());
    const files = folds.get(ARCH_KEYS[i]);
    if (!files.has(file)) files.set(file, []);
    files.get(file).push(i);
  }
  const cells = (some) => rigs.map((rig) => matrixCell(name, some.filter((i) => RIGS[i] === rig)));
  const sign = FIGURES[name].better > 0 ? -1 : 1;
  const rank = (line) => { const known = line.cells.filter((one) => one.value !== null).map((one) => sign * one.value); return known.length ? Math.min(...known) : Infinity; };
  const ordered = (lines) => lines.map((line) => [rank(line), line]).sort(([a, one], [b, other]) => (a === b ? 0 : a - b) || (one.name < other.name ? -1 : one.name > other.name ? 1 : 0)).map(([, line]) => line);
  const lines = [...folds.values()].map((files) => {
    const all = [...files.values()];
    const shortest = all.map(([i]) => text("model", i)).reduce((a, b) => (b.length < a.length || (b.length === a.length && b < a) ? b : a));
    const telling = [["role", (i) => text("role", i)], ["seed", (i) => `seed ${figure("seed", i)}`], ["recipe", (i) => text("recipe", i)]].map(([, say]) => say).filter((say) => new Set(all.map(([i]) => say(i))).size > 1);
    const inside = () => (all.length < 2 ? [] : ordered(all.map((some) => ({ name: [title(some[0]), ...telling.map((say) => say(some[0]))].join(" · "), cells: cells(some), row: some[0] }))));
    return { name: shortest, cells: cells(all.flat()), num: all.length, row: all[0][0], inside };
  });
  return { devices, lines: ordered(lines) };
}

function makeMatrix(hooks) {
  const holder = byId("matrix"), words = byId("matrix-words"), more = byId("matrix-more"), saveButton = byId("matrix-save"), select = byId("figure");
  const opened = new Set();
  let now = null;
  saveButton.addEventListener("click", () => save(new Blob([matrixCsv(now)], { type: "text/csv" }), `matrix-${now.name}.csv`));

  function cellOf(name, one) {
    if (one.value === null) return node("td", { class: `figure state-${one.state}`, title: one.reason }, one.row >= 0 ? rowLink(one.row, SIGNS[one.state]) : SIGNS[one.state], node("span", { class: "sr" }, ` ${one.reason}`));
    const bounds = interval(name, one.row), full = `${title(one.row)}, ${show(name, one.value, true, bounds)}${one.state === "imported" ? ", imported" : ""}`;
    return node("td", { class: `figure state-${one.state}`, title: full }, rowLink(one.row, show(name, one.value, false, bounds)), one.state === "imported" ? node("span", { class: "sr" }, " imported") : null);
  }
  function lineOf(line, of) {
    const head = node("div", { class: "rowhead" });
    if (line.inside && line.num > 1) {
      const isOpen = opened.has(line.name);
      const button = node("button", { type: "button", class: "pin-button", "aria-expanded": String(isOpen), "aria-label": `Files of ${line.name}` }, isOpen ? "−" : "+");
      button.addEventListener("click", () => { if (isOpen) opened.delete(line.name); else opened.add(line.name); draw(); [...holder.querySelectorAll("button[aria-expanded]")].find((one) => one.getAttribute("aria-label") === `Files of ${line.name}`)?.focus(); });
      head.append(button);
    }
    head.append(node("span", { class: "title" }, line.name));
    if (line.num > 1) head.append(node("span", { class: "interval" }, `${line.num} files`));
    return node("tr", { class: of ? "inside" : null }, node("th", { scope: "row", title: line.name }, head), line.cells.map((one) => cellOf(now.name, one)));
  }
  function draw() {
    const { devices, lines } = now, shown = lines.slice(0, now.most);
    const head = node("tr", {}, node("th", { scope: "col" }, "architecture"), devices.map(([device, runtime]) => node("th", { scope: "col", class: "figure" }, device, runtime ? node("span", { class: "interval block" }, runtime) : null)));
    const body = shown.flatMap((line) => [lineOf(line, false), ...(opened.has(line.name) ? line.inside().map((one) => lineOf(one, true)) : [])]);
    holder.replaceChildren(node("table", {}, node("caption", { class: "sr" }, `${heading(now.name)} by architecture and device`), node("thead", {}, head), node("tbody", {}, body)));
    more.hidden = shown.length === lines.length;
    more.textContent = `Show ${Math.min(MATRIX_LINES, lines.length - shown.length)} more of ${lines.length.toLocaleString("en")}`;
    more.onclick = () => { now.most += MATRIX_LINES; draw(); };
    const states = new Set(shown.flatMap((line) => line.cells.map((one) => one.state)));
    const said = { imported: "in italics: imported", failed: "failed", pending: "pending: its run goes on or was stopped", predicted: "predicted: the device was out of reach", absent: "– not measured", never: "not run: never on this device" };
    const legend = Object.entries(said).filter(([state]) => states.has(state)).map(([, one]) => one).join("; ");
    words.textContent = `${lines.length.toLocaleString("en")} architectures on ${devices.length} device${devices.length === 1 ? "" : "s"}. A cell is the best of the architecture's files there; + lists each.${legend ? ` ${legend}.` : ""}`;
    tellHidden();
  }
  function tellHidden() {
    const right = holder.getBoundingClientRect().right, out = [...holder.querySelectorAll("thead th")].filter((one) => one.getBoundingClientRect().right > right + 1).length;
    byId("matrix-hidden").textContent = out ? `${out} device${out > 1 ? "s" : ""} to the right: scroll sideways.` : "";
    holder.classList.toggle("goes-on", out > 0);
  }
  holder.addEventListener("scroll", tellHidden, { passive: true });
  new ResizeObserver(tellHidden).observe(holder);

  return (state, rows) => {
    const isOn = state.layout === "matrix";
    for (const one of document.querySelectorAll(".as-matrix")) one.hidden = !isOn;
    for (const one of document.querySelectorAll(".as-rows")) one.hidden = isOn;
    if (!isOn) return;
    const known = FACTS.filter((name) => rows.some((i) => figure(name, i) !== null));
    const usual = known.includes("latency_p50_ms") ? "latency_p50_ms" : known[0] ?? state.quality;
    state.figure = known.includes(state.figure) ? state.figure : usual;
    select.replaceChildren(...known.map((name) => node("option", { value: name }, heading(name))));
    select.value = state.figure;
    now = { name: state.figure, place: state.place, most: MATRIX_LINES, ...matrixOf(state.figure, rows) };
    draw();
  };
}

// As `tutelage leaderboard matrix --open --out` writes it: of each device the figure in its stored unit, and its state.
function matrixCsv({ name, place, devices, lines }) {
  const unit = FIGURES[name].stored ? ` [${FIGURES[name].stored}]` : "";
  const head = ["dataset", "architecture", "file", "files", ...devices.flatMap((device) => { const called = device.filter(Boolean).join(" "); return [`${called}: ${name}${unit}`, `${called}: state`]; })];
  const cells = (line) => line.cells.flatMap(({ value, state, reason }) => [value ?? "", reason && state !== "never" ? `${state}: ${reason}` : state]);
  const body = lines.flatMap((line) => [[place, line.name, "", line.num, ...cells(line)], ...line.inside().map((one) => [place, line.name, one.name, 1, ...cells(one)])]);
  return csvText([head, ...body]);
}

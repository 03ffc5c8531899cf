// Pinned rows: what each is, its architecture block by block, and how two of them differ.
"use strict";

const ARCHS = DATA.archs.texts.map((one) => (one ? JSON.parse(one) : null));
const archOf = (i) => ARCHS[DATA.archs.codes[i]];
const SHOWN_FACTS = ["auc", "accuracy", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "size_bytes", "params", "macs", "energy_mj", "peak_rss_bytes"];

function drawCompare(state, hooks) {
  const section = document.getElementById("compare");
  section.hidden = !state.pins.length;
  section.replaceChildren();
  if (!state.pins.length) return;
  const [a, b] = state.pins;
  if (b !== undefined) section.append(versus(a, b));
  else section.append(node("p", { class: "hint no-print" }, "Pin a second row to compare the two."));
  section.append(node("div", { class: "pins" }, state.pins.map((i, n) => pinCard(i, n, hooks))));
}

function versus(a, b) {
  const sameGround = PLACES[a] === PLACES[b], sameRig = RIGS[a] === RIGS[b];
  const head = node("tr", {}, node("th", { scope: "col" }, "figure"), node("th", { scope: "col", class: "figure a-ink" }, "A"), node("th", { scope: "col", class: "figure b-ink" }, "B"), node("th", { scope: "col", class: "figure" }, "B against A"), node("th", { scope: "col" }, ""));
  const body = node("tbody");
  for (const name of SHOWN_FACTS) {
    const va = figure(name, a), vb = figure(name, b);
    if (va === null && vb === null) continue;
    const isCost = FIGURES[name].better < 0, measuredThere = /latency|energy|rss/.test(name);
    const fair = sameGround || isCost, comparable = va !== null && vb !== null && fair && (sameRig || !measuredThere);
    const row = node("tr", {}, node("th", { scope: "row" }, heading(name)), node("td", { class: "figure" }, show(name, va)), node("td", { class: "figure" }, show(name, vb)));
    row.append(...(comparable ? verdict(name, a, b, va, vb) : [node("td", {}), node("td", { class: "quiet" }, va === null || vb === null ? "" : measuredThere ? "another device" : "another data set")]));
    body.append(row);
  }
  return node("div", { class: "card versus" }, node("h2", {}, "A and B"), node("table", {}, node("thead", {}, head), body));
}

function verdict(name, a, b, va, vb) {
  const better = (vb - va) * FIGURES[name].better;
  const isCost = FIGURES[name].better < 0;
  const difference = vb === va ? "same" : isCost ? (vb < va ? `${threeDigits(va / vb)} × less` : `${threeDigits(vb / va)} × more`) : `${vb > va ? "+" : "−"}${(Math.abs(vb - va) * 100).toFixed(1)} points`;
  const ia = interval(name, a), ib = interval(name, b);
  const note = ia && ib ? (ia[0] <= ib[1] && ib[0] <= ia[1] ? "the 95 % intervals overlap: see a paired test" : "the 95 % intervals do not meet") : "";
  const kind = better > 0 ? "better" : better < 0 ? "worse" : "";
  return [node("td", { class: `figure ${kind}` }, `${difference}${better > 0 ? " ▲" : better < 0 ? " ▼" : ""}`), node("td", { class: "quiet" }, note)];
}

function pinCard(i, n, hooks) {
  const close = node("button", { type: "button", class: "ghost no-print", "aria-label": `Let ${text("model", i)} go` }, "Let go");
  close.addEventListener("click", () => hooks.pin(i));
  const card = node("article", { class: `card pin ${"ab"[n]}` }, node("header", {}, node("h3", {}, node("span", { class: `${"ab"[n]}-ink` }, `${"AB"[n]} `), title(i)), close), facts(i, true));
  const family = relatives(i);
  if (family.length) {
    card.append(node("h3", {}, "Family"));
    const list = node("dl", { class: "facts" });
    for (const [what, j] of family) list.append(node("dt", {}, what), node("dd", {}, `${title(j)} · ${["auc", "accuracy", "latency_p50_ms"].filter((name) => figure(name, j) !== null).map((name) => `${FIGURES[name].label} ${show(name, figure(name, j), true)}`).join(" · ")}`));
    card.append(list);
  }
  const arch = archOf(i);
  if (arch) card.append(node("h3", {}, `Architecture, ${arch.space}, ${arch.r} px`), drawArch(arch));
  const details = DATA.details[i];
  if (details) card.append(...detailBlocks(details));
  return card;
}

function facts(i, long) {
  const list = node("dl", { class: "facts" });
  const add = (what, value) => { if (value) list.append(node("dt", {}, what), node("dd", {}, value)); };
  const kind = text("role", i) === "student" ? (text("teacher", i) ? `student of ${text("teacher", i)}` : "student, no teacher") : text("role", i);
  add("what", [kind, text("scheme", i)].filter(Boolean).join(" · "));
  add("where", [text("dataset", i), rigOf(i), text("runtime", i)].filter(Boolean).join(" · "));
  for (const name of long ? SHOWN_FACTS : SHOWN_FACTS.filter((one) => !/p90|rss/.test(one))) {
    const value = figure(name, i), bounds = interval(name, i);
    if (value !== null) add(FIGURES[name].label, show(name, value, true) + (bounds ? ` (${show(name, bounds[0])} to ${show(name, bounds[1])})` : ""));
  }
  if (onFront(i)) add("front", "yes");
  if (isImported(i)) add("source", "imported, not measured here");
  if (long) {
    add("recipe", [text("recipe", i), figure("seed", i) !== null ? `seed ${figure("seed", i)}` : ""].filter(Boolean).join(" · "));
    add("created", text("created", i));
    add("id", text("row_id", i));
  }
  return list;
}

// One bar a block: its height is the expand ratio, the number under it the kernel; stages stand apart.
function drawArch(arch) {
  const kernels = arch.ks || [], expands = arch.e || [];
  const total = Math.max(kernels.length, expands.length);
  const perStage = arch.space.startsWith("ofa_resnet50") ? 0 : 4;
  const highest = Math.max(1, ...expands);
  const svg = drawn("svg", { role: "img", "aria-label": `Blocks: ${blockWords(arch)}` });
  const step = 19, gap = 12, tall = 62;
  let x = 2;
  for (let slot = 0; slot < total; slot++) {
    const stage = perStage ? Math.floor(slot / perStage) : 0;
    if (perStage && slot && slot % perStage === 0) x += gap;
    if (expands[slot] === 0 || kernels[slot] === 0) continue;
    const high = (tall * (expands[slot] || highest)) / highest;
    svg.append(drawn("rect", { x, y: tall - high + 14, width: step - 4, height: high, rx: 2.5, fill: "var(--taught)", "fill-opacity": { 3: 0.35, 5: 0.65, 7: 1 }[kernels[slot]] || 0.6 }));
    svg.append(drawn("text", { x: x + (step - 4) / 2, y: tall - high + 10, "text-anchor": "middle", "font-size": 10, fill: "var(--quiet)" }, String(expands[slot] ?? "")));
    if (kernels.length) svg.append(drawn("text", { x: x + (step - 4) / 2, y: tall + 27, "text-anchor": "middle", "font-size": 11, fill: "var(--ink)" }, String(kernels[slot])));
    if (perStage && slot % perStage === 0) svg.append(drawn("text", { x, y: tall + 42, "font-size": 10, fill: "var(--quiet)" }, `stage ${stage + 1}`));
    x += step;
  }
  svg.setAttribute("viewBox", `0 0 ${x + 22} ${tall + 48}`);
  svg.setAttribute("width", x + 22);
  return node("div", {}, svg, node("p", { class: "hint" }, "Bar: expand ratio. Below it: kernel size."));
}
function blockWords(arch) {
  return (arch.ks || arch.e || []).map((k, slot) => (k ? `${arch.ks ? `kernel ${k}` : ""} expand ${arch.e ? arch.e[slot] : "?"}` : "")).filter(Boolean).join(", ");
}

// Whatever a run left in `details`: lists of like records become tables, pictures are shown, the rest is named.
// What only `leaderboard show ROW --how` and the paired tests read.
const UNSHOWN = ["how", "predictions"];

function detailBlocks(details) {
  const blocks = [];
  for (const [name, value] of Object.entries(details)) {
    if (UNSHOWN.includes(name)) continue;
    if (value === null || value === "" || (typeof value === "object" && !Object.keys(value).length)) continue;
    blocks.push(node("h3", {}, name.replace(/_/g, " ")), detailBlock(value));
  }
  return blocks;
}
const isPicture = (value) => typeof value === "string" && /^data:image\/(png|jpeg|webp);base64,/.test(value);
function detailBlock(value) {
  if (isPicture(value)) return node("div", { class: "images" }, node("img", { src: value, alt: "sample explanation" }));
  if (Array.isArray(value) && value.length && value.every((one) => one && typeof one === "object" && !Array.isArray(one))) {
    if (value.some((one) => Object.values(one).some(isPicture))) return node("div", { class: "images" }, value.map(pictured));
    return recordTable(value);
  }
  if (value && typeof value === "object" && !Array.isArray(value)) {
    const inner = Object.values(value);
    if (inner.every((one) => one && typeof one === "object" && !Array.isArray(one)))
      return recordTable(Object.entries(value).map(([name, one]) => ({ name, ...one })));
    const list = node("dl", { class: "facts" });
    for (const [name, one] of Object.entries(value)) list.append(node("dt", {}, name.replace(/_/g, " ")), node("dd", {}, plainValue(one)));
    return list;
  }
  return node("p", {}, plainValue(value));
}
function pictured(record) {
  const [, source] = Object.entries(record).find(([, value]) => isPicture(value)) || [];
  const words = Object.entries(record).filter(([, value]) => !isPicture(value)).map(([name, value]) => `${name} ${plainValue(value)}`).join(", ");
  return node("figure", {}, source ? node("img", { src: source, alt: words }) : null, node("figcaption", {}, words));
}
function recordTable(records) {
  const names = [...new Set(records.flatMap(Object.keys))];
  const rows = records.slice(0, 100).map((record) => node("tr", {}, names.map((name) => node("td", { class: typeof record[name] === "number" ? "figure" : null }, plainValue(record[name])))));
  return node("table", {}, node("thead", {}, node("tr", {}, names.map((name) => node("th", { scope: "col", class: typeof records[0][name] === "number" ? "figure" : null }, name.replace(/_/g, " "))))), node("tbody", {}, rows));
}
function plainValue(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en") : threeDigits(value);
  if (Array.isArray(value)) return value.length > 40 ? `${value.slice(0, 40).map(plainValue).join(", ")} …` : value.map(plainValue).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

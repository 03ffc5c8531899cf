// Pinned rows: what each is, its architecture block by block, and how two of them differ.
"use strict";

function drawCompare(state, hooks) {
  const section = document.getElementById("compare");
  section.hidden = !state.pins.length;
  section.replaceChildren();
  if (!state.pins.length) return;
  const [a, b] = state.pins;
  if (state.pins.length > 2) section.append(versusMany(state.pins));
  else if (b !== undefined) section.append(versus(a, b));
  else section.append(node("p", { class: "hint no-print" }, "Pin a second row to compare the two, up to six to compare them all."));
  section.append(node("div", { class: "pins" }, state.pins.map((i, n) => pinCard(i, n, state, hooks))));
}

function versus(a, b) {
  const sameGround = PLACES[a] === PLACES[b], sameRig = RIGS[a] === RIGS[b];
  const head = node("tr", {}, node("th", { scope: "col" }, "figure"), node("th", { scope: "col", class: "figure a-ink" }, "A"), node("th", { scope: "col", class: "figure b-ink" }, "B"), node("th", { scope: "col", class: "figure" }, "B against A"));
  const body = node("tbody");
  for (const name of FACTS) {
    const va = figure(name, a), vb = figure(name, b);
    if (va === null && vb === null) continue;
    const isCost = FIGURES[name].better < 0, measuredThere = Boolean(FIGURES[name].device);
    const fair = sameGround || isCost, comparable = va !== null && vb !== null && fair && (sameRig || !measuredThere);
    const row = node("tr", {}, node("th", { scope: "row" }, heading(name)), node("td", { class: "figure" }, show(name, va, false, interval(name, a))), node("td", { class: "figure" }, show(name, vb, false, interval(name, b))));
    row.append(...(comparable ? verdict(name, a, b, va, vb) : [node("td", { class: "figure" }, node("span", { class: "verdict" }, va === null || vb === null ? "" : measuredThere ? "another device" : "another data set"))]));
    body.append(row);
  }
  if (sameGround) body.append(...classRows(a, b));
  const ids = [a, b].map((i) => text("row_id", i).slice(0, 8)).join(" ");
  const isTested = sameGround && DATA.qualities.some((name) => testOf(a, b, name));
  const words = isTested
    ? "Verdicts: paired tests of these two files on the same test images, by group, at 5 %; for this pair alone."
    : isImported(a) || isImported(b) ? "Not tested: the predictions of an imported row are not here." : "Not tested: run ";
  const command = isTested || isImported(a) || isImported(b) ? null : node("code", {}, `tutelage leaderboard compare ${ids}`);
  return node("div", { class: "card versus" }, node("h2", {}, "A and B"), node("table", {}, node("thead", {}, head), body), node("p", { class: "hint" }, words, command));
}

// More than two rows: each with its figures and, below them, what they are against those of A.
function versusMany(pins) {
  const [a, ...others] = pins, letters = pins.map((_, n) => PIN_LETTERS[n]);
  const head = node("tr", {}, node("th", { scope: "col" }, "figure"), pins.map((i, n) => node("th", { scope: "col", class: `figure ${letters[n].toLowerCase()}-ink` }, letters[n], node("span", { class: "interval block" }, title(i, true)))));
  const body = FACTS.filter((name) => pins.some((i) => figure(name, i) !== null)).map((name) => {
    const cells = pins.map((i, n) => {
      const value = figure(name, i), cell = node("td", { class: "figure", "data-label": letters[n] }, show(name, value, false, interval(name, i)));
      if (i === a || value === null || figure(name, a) === null) return cell;
      const isFair = (PLACES[a] === PLACES[i] || FIGURES[name].better < 0) && (RIGS[a] === RIGS[i] || !FIGURES[name].device);
      const [said, note] = isFair ? verdict(name, a, i, figure(name, a), value)[0].childNodes : [null, null];
      cell.append(node("span", { class: "verdict" }, isFair ? [said, note].filter(Boolean) : RIGS[a] !== RIGS[i] && FIGURES[name].device ? "another device" : "another data set"));
      return cell;
    });
    return node("tr", {}, node("th", { scope: "row" }, heading(name)), cells);
  });
  const words = `Below each figure: against A. ${others.some((i) => DATA.qualities.some((name) => testOf(a, i, name))) ? "Verdicts are paired tests of two files on the same test images, each for its pair alone." : "Not tested in pairs."}`;
  return node("div", { class: "card versus many" }, node("h2", {}, `${letters.slice(0, -1).join(", ")} and ${letters.at(-1)}`), node("table", {}, node("thead", {}, head), node("tbody", {}, body)), node("p", { class: "hint" }, words));
}

// Per class, where both rows have it: the same classes of the same test images.
const MOST_CLASSES = 20;
function classRows(a, b) {
  const theirs = new Map(classesOf(DATA.details[b]).map((one) => [one.name, one])), shared = classesOf(DATA.details[a]).filter(({ name }) => theirs.has(name));
  const rows = [];
  for (const mine of shared.slice(0, MOST_CLASSES))
    for (const one of ["auc", "sensitivity"]) {
      const va = mine[one] ?? null, vb = theirs.get(mine.name)[one] ?? null;
      if (typeof va !== "number" || typeof vb !== "number") continue;
      rows.push(node("tr", {}, node("th", { scope: "row" }, `${one === "auc" ? "AUC" : one}, ${mine.name}`), node("td", { class: "figure" }, va.toFixed(3)), node("td", { class: "figure" }, vb.toFixed(3)), node("td", { class: "figure" }, va === vb ? "same" : `${signed((vb - va) * 100, 1)} points`)));
    }
  if (shared.length > MOST_CLASSES) rows.push(node("tr", {}, node("td", { colspan: "4" }, `The first ${MOST_CLASSES} of ${shared.length} classes; each row's page has all.`)));
  return rows;
}

const LEAST_RATIO = 1.005; // what would be written as 1.00 × is no difference that anybody would choose by
// A quality is better or worse where the paired test says so, a cost where it differs by more than a tie.
function verdict(name, a, b, va, vb) {
  const isCost = FIGURES[name].better < 0;
  const isAlike = vb === va || (isCost ? Math.max(va / vb, vb / va) < LEAST_RATIO : Math.abs(vb - va) * 100 < 0.05);
  const difference = vb === va ? "same" : isAlike ? (isCost ? "same within 0.5 %" : "same to .1 point") : isCost ? (vb < va ? `${threeDigits(va / vb)} × less` : `${threeDigits(vb / va)} × more`) : `${vb > va ? "+" : "−"}${(Math.abs(vb - va) * 100).toFixed(1)} points`;
  const test = isCost ? undefined : testOf(a, b, name);
  const note = !isCost ? testWords(test) : vb !== va && isTie(name, a, b) ? "a tie: within what the measurements can tell" : "";
  const kind = isAlike ? "" : isCost ? (isTie(name, a, b) ? "" : vb < va ? "better" : "worse") : VERDICT_CLASS[test?.verdict] || "";
  return [node("td", { class: "figure" }, node("span", { class: kind }, `${difference}${{ better: " ▲", worse: " ▼" }[kind] || ""}`), note ? node("span", { class: "verdict" }, note) : null)];
}
// Spans that meet: the figures do not differ for certain.
function isTie(name, a, b) {
  const [one, other] = [span(name, a), span(name, b)];
  return one[0] <= other[1] && other[0] <= one[1];
}

function pinCard(i, n, state, hooks) {
  const close = node("button", { type: "button", class: "ghost no-print", "aria-label": `Unpin ${text("model", i)}` }, "Unpin");
  close.addEventListener("click", () => hooks.pin(i));
  const card = node("article", { class: `card pin ${PIN_LETTERS[n].toLowerCase()}` }, node("header", {}, node("h3", {}, node("span", { class: `${PIN_LETTERS[n].toLowerCase()}-ink` }, `${PIN_LETTERS[n]} `), rowLink(i, title(i))), close), facts(i, true));
  card.append(...standing(i, state));
  const family = relatives(i);
  if (family.length) {
    card.append(node("h3", {}, "Family"));
    const list = node("dl", { class: "facts" });
    for (const [what, j] of family) list.append(node("dt", {}, what), node("dd", {}, `${title(j)} · ${[...DATA.qualities, COSTS[0]].filter((name) => figure(name, j) !== null).map((name) => `${FIGURES[name].label} ${show(name, figure(name, j), true)}`).join(" · ")}`));
    card.append(list);
  }
  const arch = archOf(i);
  if (arch) card.append(node("h3", {}, `Architecture, ${arch.space}, ${arch.r} px`), drawArch(arch));
  const details = DATA.details[i];
  const parent = parentOf(i), looks = parent === undefined ? undefined : DATA.details[parent]?.explained;
  if (details && !details.explained && looks) card.append(node("h3", {}, "Where its fp32 network looks"), detailBlock(looks));
  if (details) card.append(...detailBlocks(details));
  else if (DATA.detailed < NUM) card.append(node("p", { class: "hint" }, `This page holds the details of ${DATA.detailed.toLocaleString("en")} of its ${NUM.toLocaleString("en")} rows; `, node("code", {}, `tutelage leaderboard show ${text("row_id", i).slice(0, 8)}`), " prints the others'."));
  return card;
}

// Three fronts, three names: the chart front is the stair that is drawn, of two figures as they are; by the intervals a row
// is surely, maybe or not on it; the overall front of the table is of quality, latency and size, ties allowed for.
const BY_INTERVALS = { sure: "surely", maybe: "maybe", no: "not" };
const frontWords = (isOn, verdict) => `${isOn ? "on" : "not on"} the chart front; by the intervals ${BY_INTERVALS[verdict]}`;

// On which of the drawn fronts a row is, how surely, and what dominates it.
function standing(i, state) {
  const peers = peersOf(i), list = node("dl", { class: "facts" });
  for (const cost of new Set(state.axes.map(({ x }) => x))) {
    const code = digit(i, cost, state.quality), verdict = VERDICTS[code % 4];
    if (verdict === undefined) continue;
    const beaters = beatersOf(i, peers, cost, state.quality);
    const best = beaters.slice(0, 2).map((j) => `${title(j)} (${show(state.quality, figure(state.quality, j))}, ${show(cost, figure(cost, j), true)})`);
    const others = beaters.length > 2 ? ` and ${beaters.length - 2} more` : "";
    list.append(node("dt", {}, `${FIGURES[state.quality].label}, ${FIGURES[cost].label}`), node("dd", {}, frontWords(code >= 4, verdict), best.length ? `; by the figures dominated by ${best.join(", ")}${others}` : ""));
  }
  return list.childElementCount ? [node("h3", {}, "Chart fronts"), list] : [];
}

function facts(i, long) {
  const list = node("dl", { class: "facts" });
  const add = (what, value) => { if (value) list.append(node("dt", {}, what), node("dd", {}, value)); };
  const kind = text("role", i) === "student" ? (text("teacher", i) ? `student of ${text("teacher", i)}` : "student without a teacher") : text("role", i);
  add("what", [kind, text("scheme", i)].filter(Boolean).join(" · "));
  add("where", [text("dataset", i), rigOf(i), text("runtime", i)].filter(Boolean).join(" · "));
  for (const name of FACTS.filter((one) => long || FIGURES[one].usual)) {
    const value = figure(name, i), bounds = interval(name, i);
    if (value !== null) add(FIGURES[name].label, show(name, value, true, bounds) + (bounds ? ` (${show(name, bounds[0], false, bounds)} to ${show(name, bounds[1], false, bounds)})` : ""));
  }
  for (const name of Object.keys(DATA.written)) add(COLUMNS[name].label, written(name, i));
  if (onFront(i)) add("overall front", "on it: of quality, latency and size, ties allowed for");
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
  // The first slot of each stage; a space of another package says no stages.
  const known = Object.keys(DATA.slots).find((start) => arch.space.startsWith(start));
  const starts = [];
  let first = 0;
  for (const slots of DATA.slots[known] || []) {
    starts.push(first);
    first += slots;
  }
  const highest = Math.max(1, ...expands);
  const svg = drawn("svg", { role: "img", "aria-label": `Blocks: ${blockWords(arch)}` });
  const step = 19, gap = 12, tall = 62, named = 44; // what the name of a stage takes, however few its blocks
  let x = 2, free = 0;
  for (let slot = 0; slot < total; slot++) {
    const stage = starts.indexOf(slot);
    if (stage > 0) x = Math.max(x + gap, free);
    if (expands[slot] === 0 || kernels[slot] === 0) continue;
    const high = (tall * (expands[slot] || highest)) / highest;
    svg.append(drawn("rect", { x, y: tall - high + 14, width: step - 4, height: high, rx: 2.5, fill: "var(--distilled)", "fill-opacity": { 3: 0.35, 5: 0.65, 7: 1 }[kernels[slot]] || 0.6 }));
    svg.append(drawn("text", { x: x + (step - 4) / 2, y: tall - high + 10, "text-anchor": "middle", "font-size": 10, fill: "var(--quiet)" }, String(expands[slot] ?? "")));
    if (kernels.length) svg.append(drawn("text", { x: x + (step - 4) / 2, y: tall + 27, "text-anchor": "middle", "font-size": 11, fill: "var(--ink)" }, String(kernels[slot])));
    if (stage >= 0) { svg.append(drawn("text", { x, y: tall + 42, "font-size": 10, fill: "var(--quiet)" }, `stage ${stage + 1}`)); free = x + named; }
    x += step;
  }
  svg.setAttribute("viewBox", `0 0 ${x + 22} ${tall + 48}`);
  svg.setAttribute("width", x + 22);
  return node("div", {}, svg, node("p", { class: "hint" }, kernels.length ? "Bar: expand ratio. Below it: kernel size." : "Bar: expand ratio."));
}
function blockWords(arch) {
  return (arch.ks || arch.e || []).map((k, slot) => (k ? `${arch.ks ? `kernel ${k}` : ""} expand ${arch.e ? arch.e[slot] : "?"}` : "")).filter(Boolean).join(", ");
}

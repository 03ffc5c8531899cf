// Pinned rows: what each is, its architecture block by block, and how two of them differ.
"use strict";

const SHOWN_FACTS = ["auc", "accuracy", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "size_bytes", "params", "macs", "energy_mj", "peak_rss_bytes"];

// What the page is for, in one line: the chosen student against the best teacher.
function drawHeadline(state, group, hooks) {
  const section = document.getElementById("headline");
  section.replaceChildren();
  const { student, teacher } = champions(group, state.quality);
  const a = teacher.best, b = student.best;
  section.hidden = b === undefined;
  if (b === undefined) return;
  const chosen = student.isValidated ? "Best student by validation" : `Student of the highest ${FIGURES[state.quality].label}`;
  const both = node("button", { type: "button", class: "no-print" }, a === undefined ? "Pin it" : "Compare the two");
  both.addEventListener("click", () => hooks.pinBoth(a === undefined ? [b] : [a, b]));
  section.append(node("header", {}, node("p", {}, `${chosen}: `, node("strong", {}, title(b)), a === undefined ? "" : " against teacher ", a === undefined ? "" : node("strong", {}, title(a))), both));
  section.append(node("div", { class: "tiles" }, headlineTiles(state.quality, a, b)));
}

function headlineTiles(quality, a, b) {
  const tiles = [];
  const tile = (big, what, small, kind = "") => tiles.push(node("div", { class: `tile ${kind}` }, node("b", {}, big), node("span", { class: "what" }, what), node("span", { class: "small" }, small)));
  const va = a === undefined ? null : figure(quality, a), vb = figure(quality, b), ib = interval(quality, b);
  const own = `${show(quality, vb)}${ib ? ` (${show(quality, ib[0])} to ${show(quality, ib[1])})` : ""}`;
  if (va === null) tile(show(quality, vb), FIGURES[quality].label, ib ? `${show(quality, ib[0])} to ${show(quality, ib[1])}` : "");
  else {
    const ia = interval(quality, a), meet = ia && ib && ia[0] <= ib[1] && ib[0] <= ia[1];
    tile(signed(vb - va), FIGURES[quality].label, `${own} against ${show(quality, va)}${ia && ib ? (meet ? "; intervals overlap" : "; intervals apart") : ""}`, meet ? "" : vb < va ? "worse" : "better");
  }
  for (const [name, less, more] of [["latency_p50_ms", "faster", "slower"], ["size_bytes", "smaller", "larger"], ["energy_mj", "less energy", "more energy"]]) {
    const mine = figure(name, b), theirs = a === undefined ? null : figure(name, a);
    if (mine === null) continue;
    if (theirs === null) tile(show(name, mine, true), FIGURES[name].label, "");
    else tile(`${ratio(Math.max(mine, theirs) / Math.min(mine, theirs))}×`, mine <= theirs ? less : more, `${show(name, mine, true)} against ${show(name, theirs, true)}`, mine <= theirs ? "better" : "worse");
  }
  const gain = gainOf(b);
  if (gain) tile(isDecided(gain) ? signed(gain.value) : gain.verdict, isDecided(gain) ? "by its teacher" : "gain of its teacher", `${signed(gain.value)} ${gain.name === "gain_auc" ? "AUC" : "accuracy"} over the same student alone, ${pWords(gain.p)}`, gainKind(gain));
  return tiles;
}
const ratio = (value) => (value >= 10 ? String(Math.round(value)) : value.toFixed(1));

function drawCompare(state, hooks) {
  const section = document.getElementById("compare");
  section.hidden = !state.pins.length;
  section.replaceChildren();
  if (!state.pins.length) return;
  const [a, b] = state.pins;
  if (b !== undefined) section.append(versus(a, b));
  else section.append(node("p", { class: "hint no-print" }, "Pin a second row to compare the two."));
  section.append(node("div", { class: "pins" }, state.pins.map((i, n) => pinCard(i, n, state, hooks))));
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
  if (sameGround) body.append(...classRows(a, b));
  return node("div", { class: "card versus" }, node("h2", {}, "A and B"), node("table", {}, node("thead", {}, head), body),
    node("p", { class: "hint" }, "Paired tests on the same images: ", node("code", {}, `tutelage leaderboard compare ${[a, b].map((i) => text("row_id", i).slice(0, 8)).join(" ")}`)));
}

// Per class, where both rows tell it: the same classes of the same test images.
function classRows(a, b) {
  const [mine, theirs] = [a, b].map((i) => DATA.details[i]?.per_class);
  if (!mine || !theirs || Array.isArray(mine) || Array.isArray(theirs)) return [];
  const rows = [];
  for (const name of Object.keys(mine).filter((one) => one in theirs).slice(0, 20))
    for (const one of ["auc", "sensitivity"]) {
      const va = mine[name][one] ?? null, vb = theirs[name][one] ?? null;
      if (va === null || vb === null) continue;
      rows.push(node("tr", {}, node("th", { scope: "row" }, `${one === "auc" ? "AUC" : one}, ${name}`), node("td", { class: "figure" }, va.toFixed(3)), node("td", { class: "figure" }, vb.toFixed(3)), node("td", { class: "figure" }, va === vb ? "same" : `${signed((vb - va) * 100, 1)} points`), node("td", {})));
    }
  return rows;
}

function verdict(name, a, b, va, vb) {
  const better = (vb - va) * FIGURES[name].better;
  const isCost = FIGURES[name].better < 0;
  const difference = vb === va ? "same" : isCost ? (vb < va ? `${threeDigits(va / vb)} × less` : `${threeDigits(vb / va)} × more`) : `${vb > va ? "+" : "−"}${(Math.abs(vb - va) * 100).toFixed(1)} points`;
  const ia = interval(name, a), ib = interval(name, b);
  const note = ia && ib ? (ia[0] <= ib[1] && ib[0] <= ia[1] ? "95 % intervals overlap" : "95 % intervals apart") : "";
  const kind = note.includes("overlap") ? "" : better > 0 ? "better" : better < 0 ? "worse" : "";
  return [node("td", { class: `figure ${kind}` }, `${difference}${better > 0 ? " ▲" : better < 0 ? " ▼" : ""}`), node("td", { class: "quiet" }, note)];
}

function pinCard(i, n, state, hooks) {
  const close = node("button", { type: "button", class: "ghost no-print", "aria-label": `Let ${text("model", i)} go` }, "Let go");
  close.addEventListener("click", () => hooks.pin(i));
  const card = node("article", { class: `card pin ${"ab"[n]}` }, node("header", {}, node("h3", {}, node("span", { class: `${"ab"[n]}-ink` }, `${"AB"[n]} `), title(i)), close), facts(i, true));
  card.append(...standing(i, state));
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
  const parent = parentOf(i), looks = parent === undefined ? undefined : DATA.details[parent]?.explained;
  if (details && !details.explained && looks) card.append(node("h3", {}, "Where its fp32 network looks"), detailBlock(looks));
  if (details) card.append(...detailBlocks(details));
  else if (DATA.detailed < NUM) card.append(node("p", { class: "hint" }, `This page holds the details of ${DATA.detailed.toLocaleString("en")} of its ${NUM.toLocaleString("en")} rows; `, node("code", {}, `tutelage leaderboard show ${text("row_id", i).slice(0, 8)}`), " prints the others'."));
  return card;
}

// On which of the drawn fronts a row is, how surely, and what beats it.
function standing(i, state) {
  const peers = peersOf(i), list = node("dl", { class: "facts" });
  for (const cost of new Set(state.axes.map(({ x }) => x))) {
    const verdict = verdictsOf(peers, cost, state.quality).get(i);
    if (verdict === undefined) continue;
    const beaters = beatersOf(i, peers, cost, state.quality);
    const told = { sure: "on the front for sure", maybe: beaters.length ? "within its interval of the front" : "on the front, maybe", no: "not on the front" }[verdict];
    const best = beaters.slice(0, 2).map((j) => `${title(j)} (${show(state.quality, figure(state.quality, j))}, ${show(cost, figure(cost, j), true)})`);
    const others = beaters.length > 2 ? ` and ${beaters.length - 2} more` : "";
    list.append(node("dt", {}, `${FIGURES[state.quality].label}, ${FIGURES[cost].label}`), node("dd", {}, told, best.length ? `; beaten by ${best.join(", ")}${others}` : ""));
  }
  return list.childElementCount ? [node("h3", {}, "Fronts"), list] : [];
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
  const gain = gainOf(i);
  if (gain) add("gain of teacher", `${gain.verdict} ${signed(gain.value)}${gain.bounds ? ` (${signed(gain.bounds[0])} to ${signed(gain.bounds[1])})` : ""}, ${pWords(gain.p)}`);
  if (onFront(i)) add("front", "on the front of quality, latency and size");
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
